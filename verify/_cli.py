"""Command line: arguments in, one report out, exit code 0 (fine), 1 (findings), 2 (cannot run)."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from verify.errors import VerifyError
from verify.render import RENDERERS, render
from verify.report import Report

# name -> (module with add_arguments and run, one line of help); modules load when asked for,
# so that `report` never pays for what `replay` imports
COMMANDS: dict[str, tuple[str, str]] = {
    "report": ("verify.pull_request.command", "helper against every oracle, by category"),
    "explain": ("verify.pull_request.explain", "one site's truth table, row by row"),
    "scan": ("verify.scan.command", "every reduction in an SGLang source: guard against consumer"),
    "prove": ("verify.ledger.command", "exactly once on every legal deployment"),
    "replay": ("verify.replay.command", "RUNS the source's own method bodies on in-process ranks"),
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
        report = arguments.run(arguments)
        _deliver(render(report, format_name=arguments.format), output=arguments.output)
    except VerifyError as error:
        _say(f"verify: {error}")
        return 2
    except BrokenPipeError:
        # the reader (head, less) has gone; nothing is left to say to it
        _discard_stdout()
        return 2
    except KeyboardInterrupt:
        _say("verify: interrupted")
        return 2
    if not arguments.quiet:
        _say(report.summary)
    failed = bool(report.findings) and arguments.fail_on == "finding"
    return 1 if failed else 0


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m verify",
        description="Every partial sum a MoE block produces is added up exactly once: shown.",
        epilog="exit codes: 0 fine, 1 findings, 2 cannot run",
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
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary")
    parser.add_argument(
        "--fail-on", choices=("finding", "never"), default="finding", help="what exits with 1"
    )


def _deliver(text: str, *, output: Path | None) -> None:
    if output is None:
        _print(text)
        return
    try:
        if output.exists() and not output.is_file():
            output.write_text(text, encoding="utf-8")  # a device or a pipe: nothing to replace
        else:
            _replace(output, text)
    except OSError as error:
        raise VerifyError(f"cannot write {output}: {error.strerror}") from error


def _print(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard_stdout()
        raise VerifyError(f"cannot write to standard output: {error.strerror}") from error


def _replace(output: Path, text: str) -> None:
    """Whole or not at all: the file is written beside its place and then moved there."""
    draft = output.with_name(f".{output.name}.{uuid4().hex}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)


def _discard_stdout() -> None:
    """What could not be written must not be tried again when the interpreter exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
