"""`python -m gpu_tests.measure`: what the choices cost on this machine, as ratios of one run.

Choices: per row, a block that rightly skips against one that reduces although its consumer does.
Bandwidth: each collective through this package against the bare call. Share: how much of a layer's
time is neither expert compute nor a collective. On GPUs every step is replayed inside a CUDA graph,
as engines decode; the time of launching it eagerly stands beside it. Beside each stands its floor:
the bytes that a link has to carry at the best rate measured in this run, or the same step with next
to nothing in it, whichever takes longer; of a layer, its experts alone and the floor of its sums.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from gpu_tests import machine
from gpu_tests._cli import DEADLINE, add_kernels, positive_seconds
from gpu_tests.cases import DTYPES, Dtype, Kernels
from gpu_tests.floors import WIDTH, Floors, carried
from gpu_tests.job import check_world, choose_kernels
from gpu_tests.kernels import WORKSPACE_ROWS
from gpu_tests.pool import RankFaultError, rank_pool
from gpu_tests.timing import (
    COLLECTIVES,
    ROWS,
    Bandwidth,
    Choice,
    Floor,
    Item,
    Share,
    Timings,
    measure,
    norm_of,
)
from verify.errors import VerifyError
from verify.report.deliver import deliver
from verify.report.progress import quiet, track
from verify.report.render import RENDERERS, render
from verify.report.report import Json, Report, TableSection

TOKENS = (1, 64, 1024, 4096)
HIDDEN = (4096, 7168)
INTERMEDIATE = 1536
# 256 MiB of bfloat16 at hidden 4096: launching it costs nothing beside the wire
FLOOR_ROWS = 32768
# qwen3_moe: no shared experts, so that what is left over is router, norms and communication
SHARE_MODEL = "qwen3_moe"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and deliver; 0 or, when it cannot be run, 2."""
    arguments = _parser().parse_args(argv)
    try:
        check_world(arguments.world_size, arguments.backend, local_ranks=arguments.world_size)
        kernels, choice = choose_kernels(
            experts=arguments.experts, norm=arguments.norm, backend=arguments.backend
        )
        items = list(_items(arguments, kernels.taking(arguments.dtype)))
        with quiet() if arguments.quiet else nullcontext():
            timings = _run(items, arguments)
        report = _report(list(zip(items, timings, strict=True)), arguments, argv, choice)
        deliver(render(report, format_name=arguments.format), output=arguments.output)
    except (VerifyError, RankFaultError) as error:
        sys.stderr.write(f"gpu_tests.measure: {error}\n")
        return 2
    if not arguments.quiet:
        sys.stderr.write(report.summary + "\n")
    return 0


def _items(arguments: argparse.Namespace, kernels: Kernels) -> Iterator[Item]:
    dtype: Dtype = arguments.dtype
    for collective in COLLECTIVES:
        yield Floor(
            step=collective, rows=arguments.floor_rows, hidden=arguments.hidden[0], dtype=dtype
        )
    if kernels.norm == "flashinfer" and arguments.world_size > 1:
        for hidden in arguments.hidden:
            yield Floor(step="fused norm", rows=WORKSPACE_ROWS, hidden=hidden, dtype=dtype)
    for hidden in arguments.hidden:
        for tokens in arguments.tokens:
            for row in ROWS:
                yield Choice(row=row, tokens=tokens, hidden=hidden, dtype=dtype, kernels=kernels)
            for collective in COLLECTIVES:
                yield Bandwidth(collective=collective, tokens=tokens, hidden=hidden, dtype=dtype)
            yield Share(
                model=SHARE_MODEL,
                tokens=tokens,
                hidden=hidden,
                intermediate=arguments.intermediate,
                dtype=dtype,
                kernels=kernels,
            )


def _run(items: list[Item], arguments: argparse.Namespace) -> list[Timings]:
    """The slowest rank's time of everything."""
    slowest: list[Timings] = []
    with rank_pool(
        measure,
        world_size=arguments.world_size,
        backend=arguments.backend,
        deadline=arguments.deadline,
    ) as pool:
        answers = pool.run(items, titles=[str(item) for item in items])
        for _, ranks in track(answers, what="measurements made", total=len(items)):
            slowest.append({name: max(rank[name] for rank in ranks) for name in ranks[0]})
    return slowest


def _report(
    measured: list[tuple[Item, Timings]],
    arguments: argparse.Namespace,
    argv: Sequence[str] | None,
    choice: str,
) -> Report:
    words = sys.argv[1:] if argv is None else argv
    floors = Floors.measured(
        ((item, timings) for item, timings in measured if isinstance(item, Floor)),
        arguments.world_size,
    )
    return Report(
        command="gpu_tests.measure",
        title=f"Costs on {arguments.world_size} {arguments.backend} ranks",
        summary=(
            f"{len(measured)} measurements on {arguments.world_size} {arguments.backend} ranks"
        ),
        payload={
            "command_line": shlex.join(["python", "-m", "gpu_tests.measure", *words]),
            "machine": machine.describe(arguments.backend),
            "kernels": choice,
            "captured": arguments.backend == "nccl",
            "world_size": arguments.world_size,
            "backend": arguments.backend,
            "measurements": [_as_json(item, timings, floors) for item, timings in measured],
        },
        sections=tuple(_sections(measured, floors, choice)),
        findings=(),
    )


def _as_json(item: Item, timings: Timings, floors: Floors) -> dict[str, Json]:
    said = {**vars(item)}
    if "kernels" in said:
        said["kernels"] = vars(said["kernels"])
    kind = type(item).__name__.lower()
    if isinstance(item, Choice) and item.row == "1000":
        said["norm"] = norm_of(item, floors.ranks)
    bound = floors.of(item, timings)
    return {"kind": kind, **said, "microseconds": dict(timings), "floor": bound}


def _sections(
    measured: list[tuple[Item, Timings]], floors: Floors, choice: str
) -> Iterator[TableSection]:
    yield TableSection(
        title="The right and the wrong choice, by row",
        columns=("row", "hidden", "tokens", "floor", "skip", "double", "ratio", "eager skip"),
        rows=tuple(
            (
                _row(item, floors.ranks),
                str(item.hidden),
                str(item.tokens),
                _us(floors.of(item, t)),
                _us(t.get("skip")),
                _us(t["double"]),
                f"{t['double'] / t['skip']:.2f}" if "skip" in t else "",
                _us(t.get("skip eager")),
            )
            for item, t in measured
            if isinstance(item, Choice)
        ),
        notes=(
            "Times in us. Row `0000` has no consumer: `double` is the block's own sum, and right.",
            "Row `1000` says whose norm ran: the fused one takes at most 2048 rows.",
            choice,
        ),
    )
    yield TableSection(
        title="Collectives through this package against the bare call",
        columns=("collective", "hidden", "tokens", "floor", "here", "bare", "ratio", "GB/s"),
        rows=tuple(
            (
                item.collective,
                str(item.hidden),
                str(item.tokens),
                _us(floors.of(item, t)),
                _us(t["wrapped"]),
                _us(t["bare"]),
                f"{t['wrapped'] / t['bare']:.2f}",
                _gigabytes(item, t["wrapped"], floors.ranks),
            )
            for item, t in measured
            if isinstance(item, Bandwidth)
        ),
        notes=(
            f"Floor: the bytes at {floors.rate / 1e3:.1f} GB/s, the best rate of this run, or an "
            f"empty call: {_latencies(floors)}.",
            "GB/s is bus bandwidth as NCCL's own tests define it; 0 on one rank.",
        ),
    )
    yield TableSection(
        title="Where a layer's time goes",
        columns=("block", "hidden", "tokens", "floor", "layer", "experts", "collectives", "rest"),
        rows=tuple(
            (
                item.model,
                str(item.hidden),
                str(item.tokens),
                _us(floors.of(item, t)),
                _us(t["layer"]),
                _percent(t["experts"], t),
                _percent(t["collectives"], t),
                _percent(t["layer"] - t["experts"] - t["collectives"], t),
            )
            for item, t in measured
            if isinstance(item, Share)
        ),
        notes=(
            "Times in us. Each part is timed by itself; the rest is the layer less the two.",
            "The floor is the experts, as timed, and two all-reduces at theirs.",
        ),
    )


def _row(item: Choice, ranks: int) -> str:
    return f"1000 {norm_of(item, ranks)}" if item.row == "1000" else item.row


def _latencies(floors: Floors) -> str:
    return ", ".join(
        f"{step}{f' of {hidden}' if hidden > 1 else ''} {time:.1f} us"
        for (step, hidden), time in floors.latency.items()
    )


def _us(time: float | None) -> str:
    return "" if time is None else f"{time:.1f}"


def _percent(part: float, timings: Timings) -> str:
    return f"{100 * part / timings['layer']:.1f} %"


def _gigabytes(item: Bandwidth, microseconds: float, ranks: int) -> str:
    """Bus bandwidth: what each rank's link has to carry, whatever the algorithm."""
    size = item.tokens * item.hidden * WIDTH[item.dtype]
    return f"{carried(item.collective, size, ranks) / microseconds / 1e3:.1f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gpu_tests.measure", description=__doc__)
    parser.add_argument("--world-size", type=int, default=1, metavar="N")
    parser.add_argument("--backend", choices=("gloo", "nccl"), default="gloo")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    add_kernels(parser)
    parser.add_argument("--tokens", type=_numbers, default=TOKENS, metavar="N,N,...")
    parser.add_argument("--hidden", type=_numbers, default=HIDDEN, metavar="N,N,...")
    parser.add_argument("--intermediate", type=int, default=INTERMEDIATE, metavar="N")
    parser.add_argument(
        "--floor-rows",
        type=int,
        default=FLOOR_ROWS,
        metavar="N",
        help="rows in the collectives that the link's rate is measured by",
    )
    parser.add_argument("--deadline", type=positive_seconds, default=DEADLINE, metavar="SECONDS")
    parser.add_argument("--format", choices=tuple(RENDERERS), default="table")
    parser.add_argument("--output", type=Path, metavar="FILE", help="instead of standard output")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.isdecimal() and int(word) for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers from 1 up")
    return tuple(map(int, words))
