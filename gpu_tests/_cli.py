"""Command line: 0 every case as the ledger says, 1 a case is not, 2 it could not be run."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from gpu_tests import machine
from gpu_tests.cases import DTYPES, LIBRARIES, Case, Kernels
from gpu_tests.causes import Cause, causes
from gpu_tests.job import Torchrun, check_world, choose_kernels, on_this_machine, under_torchrun
from gpu_tests.outcome import Outcome
from gpu_tests.plan import cases, check_guard
from gpu_tests.pool import RankFaultError
from gpu_tests.report import make_report
from gpu_tests.specs import SPECS
from verify.errors import VerifyError
from verify.logic.flags import flag_names
from verify.report.about import internal_error
from verify.report.deliver import check_outputs, deliver, discard_stdout
from verify.report.progress import fitted, quiet
from verify.report.render import RENDERERS, render
from verify.report.render.words import one_line

DEADLINE = 60.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases; returns the exit code. Whatever goes wrong is one line."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except VerifyError as error:
        sys.stderr.write(f"gpu_tests: {error}\n")
    except BrokenPipeError:
        discard_stdout()
    except KeyboardInterrupt:
        sys.stderr.write("gpu_tests: interrupted\n")
    except Exception as error:
        # 1 would be a verdict
        sys.stderr.write(f"gpu_tests: {one_line(internal_error(error))}\n")
        return 3
    return 2


def _run(arguments: argparse.Namespace) -> int:
    check_outputs([arguments.output])
    place = Torchrun.from_environment()
    world_size = _world_size(arguments.world_size, place)
    check_guard(arguments.guard)
    check_world(world_size, arguments.backend, local_ranks=1 if place else world_size)
    kernels, choice = choose_kernels(
        experts=arguments.experts, norm=arguments.norm, backend=arguments.backend
    )
    todo, found = _todo(arguments, world_size=world_size, kernels=kernels)
    done: list[Outcome] = []
    fault = ""
    with quiet() if arguments.quiet else nullcontext():
        try:
            for outcome in _outcomes(todo, arguments, place, world_size):
                done.append(outcome)
        except RankFaultError as error:
            fault = str(error)
    if place is not None and place.rank > 0:
        return 0
    report = make_report(
        done,
        causes=found,
        world_size=world_size,
        backend=arguments.backend,
        kernels=choice,
        ran_on=machine.describe(arguments.backend),
    )
    deliver(render(report, format_name=arguments.format), output=arguments.output)
    if fault:
        raise VerifyError(f"{fault}; {len(done)} of {len(todo)} cases were run")
    if not arguments.quiet:
        sys.stderr.write(fitted(report.summary) + "\n")
    return 1 if report.findings else 0


def _todo(
    arguments: argparse.Namespace, *, world_size: int, kernels: Kernels
) -> tuple[list[Case], list[Cause]]:
    """The cases that were asked for, and the ledger's causes that have to show in them."""
    dtypes, models = tuple(arguments.dtype or DTYPES), tuple(arguments.model)
    todo = list(
        cases(
            world_size=world_size,
            guard=arguments.guard,
            dtypes=dtypes,
            models=models,
            kernels=kernels,
        )
    )
    # in what another guard does wrong the ledger has not looked for causes
    if arguments.guard != "helper":
        return todo, []
    # every rank of a torchrun job does this: one bar for the cases is enough
    with quiet():
        found = list(causes(world_size=world_size, models=models))
    for cause in found:
        todo += [case for case in cause.cases(dtypes, kernels=kernels) if case not in todo]
    return todo, found


def _outcomes(
    todo: list[Case], arguments: argparse.Namespace, place: Torchrun | None, world_size: int
) -> Iterator[Outcome]:
    settings = {"backend": arguments.backend, "deadline": arguments.deadline}
    if place is not None:
        return under_torchrun(todo, place=place, **settings)
    return on_this_machine(todo, world_size=world_size, **settings)


def _world_size(asked: int | None, place: Torchrun | None) -> int:
    if place is None:
        if asked is None:
            raise VerifyError("say how many ranks to start: --world-size N (or use torchrun)")
        return asked
    if asked not in (None, place.world_size):
        raise VerifyError(f"--world-size {asked}: torchrun started {place.world_size} ranks")
    return place.world_size


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gpu_tests",
        allow_abbrev=False,
        description="Real MoE layers on real ranks: is every partial sum added up exactly once?",
        epilog="exit codes: 0 as the ledger says, 1 not, 2 cannot run, "
        "3 internal error. On many hosts: torchrun --nnodes N --nproc-per-node M -m gpu_tests",
    )
    parser.add_argument("--world-size", type=int, metavar="N", help="ranks to start here")
    parser.add_argument(
        "--backend",
        choices=("gloo", "nccl"),
        default="gloo",
        help="gloo, the default, on CPUs; nccl on GPUs",
    )
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="both by default")
    parser.add_argument(
        "--model",
        choices=tuple(SPECS),
        action="append",
        default=[],
        metavar="NAME",
        help=f"may be repeated; all by default: {', '.join(SPECS)}",
    )
    parser.add_argument(
        "--guard",
        default="helper",
        metavar="helper|oracle|plan|EXPR",
        help=f"who decides whether a block reduces: EXPR over {', '.join(flag_names())} says when; "
        "plan: block, layer and placements follow helper's plan",
    )
    add_kernels(parser)
    parser.add_argument(
        "--deadline",
        type=positive_seconds,
        default=DEADLINE,
        metavar="SECONDS",
        help=f"for one case on all ranks, {DEADLINE:g} by default; "
        "the first case starts GPU libraries too",
    )
    parser.add_argument(
        "--format",
        choices=tuple(RENDERERS),
        default="table",
        metavar="FORMAT",
        help=f"table, the default, or another of {', '.join(RENDERERS)}",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="instead of standard output")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary")
    return parser


def add_kernels(parser: argparse.ArgumentParser) -> None:
    """Whose kernels to run on."""
    parser.add_argument("--experts", choices=LIBRARIES, help="torch by default")
    parser.add_argument(
        "--norm",
        choices=LIBRARIES,
        help="fused all-reduce + norm: flashinfer where device and package allow, else torch",
    )


def positive_seconds(text: str) -> float:
    """An argument that is a time limit."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return seconds
