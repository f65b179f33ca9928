"""`verify replay`: EXECUTES the code of a source, on in-process ranks, and counts."""

import argparse
import os
import re
from dataclasses import asdict
from importlib.util import find_spec

from verify.checks.replay.deployments import LOCAL_SIZE, Execution, executable
from verify.engines.registry import READ
from verify.errors import VerifyError
from verify.report.report import Report

WARNING = (
    "This command EXECUTES third-party code: classes and functions of SOURCE, in child processes "
    "with memory and time limits, without network, writing only to a scratch folder. Nothing is "
    "imported or installed. Run it on sources that you would also be willing to install."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SOURCE, and which models and deployments of it."""
    parser.description = WARNING
    parser.add_argument(
        "source", metavar="SOURCE", help=f"directory, wheel, sdist or requirement ({READ}==0.5.11)"
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="M",
        help="a model file's name, such as qwen3_moe; may be repeated (default: every one with "
        "experts)",
    )
    parser.add_argument(
        "--world-size", type=int, default=4, metavar="N", help="ranks, 1 to 8 (default: 4)"
    )
    parser.add_argument(
        "--deployment",
        action="append",
        metavar="KEY=VALUE[,...]",
        help="only deployments with these values, such as dp_size=4,ep_size=4; may be repeated",
    )
    parser.add_argument(
        "--env",
        action="append",
        metavar="NAME=VALUE",
        help="a variable of the server's environment; may be repeated",
    )
    parser.add_argument(
        "--jobs", type=int, default=min(4, os.cpu_count() or 1), metavar="N", help="child processes"
    )


def run(arguments: argparse.Namespace) -> Report:
    """Execute and report; raises `VerifyError` when it cannot."""
    # newer releases make their arguments with msgspec, and nothing starts without them
    for package in ("torch", "msgspec"):
        if find_spec(package) is None:
            raise VerifyError(
                f"replay needs {package}, which is not installed: pip install {package}"
            )
    if not 1 <= arguments.world_size <= 8:
        raise VerifyError(f"--world-size {arguments.world_size}: 1 to 8 ranks fit here")
    if arguments.jobs < 1:
        raise VerifyError(f"--jobs {arguments.jobs}: at least one child process is needed")
    from verify.checks.replay.overview import survey  # noqa: PLC0415 (keeps --help quick)

    return survey(
        arguments.source,
        models=tuple(arguments.model or ()),
        deployments=chosen(arguments.world_size, arguments.deployment or []),
        variables=variables(arguments.env or []),
        jobs=arguments.jobs,
    )


def variables(settings: list[str]) -> dict[str, str]:
    """`NAME=VALUE` texts as a dictionary. Raises `VerifyError` for any other text."""
    for text in settings:
        if not re.fullmatch(r"[A-Za-z_]\w*=.*", text):
            raise VerifyError(f"--env {text}: want NAME=VALUE")
    return dict(text.partition("=")[::2] for text in settings)


def chosen(world_size: int, filters: list[str]) -> tuple[Execution, ...]:
    """The executable deployments that match one of `filters`, all without any.

    Raises `VerifyError` for a filter that matches none.
    """
    everything = tuple(executable(world_size))
    if not filters:
        return everything
    wanted: list[Execution] = []
    for text in filters:
        keys = f"keys are {', '.join(sorted(everything[-1].as_json()))}"
        values = dict(part.partition("=")[::2] for part in text.split(","))
        bare = [name for name, value in values.items() if not value]
        if bare:
            raise VerifyError(f"--deployment {text}: want KEY=VALUE, not {bare[0]!r}; {keys}")
        found = [d for d in everything if _matches(d, values)]
        if not found:
            raise VerifyError(
                f"--deployment {text}: matches none of {len(everything)} deployments of "
                f"{world_size} ranks; {keys}"
            )
        wanted += [d for d in found if d not in wanted]
    return tuple(wanted)


def _matches(deployment: Execution, values: dict[str, str]) -> bool:
    described = {
        **asdict(deployment.config),
        **asdict(deployment),
        "pp_size": 1,
        LOCAL_SIZE: 1,
        **deployment.as_json(),
    }
    return all(str(described.get(name)) == value for name, value in values.items())
