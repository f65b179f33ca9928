"""Many cases one after the other; the engine starts when the first one has to run."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from verify.checks.serve import compare, run, zygote
from verify.checks.serve.case import Case, Result
from verify.checks.serve.results import Results, Subject, digest
from verify.checks.serve.session import Session
from verify.checks.serve.source import Located
from verify.engines.engine import Engine


def subject_of(located: Located) -> Subject:
    """Digests of the engine's package and of everything here that has a say in a result."""
    judges = (Path(str(module.__file__)) for module in (compare, run, zygote))
    return Subject(
        source=digest(located.folder / located.engine.package),
        builder=digest(*judges, located.engine.home),
    )


def sweep(
    cases: Sequence[Case],
    *,
    engine: Engine,
    results: Results,
    launch: Callable[[], Session],
    tell: Callable[[str], None],
) -> list[Result]:
    """A result a case, in their order: what `results` has, and what has to run."""
    found = []
    with ExitStack() as stack:
        judge: run.Judge | None = None
        for number, case in enumerate(cases, start=1):
            known = results.get(case)
            if known is None:
                judge = judge or _judge(stack.enter_context(launch()), engine)
                result = judge.judge(case)
                results.keep(result)
                time = f"{result.seconds:.1f} s"
            else:
                result, time = known, "kept"
            name = f"{number}/{len(cases)} {case.model} {case.layout}"
            tell(f"{name}: {result.outcome}, {time}")
            found.append(result)
    return found


def _judge(session: Session, engine: Engine) -> run.Judge:
    session.start()
    release = f"{engine.name} {session.hello['version']}"
    return run.Judge(engine=engine, session=session, release=release)
