"""Command line: arguments in, one report out, exit code.

0 fine, 1 findings, 2 cannot run, 3 an error of this tool.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, Protocol

from verify.engines.registry import READ
from verify.errors import VerifyError, interrupted
from verify.report import about, baseline, choices
from verify.report.about import NAME
from verify.report.deliver import check_outputs, deliver, discard_stdout
from verify.report.ending import EndedError, StoppedError, ending_by_signal
from verify.report.progress import fitted, quiet
from verify.report.render import RENDERERS, render
from verify.report.render.words import one_line
from verify.report.report import Report
from verify.source.repository import checkout_of, file_prefix
from verify.source.revision import provenance

EPILOG = "exit codes: 0 fine, 1 findings, 2 cannot run, 3 internal error"
FORMATS = (
    "table for people (the default), concise (a line a finding), html to look through, markdown, "
    "json by contract, sarif for code scanning, github for annotations, junit, digest for a summary"
)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A command: `module` has `add_arguments` and `run`, and is imported when asked for.

    `judges` where it has findings, `reads` where it takes a SOURCE.
    """

    module: str
    summary: str
    example: str
    judges: bool = True
    reads: bool = True


COMMANDS: dict[str, Listed] = {
    "report": Listed(
        module="verify.checks.pull_request.command",
        summary="helper against every oracle, by category",
        example="report --judge",
    ),
    "explain": Listed(
        module="verify.checks.pull_request.explain",
        summary="one site's truth table, row by row",
        example="explain qwen3_moe/Qwen3MoeSparseMoeBlock.forward_normal/EP",
        judges=False,
        reads=False,
    ),
    "scan": Listed(
        module="verify.checks.scan.command",
        summary="every reduction in a source: guard against consumer",
        example=f"scan {READ}==0.5.23",
    ),
    "prove": Listed(
        module="verify.checks.prove.command",
        summary="exactly once on every legal deployment",
        example=f"prove --max-ranks 8 --source {READ}==0.5.19",
    ),
    "replay": Listed(
        module="verify.checks.replay.command",
        summary="RUNS the source's own method bodies on in-process ranks",
        example=f"replay {READ}==0.5.19 --model gpt_oss",
    ),
    "serve": Listed(
        module="verify.checks.serve.command",
        summary="RUNS the engine whole: one rank against several",
        example=f"serve {READ}==0.5.10.post1 --model qwen3_moe --layout tp2.dp2.ep2",
    ),
    "diff": Listed(
        module="verify.cli.diff",
        summary="what changed between two sources or two saved reports",
        example="diff PATH@main PATH@HEAD",
    ),
    "rule": Listed(
        module="verify.cli.rule_command",
        summary="what a rule means, with an example",
        example="rule missing-skip",
        judges=False,
        reads=False,
    ),
    "cache": Listed(
        module="verify.cli.cache_command",
        summary="where fetched sources are kept; list them, delete them",
        example="cache list",
        judges=False,
        reads=False,
    ),
}


class Command(Protocol):
    """What a command's module offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's own arguments."""

    def run(self, arguments: argparse.Namespace) -> Report:
        """Do the work; raises `VerifyError` when it cannot."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _open_streams()
    code = 2
    with ending_by_signal():
        code = _guarded(sys.argv[1:] if argv is None else list(argv))
    return code


def _guarded(argv: Sequence[str]) -> int:
    """The exit code; whatever goes wrong is one line."""
    try:
        return _main(argv)
    except VerifyError as error:
        _say(f"verify: {error}")
        return 2
    except BrokenPipeError:
        # the reader (head, less) has gone; nothing is left to say to it
        discard_stdout()
        return 2
    except EndedError:
        raise
    except KeyboardInterrupt:
        return interrupted()
    except Exception as error:
        _say(f"verify: {about.internal_error(error)}")
        return 3


def _main(argv: Sequence[str]) -> int:
    arguments = _parser(argv).parse_args(argv)
    outputs = ((arguments.format, arguments.output), *arguments.also)
    # files first: the reader of standard output may go away
    outputs = tuple(sorted(outputs, key=lambda output: output[1] is None))
    written = getattr(arguments, "write_expect", None)
    check_outputs([file for _, file in outputs] + ([written] if written else []))
    if sys.stdout is None:
        # nothing goes there, and renderers may ask how wide it is
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    report, stopped = _run(arguments)
    shown = choices.statistics(report) if getattr(arguments, "statistics", False) else report
    for format_name, output in outputs:
        text = render(shown, format_name=format_name, terminal=output is None)
        deliver(text, output=output)
    if not arguments.quiet:
        _say(report.summary)
        if report.findings and (arguments.format, arguments.output) == ("table", None):
            _say_where_it_begins(text)
    if stopped is not None:
        raise stopped
    return 1 if choices.fails(report.findings, getattr(arguments, "fail_on", "finding")) else 0


def _say_where_it_begins(text: str) -> None:
    """On a terminal the first screen is what has gone by the time that the last one is read."""
    if sys.stdout.isatty() and text.count("\n") > shutil.get_terminal_size().lines:
        _say("what is wrong has gone by at the top; with `| less` it is read from there")


def _say(line: str) -> None:
    # where standard error takes nothing, the exit code is what is left to say
    with suppress(OSError):
        if sys.stderr is not None:
            sys.stderr.write(fitted(one_line(line)) + "\n")
            sys.stderr.flush()


def _open_streams() -> None:
    """Where a standard stream is closed, the next file opened would be taken for it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _run(arguments: argparse.Namespace) -> tuple[Report, KeyboardInterrupt | None]:
    """The command's report: the findings that count, less what the baseline accepts.

    With it what told this process to end, where the report is of what had been done by then.
    """
    stopped: KeyboardInterrupt | None = None
    with ExitStack() as stack:
        if arguments.quiet:
            stack.enter_context(quiet())
        if hasattr(arguments, "offline"):
            from verify.source.fetch import Policy, fetching  # noqa: PLC0415 (slow to import)

            policy = Policy(offline=arguments.offline, refresh=arguments.refresh)
            stack.enter_context(fetching(policy))
        try:
            report: Report = arguments.run(arguments)
        except StoppedError as stop:
            report, stopped = stop.report, stop.cause
    report = replace(report, everything=arguments.all)
    source = getattr(arguments, "source", None) or getattr(arguments, "new", None)
    folder = checkout_of(source) if source else None
    if folder is not None:
        files = (finding.file for finding in report.findings if finding.file)
        report = replace(report, file_prefix=file_prefix(folder, files))
        if "sarif" in (arguments.format, *(name for name, _ in arguments.also)):
            report = replace(report, commit=provenance(source or ""))
    report = choices.selected(report, arguments)
    expect = getattr(arguments, "expect", None)
    written = getattr(arguments, "write_expect", None)
    if written is not None and stopped is None:
        baseline.write(report, written)
        expect = written
    # of a part nothing can be said to be missing
    if expect is not None and stopped is None:
        counted = partial(choices.is_selected, arguments=arguments)
        report = baseline.apply(report, expect, counts=counted)
    return report, stopped


# arguments -----------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """No abbreviated options: with them no option could be added without breaking somebody."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """One line; argparse would show all that may be typed before it."""
        self.exit(2, f"{self.prog}: {message}; --help says what it takes\n")


class _Completion(argparse.Action):
    """Prints the script and ends."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        from shtab import complete  # noqa: PLC0415 (only who asks pays for it)

        # the script is for the command that is installed
        parser.prog = NAME
        deliver(complete(parser, shell=values), output=None)
        parser.exit()


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=about.program(),
        description="Every partial sum a MoE block produces is added up exactly once: shown.",
        epilog=f"COMMAND --help says more; {EPILOG}",
    )
    parser.add_argument("--version", action="version", version=f"{NAME} {about.version()}")
    parser.add_argument(
        "--print-completion",
        action=_Completion,
        choices=("bash", "zsh"),
        help="a script that completes commands and options in this shell",
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    asked = [word for word in argv if word in COMMANDS][:1]
    if "--print-completion" in argv:
        asked = list(COMMANDS)
    for name, listed in COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=listed.summary,
            description=listed.summary,
            epilog=f"example: {parser.prog} {listed.example}; {EPILOG}",
        )
        if name in asked:
            command: Command = import_module(listed.module)
            command.add_arguments(subparser)
            _add_common(subparser)
            if listed.judges:
                choices.add_arguments(subparser)
            if listed.reads:
                _add_fetching(subparser)
            _configure(subparser, name)
            subparser.set_defaults(run=command.run)
    return parser


def _configure(parser: argparse.ArgumentParser, name: str) -> None:
    from verify.cli import configuration  # noqa: PLC0415 (a TOML parser is wanted here only)

    configuration.applied(parser, configuration.defaults(Path.cwd()), command=name)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format", choices=tuple(RENDERERS), default="table", metavar="FORMAT", help=FORMATS
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="instead of standard output")
    parser.add_argument(
        "--also",
        type=_format_and_file,
        action="append",
        default=[],
        metavar="FORMAT=FILE",
        help="the same report in another format as well; may be repeated",
    )
    parser.add_argument("--all", action="store_true", help="tables show all there is, sites too")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary")


def _add_fetching(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--offline", action="store_true", help="fetch nothing: take what the cache has"
    )
    parser.add_argument(
        "--refresh", action="store_true", help="fetch again what the cache has already"
    )


def _format_and_file(text: str) -> tuple[str, Path]:
    format_name, _, file = text.partition("=")
    if format_name not in RENDERERS or not file:
        known = ", ".join(RENDERERS)
        raise argparse.ArgumentTypeError(f"{text!r} is not FORMAT=FILE; formats are {known}")
    return format_name, Path(file)
