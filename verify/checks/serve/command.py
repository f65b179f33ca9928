"""`verify serve`: starts the released engine itself, on one rank and on several, and compares."""

import argparse
import sys
from pathlib import Path

from verify.checks.serve.case import Case, Result
from verify.checks.serve.layout import parse
from verify.checks.serve.report import report
from verify.checks.serve.run import Judge, judged
from verify.checks.serve.session import Engine, Session
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
    parser.add_argument("--python", type=Path, metavar="PATH", help="has the engine's packages")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--patch", metavar="FILE", help="Python run in each rank before loading")
    parser.add_argument("arguments", nargs="*", metavar="-- SERVER ARGUMENTS")


def run(arguments: argparse.Namespace) -> Report:
    """Serve and report; raises `VerifyError` when it cannot."""
    if not arguments.model or not arguments.layout or not arguments.python:
        raise VerifyError("serve: --model, --layout and --python are needed")
    cases = [
        Case(
            model=model,
            layout=parse(layout),
            seed=arguments.seed,
            arguments=tuple(arguments.arguments),
            patch=arguments.patch,
        )
        for model in arguments.model
        for layout in arguments.layout
    ]
    engine = Engine(
        python=arguments.python,
        drive=tables.DRIVE,
        source=Path(arguments.source),
        variables=tables.VARIABLES,
    )
    with Session(engine) as session:
        session.start()
        judge = Judge(session=session, release=f"sglang {session.hello['version']}")
        results = list(judged(judge, cases, tell=_tell))
    return report(results, named=True)


def _tell(result: Result) -> None:
    sys.stderr.write(f"{result.case.model} {result.case.layout}: {result.outcome}\n")
