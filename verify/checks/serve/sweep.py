"""Many cases one after the other; the engine starts when the first one has to run."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from verify.checks.serve import calibrate, compare, ended, run, session, zygote
from verify.checks.serve.case import Case, Result
from verify.checks.serve.environment import ready
from verify.checks.serve.results import Results, Subject, digest
from verify.checks.serve.session import Session
from verify.checks.serve.source import Located, locate
from verify.engines import inside
from verify.engines.engine import Engine
from verify.engines.registry import engines
from verify.errors import VerifyError


def subject_of(located: Located, engine: Engine) -> Subject:
    """Digests of the engine's package and of everything here that has a say in a result.

    A device other than the CPU is part of the latter: no case of one is one of the other.
    """
    judges = (Path(str(module.__file__)) for module in (calibrate, compare, ended, run, zygote))
    # what every engine's own module may use
    shared = Path(str(inside.__file__)).parent
    builder = digest(*judges, shared, engine.home)
    return Subject(
        source=digest(located.folder / engine.package),
        builder=builder if engine.device == "cpu" else f"{builder}-{engine.device}",
    )


class Sweep:
    """Runs cases that no results have, and keeps theirs; `with Sweep(...) as sweep`.

    `package` is the folder of the engine's source.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        results: Results,
        launch: Callable[[], Session],
        tell: Callable[[str], None],
        package: Path,
        python: Path | None = None,
    ) -> None:
        self.package = package
        self.engine, self.subject, self._python = engine, results.subject, python
        self._results, self._launch, self._tell = results, launch, tell
        self._stack = ExitStack()
        self._judge: run.Judge | None = None
        self._number = 0

    def __enter__(self) -> "Sweep":
        return self

    def __exit__(self, *caught: object) -> None:
        self._stack.close()

    def check(self, cases: Sequence[Case]) -> None:
        """Raises `VerifyError` before anything runs where a case needs more GPUs than there are."""
        if self.engine.device == "cpu":
            return
        needs = {case.layout: self.engine.ranks(case.layout) for case in self._new(cases)}
        if not needs:
            return
        layout = max(needs, key=lambda each: needs[each])
        there = self._started().session.hello["gpus"]
        if needs[layout] > there:
            raise VerifyError(
                f"--device {self.engine.device}: {layout} needs {_gpus(needs[layout])}, and "
                f"{self._python} sees {_gpus(there)}"
            )

    def serve(self, case: Case) -> Result:
        """The result of `case`, run if it has to be."""
        result, how = self._results.get(case), "kept"
        if result is None:
            result = self._started().judge(case)
            self._results.keep(result)
            how = f"{result.seconds:.1f} s"
        self._number += 1
        self._tell(f"{self._number} {case.model} {case.layout}: {result.outcome}, {how}")
        for rank, said in enumerate(result.said):
            self._tell(f"rank {rank} said last:\n{said}")
        return result

    def _new(self, cases: Sequence[Case]) -> Iterator[Case]:
        return (case for case in cases if self._results.get(case) is None)

    def _started(self) -> run.Judge:
        if self._judge is None:
            started = self._stack.enter_context(self._launch())
            started.start()
            release = f"{self.engine.name} {started.hello['version']}"
            self._judge = run.Judge(engine=self.engine, session=started, release=release)
        return self._judge


@contextmanager
def opened(
    source: str,
    *,
    python: Path | None,
    results: Sequence[Path],
    tell: Callable[[str], None],
    device: str = "cpu",
) -> Iterator[Sweep]:
    """A sweep over SOURCE; its Python is `python`, or made when the first case has to run.

    Raises `VerifyError` for a `device` that the engine is not served on, or not without `python`.
    """
    with tempfile.TemporaryDirectory(prefix="verify-source-") as scratch:
        located = locate(source, engines=engines(), scratch=Path(scratch))
        engine = _on(device, located.engine, python)

        def launch() -> Session:
            started = session.Engine(
                python=python or _environment(engine, source, tell),
                drive=engine.drive,
                source=located.folder,
                variables=engine.variables,
                caged=engine.caged,
            )
            return Session(started)

        kept = Results(files=results, subject=subject_of(located, engine))
        with Sweep(
            engine=engine,
            results=kept,
            launch=launch,
            tell=tell,
            package=located.folder / engine.package,
            python=python,
        ) as sweep:
            yield sweep


def _on(device: str, engine: Engine, python: Path | None) -> Engine:
    if device == engine.device:
        return engine
    if device not in engine.devices:
        raise VerifyError(f"--device {device}: {engine.name} is served on {engine.device} only")
    if python is None:
        raise VerifyError(
            f"--device {device} needs --python PATH, with {engine.name}'s packages and kernels: "
            f"environments that are made here are for {engine.device}"
        )
    return engine.devices[device]


def _gpus(count: int) -> str:
    return f"{count} GPU" if count == 1 else f"{count} GPUs"


def _environment(engine: Engine, source: str, tell: Callable[[str], None]) -> Path:
    recipe = engine.environment
    _, exact, version = source.partition("==")
    requirements = recipe.requirements(version if exact else recipe.newest)
    # releases that ask for the same packages share them
    name = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:8]
    return ready(f"{engine.name}-{name}", requirements, size=recipe.size, tell=tell)
