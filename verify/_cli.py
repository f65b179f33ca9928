"""Command line: arguments in, one report out, exit code.

0 fine, 1 findings, 2 cannot run, 3 an error of this tool.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Protocol

from verify import baseline
from verify.deliver import deliver, discard_stdout
from verify.errors import VerifyError
from verify.progress import quiet
from verify.render import RENDERERS, render
from verify.render.words import one_line
from verify.report import Report
from verify.repository import checkout_of, file_prefix

# name -> (module with add_arguments and run, one line of help); modules load when asked for,
# so that `report` never pays for what `replay` imports
COMMANDS: dict[str, tuple[str, str]] = {
    "report": ("verify.pull_request.command", "helper against every oracle, by category"),
    "explain": ("verify.pull_request.explain", "one site's truth table, row by row"),
    "scan": ("verify.scan.command", "every reduction in an SGLang source: guard against consumer"),
    "prove": ("verify.ledger.command", "exactly once on every legal deployment"),
    "replay": ("verify.replay.command", "RUNS the source's own method bodies on in-process ranks"),
    "serve": ("verify.checks.serve.command", "RUNS the engine whole: one rank against several"),
    "diff": ("verify.diff", "what changed between two sources or two saved reports"),
}


class Command(Protocol):
    """What a command's module offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's own arguments."""

    def run(self, arguments: argparse.Namespace) -> Report:
        """Do the work; raises `VerifyError` when it cannot."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = _parser(argv)
    arguments = parser.parse_args(argv)
    try:
        report = _run(arguments)
        for format_name, output in ((arguments.format, arguments.output), *arguments.also):
            deliver(render(report, format_name=format_name), output=output)
    except VerifyError as error:
        _say(f"verify: {error}")
        return 2
    except BrokenPipeError:
        # the reader (head, less) has gone; nothing is left to say to it
        discard_stdout()
        return 2
    except KeyboardInterrupt:
        _say("verify: interrupted")
        return 2
    except Exception as error:
        _say(f"verify: internal error: {type(error).__name__}: {error}; please report it")
        return 3
    if not arguments.quiet:
        _say(report.summary)
    failed = bool(report.findings) and arguments.fail_on == "finding"
    return 1 if failed else 0


def _say(line: str) -> None:
    sys.stderr.write(one_line(line) + "\n")


def _run(arguments: argparse.Namespace) -> Report:
    """The command's report, files named as the repository does, less what the baseline accepts."""
    with quiet() if arguments.quiet else nullcontext():
        report: Report = arguments.run(arguments)
    source = getattr(arguments, "source", None) or getattr(arguments, "new", None)
    folder = checkout_of(source) if source else None
    if folder is not None:
        files = (finding.file for finding in report.findings if finding.file)
        report = replace(report, file_prefix=file_prefix(folder, files))
    expect = getattr(arguments, "expect", None)
    return baseline.apply(report, expect) if expect else report


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m verify",
        description="Every partial sum a MoE block produces is added up exactly once: shown.",
        epilog="exit codes: 0 fine, 1 findings, 2 cannot run, 3 internal error",
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    asked = next((word for word in argv if word in COMMANDS), None)
    for name, (module, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name == asked:
            command: Command = import_module(module)
            command.add_arguments(subparser)
            _add_common(subparser)
            subparser.set_defaults(run=command.run)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=tuple(RENDERERS), default="table")
    parser.add_argument("--output", type=Path, metavar="FILE", help="instead of standard output")
    parser.add_argument(
        "--also",
        type=_format_and_file,
        action="append",
        default=[],
        metavar="FORMAT=FILE",
        help="the same report in another format as well; may be repeated",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary")
    parser.add_argument(
        "--fail-on", choices=("finding", "never"), default="finding", help="what exits with 1"
    )


def _format_and_file(text: str) -> tuple[str, Path]:
    format_name, _, file = text.partition("=")
    if format_name not in RENDERERS or not file:
        known = ", ".join(RENDERERS)
        raise argparse.ArgumentTypeError(f"{text!r} is not FORMAT=FILE; formats are {known}")
    return format_name, Path(file)
