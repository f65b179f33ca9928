"""`verify serve`: starts the released engine itself, on one rank and on several, and compares."""

import argparse
import sys
import tempfile
from pathlib import Path

from verify.checks.serve.case import Case, Result
from verify.checks.serve.environment import ready
from verify.checks.serve.layout import every, parse
from verify.checks.serve.report import report
from verify.checks.serve.run import Judge, judged
from verify.checks.serve.session import Engine, Session
from verify.checks.serve.source import importable
from verify.engines.sglang.serving import tables
from verify.errors import VerifyError
from verify.report import Report

WARNING = (
    "This command IMPORTS and RUNS SOURCE, whole, in child processes. Run it on sources that you "
    "would also be willing to install."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SOURCE, which models and layouts, and which Python has the engine's packages."""
    parser.description = WARNING
    parser.add_argument("source", metavar="SOURCE", help="sglang==X, a wheel or a checkout")
    parser.add_argument("--model", action="append", metavar="NAME", help="may be repeated")
    parser.add_argument(
        "--layout", action="append", metavar="KEY", help="tp4.dp2.ep2, say; may be repeated"
    )
    parser.add_argument(
        "--all-layouts", action="store_true", help="every layout of 2 and 4 ranks, counted"
    )
    parser.add_argument("--python", type=Path, metavar="PATH", help="has the engine's packages")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--patch", metavar="FILE", help="Python run in each rank before loading")
    parser.add_argument("arguments", nargs="*", metavar="-- SERVER ARGUMENTS")


def run(arguments: argparse.Namespace) -> Report:
    """Serve and report; raises `VerifyError` when it cannot."""
    if not arguments.model or not (arguments.layout or arguments.all_layouts):
        raise VerifyError("serve: say which --model, and which --layout or --all-layouts")
    layouts = [parse(text) for text in arguments.layout or ()]
    layouts += [layout for layout in every() if arguments.all_layouts and layout not in layouts]
    cases = [
        Case(
            model=model,
            layout=layout,
            seed=arguments.seed,
            arguments=tuple(arguments.arguments),
            patch=arguments.patch,
        )
        for model in arguments.model
        for layout in layouts
    ]
    with tempfile.TemporaryDirectory(prefix="verify-source-") as scratch:
        engine = Engine(
            python=arguments.python or _environment(arguments.source),
            drive=tables.DRIVE,
            source=importable(arguments.source, package=tables.PACKAGE, scratch=Path(scratch)),
            variables=tables.VARIABLES,
        )
        with Session(engine) as session:
            session.start()
            judge = Judge(session=session, release=f"sglang {session.hello['version']}")
            results = list(judged(judge, cases, tell=_tell))
    return report(results, named=not arguments.all_layouts)


def _environment(source: str) -> Path:
    _, exact, version = source.partition("==")
    release = version if exact else tables.NEWEST
    return ready(
        f"{tables.PACKAGE}-{release}",
        tables.requirements(release),
        size=tables.SIZE,
        tell=_line,
    )


def _tell(result: Result) -> None:
    _line(f"{result.case.model} {result.case.layout}: {result.outcome}, {result.seconds:.1f} s")


def _line(text: str) -> None:
    sys.stderr.write(text + "\n")
