"""Many cases one after the other; the engine starts when the first one has to run."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from verify.checks.serve import calibrate, compare, run, session, zygote
from verify.checks.serve.case import Case, Result
from verify.checks.serve.environment import ready
from verify.checks.serve.results import Results, Subject, digest
from verify.checks.serve.session import Session
from verify.checks.serve.source import Located, locate
from verify.engines import inside
from verify.engines.engine import Engine
from verify.engines.registry import engines


def subject_of(located: Located) -> Subject:
    """Digests of the engine's package and of everything here that has a say in a result."""
    judges = (Path(str(module.__file__)) for module in (calibrate, compare, run, zygote))
    # what every engine's own module may use
    shared = Path(str(inside.__file__)).parent
    return Subject(
        source=digest(located.folder / located.engine.package),
        builder=digest(*judges, shared, located.engine.home),
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
        self.engine, self.subject = engine, results.subject
        self._results, self._launch, self._tell = results, launch, tell
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
            started = self._stack.enter_context(self._launch())
            started.start()
            release = f"{self.engine.name} {started.hello['version']}"
            self._judge = run.Judge(engine=self.engine, session=started, release=release)
        return self._judge


@contextmanager
def opened(
    source: str, *, python: Path | None, results: Sequence[Path], tell: Callable[[str], None]
) -> Iterator[Sweep]:
    """A sweep over SOURCE; its Python is `python`, or made when the first case has to run."""
    with tempfile.TemporaryDirectory(prefix="verify-source-") as scratch:
        located = locate(source, engines=engines(), scratch=Path(scratch))
        engine = located.engine

        def launch() -> Session:
            started = session.Engine(
                python=python or _environment(engine, source, tell),
                drive=engine.drive,
                source=located.folder,
                variables=engine.variables,
            )
            return Session(started)

        kept = Results(files=results, subject=subject_of(located))
        with Sweep(engine=engine, results=kept, launch=launch, tell=tell) as sweep:
            yield sweep


def _environment(engine: Engine, source: str, tell: Callable[[str], None]) -> Path:
    recipe = engine.environment
    _, exact, version = source.partition("==")
    requirements = recipe.requirements(version if exact else recipe.newest)
    # releases that ask for the same packages share them
    name = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:8]
    return ready(f"{engine.name}-{name}", requirements, size=recipe.size, tell=tell)
