"""`verify serve`: starts the released engine itself, on one rank and on several, and compares."""

import argparse
import sys
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from verify.checks.serve.against import against, words
from verify.checks.serve.answers import Question, answered, questions
from verify.checks.serve.case import Case, Result
from verify.checks.serve.difference import Side, compared, is_saved, side
from verify.checks.serve.layout import chosen
from verify.checks.serve.report import answers_report, report
from verify.checks.serve.sweep import Sweep, opened
from verify.engines.engine import Engine
from verify.errors import VerifyError
from verify.report.progress import tell
from verify.report.report import Report

WARNING = (
    "This command IMPORTS and RUNS SOURCE, whole, in child processes with limits, no network but "
    "their loopback where the system allows it, and one folder to write to. That bounds accidents, "
    "not malice: run it on sources that you would also be willing to install."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SOURCE, which models and layouts, and which Python has the engine's packages."""
    parser.description = WARNING
    parser.add_argument(
        "source", nargs="?", metavar="SOURCE", help="ENGINE==X, a wheel, a checkout or PATH@REV"
    )
    parser.add_argument(
        "--diff",
        nargs=2,
        metavar=("A", "B"),
        help="instead of SOURCE: the cases in which two differ; sources, or saved results (.json, "
        ".jsonl)",
    )
    parser.add_argument("--model", action="append", metavar="NAME", help="may be repeated")
    parser.add_argument(
        "--layout",
        action="append",
        metavar="KEY",
        help="tp4.dp2.ep2, say, or `gate`; may be repeated",
    )
    parser.add_argument(
        "--all-layouts", action="store_true", help="every layout of 2 and 4 ranks, counted"
    )
    parser.add_argument("--python", type=Path, metavar="PATH", help="has the engine's packages")
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="cuda: the engine's own kernels, a GPU a rank; needs --python",
    )
    parser.add_argument(
        "--findings",
        type=Path,
        metavar="FILE",
        help="a saved report of scan or prove: serve what each finding says; with --model, those",
    )
    parser.add_argument(
        "--results",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="JSON lines: what it holds is not run again, what ran is added to the first of them",
    )
    parser.add_argument(
        "--seed", type=int, action="append", metavar="N", help="of weights and tokens; repeatable"
    )
    parser.add_argument(
        "--corruptions",
        action="store_true",
        help="every collective over other groups and every slice made wrong as well; a table",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="WHEEL",
        help="say which Python files of SOURCE are those of another distribution's wheel",
    )
    parser.add_argument(
        "--patch", type=_absolute, metavar="FILE", help="Python run in each rank before loading"
    )
    parser.usage = f"{parser.prog} SOURCE|--diff A B [options] [-- SERVER ARGUMENTS]"
    _keep_server_arguments(parser)


def _keep_server_arguments(parser: argparse.ArgumentParser) -> None:
    """What follows `--` becomes `arguments`: argparse has no words for it behind options."""
    parse = parser.parse_known_args

    def split(args: Any = None, namespace: Any = None) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        cut = words.index("--") if "--" in words else len(words)
        found, unknown = parse(words[:cut], namespace)
        found.arguments = tuple(words[cut + 1 :])
        return found, unknown

    parser.parse_known_args = split  # type: ignore[method-assign]


def run(arguments: argparse.Namespace) -> Report:
    """Serve and report; raises `VerifyError` when it cannot."""
    _check(arguments)
    if arguments.diff:
        return compared(
            arguments.diff,
            serve=partial(_side, arguments=arguments),
            named=bool(arguments.model) and not arguments.all_layouts,
        )
    with _opened(arguments.source, arguments) as sweep:
        engine, subject = sweep.engine, sweep.subject
        if arguments.findings:
            asked = _questions(arguments, engine)
            served = [answered(each, source=arguments.source, serve=sweep.serve) for each in asked]
            return answers_report(served, engine=engine.name, subject=subject)
        beside = against(sweep.package, arguments.against) if arguments.against else None
        if beside:
            tell(words(beside, engine=engine.name))
        ran = _served(sweep, arguments)
    return report(
        ran,
        engine=engine.name,
        subject=subject,
        named=not arguments.all_layouts,
        beside=beside,
    )


def _side(source: str, arguments: argparse.Namespace) -> Side:
    """One side of `--diff`, served."""
    with _opened(source, arguments) as sweep:
        ran = _served(sweep, arguments)
    return side(source, ran, builders=[sweep.subject.builder])


def _opened(source: str, arguments: argparse.Namespace) -> AbstractContextManager[Sweep]:
    return opened(
        source,
        python=arguments.python,
        results=arguments.results,
        tell=tell,
        device=arguments.device,
    )


def _served(sweep: Sweep, arguments: argparse.Namespace) -> list[Result]:
    cases = _cases(arguments, sweep.engine)
    sweep.check(cases)
    return [sweep.serve(case) for case in cases]


def _check(arguments: argparse.Namespace) -> None:
    layouts = arguments.layout or arguments.all_layouts
    if (arguments.source is None) == (arguments.diff is None):
        raise VerifyError("serve: say a SOURCE, or --diff A B")
    if arguments.diff:
        _check_diff(arguments, layouts=bool(layouts))
        return
    if arguments.findings and (layouts or arguments.arguments):
        raise VerifyError("serve: a finding says its own launch; --findings takes no layout")
    if arguments.against and arguments.findings:
        raise VerifyError("serve: --against takes no --findings")
    if arguments.findings and arguments.device != "cpu":
        raise VerifyError("serve: --findings asks CPU ranks; leave --device out")
    if arguments.findings and (arguments.corruptions or len(arguments.seed or ()) > 1):
        raise VerifyError("serve: --findings takes one --seed and no --corruptions")
    if not arguments.findings and not (arguments.model and layouts):
        raise VerifyError(
            "serve: say which --model, and which --layout or --all-layouts; or --findings FILE"
        )


def _check_diff(arguments: argparse.Namespace, *, layouts: bool) -> None:
    if arguments.findings or arguments.corruptions or arguments.against:
        raise VerifyError("serve: --diff takes no --findings, --corruptions and --against")
    whole = bool(arguments.model) and layouts
    sources = [text for text in arguments.diff if not is_saved(text)]
    if sources and not whole:
        raise VerifyError(
            f"serve --diff: {sources[0]} has to be served: say which --model, and which --layout "
            "or --all-layouts"
        )
    if not sources and (arguments.model or layouts or arguments.arguments):
        raise VerifyError(
            "serve --diff: saved results have their cases; take --model and the rest away"
        )


def _absolute(text: str) -> str:
    """A path that means the same file in the ranks, which work in a folder of their own."""
    return str(Path(text).absolute())


def _questions(arguments: argparse.Namespace, engine: Engine) -> list[Question]:
    return questions(
        arguments.findings,
        engine=engine,
        models=arguments.model,
        seed=(arguments.seed or [0])[0],
        patch=arguments.patch,
    )


def _cases(arguments: argparse.Namespace, engine: Engine) -> list[Case]:
    layouts = chosen(engine, arguments.layout or (), everything=arguments.all_layouts)
    return [
        Case(
            model=model,
            layout=layout,
            seed=seed,
            arguments=arguments.arguments,
            patch=arguments.patch,
            thorough=arguments.corruptions,
        )
        for model in dict.fromkeys(arguments.model or ())
        for seed in dict.fromkeys(arguments.seed or [0])
        for layout in layouts
    ]
