"""Many cases one after the other; the engine starts when the first one has to run."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from verify.checks.serve import calibrate, compare, run, zygote
from verify.checks.serve.case import Case, Result
from verify.checks.serve.results import Results, Subject, digest
from verify.checks.serve.session import Session
from verify.checks.serve.source import Located
from verify.engines.engine import Engine


def subject_of(located: Located) -> Subject:
    """Digests of the engine's package and of everything here that has a say in a result."""
    judges = (Path(str(module.__file__)) for module in (calibrate, compare, run, zygote))
    return Subject(
        source=digest(located.folder / located.engine.package),
        builder=digest(*judges, located.engine.home),
    )


class Sweep:
    """Runs cases that no results have, and keeps theirs; `with Sweep(...) as sweep`."""

    def __init__(
        self,
        *,
        engine: Engine,
        results: Results,
        launch: Callable[[], Session],
        tell: Callable[[str], None],
    ) -> None:
        self._engine, self._results, self._launch, self._tell = engine, results, launch, tell
        self._stack = ExitStack()
        self._judge: run.Judge | None = None
        self._number = 0

    def __enter__(self) -> "Sweep":
        return self

    def __exit__(self, *caught: object) -> None:
        self._stack.close()

    def serve(self, case: Case) -> Result:
        """The result of `case`, run if it has to be."""
        result, how = self._results.get(case), "kept"
        if result is None:
            result = self._started().judge(case)
            self._results.keep(result)
            how = f"{result.seconds:.1f} s"
        self._number += 1
        self._tell(f"{self._number} {case.model} {case.layout}: {result.outcome}, {how}")
        return result

    def _started(self) -> run.Judge:
        if self._judge is None:
            session = self._stack.enter_context(self._launch())
            session.start()
            release = f"{self._engine.name} {session.hello['version']}"
            self._judge = run.Judge(engine=self._engine, session=session, release=release)
        return self._judge
