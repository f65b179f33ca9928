"""`verify serve`: starts the released engine itself, on one rank and on several, and compares."""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

from verify.checks.serve import session
from verify.checks.serve.case import Case
from verify.checks.serve.environment import ready
from verify.checks.serve.layout import chosen
from verify.checks.serve.report import report
from verify.checks.serve.results import Results
from verify.checks.serve.source import Located, locate
from verify.checks.serve.sweep import subject_of, sweep
from verify.engines.engine import Engine
from verify.engines.registry import engines
from verify.errors import VerifyError
from verify.report import Report

WARNING = (
    "This command IMPORTS and RUNS SOURCE, whole, in child processes. Run it on sources that you "
    "would also be willing to install."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SOURCE, which models and layouts, and which Python has the engine's packages."""
    parser.description = WARNING
    parser.add_argument(
        "source", metavar="SOURCE", help="ENGINE==X, a wheel, a checkout or PATH@REV"
    )
    parser.add_argument("--model", action="append", metavar="NAME", help="may be repeated")
    parser.add_argument(
        "--layout", action="append", metavar="KEY", help="tp4.dp2.ep2, say; may be repeated"
    )
    parser.add_argument(
        "--all-layouts", action="store_true", help="every layout of 2 and 4 ranks, counted"
    )
    parser.add_argument("--python", type=Path, metavar="PATH", help="has the engine's packages")
    parser.add_argument(
        "--results",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="JSON lines: what it holds is not run again, what ran is added to the first of them",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--patch", metavar="FILE", help="Python run in each rank before loading")
    parser.add_argument("arguments", nargs="*", metavar="-- SERVER ARGUMENTS")


def run(arguments: argparse.Namespace) -> Report:
    """Serve and report; raises `VerifyError` when it cannot."""
    if not arguments.model or not (arguments.layout or arguments.all_layouts):
        raise VerifyError("serve: say which --model, and which --layout or --all-layouts")
    with tempfile.TemporaryDirectory(prefix="verify-source-") as scratch:
        located = locate(arguments.source, engines=engines(), scratch=Path(scratch))
        cases = _cases(arguments, located.engine)
        results = Results(files=arguments.results, subject=subject_of(located))
        launch = partial(_session, located, arguments)
        swept = sweep(cases, engine=located.engine, results=results, launch=launch, tell=_line)
    return report(
        swept,
        engine=located.engine.name,
        subject=results.subject,
        named=not arguments.all_layouts,
    )


def _session(located: Located, arguments: argparse.Namespace) -> session.Session:
    engine = located.engine
    return session.Session(
        session.Engine(
            python=arguments.python or _environment(engine, arguments.source),
            drive=engine.drive,
            source=located.folder,
            variables=engine.variables,
        )
    )


def _cases(arguments: argparse.Namespace, engine: Engine) -> list[Case]:
    layouts = chosen(engine, arguments.layout or (), everything=arguments.all_layouts)
    return [
        Case(
            model=model,
            layout=layout,
            seed=arguments.seed,
            arguments=tuple(arguments.arguments),
            patch=arguments.patch,
        )
        for model in dict.fromkeys(arguments.model)
        for layout in layouts
    ]


def _environment(engine: Engine, source: str) -> Path:
    recipe = engine.environment
    _, exact, version = source.partition("==")
    release = version if exact else recipe.newest
    requirements = recipe.requirements(release)
    return ready(f"{engine.name}-{release}", requirements, size=recipe.size, tell=_line)


def _line(text: str) -> None:
    sys.stderr.write(text + "\n")
