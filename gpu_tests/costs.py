"""`python -m gpu_tests.measure`: what the choices cost on this machine, as ratios of one run.

Choices: per row, a block that rightly skips against one that reduces although its consumer does.
Bandwidth: each collective through this package against the bare call. Share: how much of a layer's
time is neither expert compute nor a collective.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from gpu_tests import machine
from gpu_tests._cli import DEADLINE, positive_seconds
from gpu_tests.cases import DTYPES, EXPERTS, Dtype, Experts, experts_for
from gpu_tests.job import check_world, choose_experts
from gpu_tests.pool import RankFaultError, rank_pool
from gpu_tests.timing import COLLECTIVES, ROWS, Bandwidth, Choice, Item, Share, Timings, measure
from verify.deliver import deliver
from verify.errors import VerifyError
from verify.progress import quiet, track
from verify.render import RENDERERS, render
from verify.report import Json, Report, TableSection

TOKENS = (1, 64, 1024, 4096)
HIDDEN = (4096, 7168)
INTERMEDIATE = 1536
# qwen3_moe: no shared experts, so that what is left over is router, norms and communication
SHARE_MODEL = "qwen3_moe"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and deliver; 0 or, when it cannot be run, 2."""
    arguments = _parser().parse_args(argv)
    try:
        check_world(arguments.world_size, arguments.backend, local_ranks=arguments.world_size)
        experts, choice = choose_experts(arguments.experts, arguments.backend)
        items = list(_items(arguments, experts_for(arguments.dtype, wanted=experts)))
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


def _items(arguments: argparse.Namespace, experts: Experts) -> Iterator[Item]:
    dtype: Dtype = arguments.dtype
    for hidden in arguments.hidden:
        for tokens in arguments.tokens:
            for row in ROWS:
                yield Choice(row=row, tokens=tokens, hidden=hidden, dtype=dtype, experts=experts)
            for collective in COLLECTIVES:
                yield Bandwidth(collective=collective, tokens=tokens, hidden=hidden, dtype=dtype)
            yield Share(
                model=SHARE_MODEL,
                tokens=tokens,
                hidden=hidden,
                intermediate=arguments.intermediate,
                dtype=dtype,
                experts=experts,
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
    return Report(
        command="gpu_tests.measure",
        title=f"Costs on {arguments.world_size} {arguments.backend} ranks",
        summary=(
            f"{len(measured)} measurements on {arguments.world_size} {arguments.backend} ranks"
        ),
        payload={
            "command_line": shlex.join(["python", "-m", "gpu_tests.measure", *words]),
            "machine": machine.describe(arguments.backend),
            "experts": choice,
            "world_size": arguments.world_size,
            "backend": arguments.backend,
            "measurements": [_as_json(item, timings) for item, timings in measured],
        },
        sections=tuple(_sections(measured, arguments.world_size, choice)),
        findings=(),
    )


def _as_json(item: Item, timings: Timings) -> dict[str, Json]:
    return {"kind": type(item).__name__.lower(), **vars(item), "microseconds": dict(timings)}


def _sections(
    measured: list[tuple[Item, Timings]], world_size: int, choice: str
) -> Iterator[TableSection]:
    yield TableSection(
        title="The right and the wrong choice, by row",
        columns=("row", "hidden", "tokens", "skip / us", "double / us", "double : skip"),
        rows=tuple(
            (
                item.row,
                str(item.hidden),
                str(item.tokens),
                _us(t["skip"]),
                _us(t["double"]),
                f"{t['double'] / t['skip']:.2f}" if t["skip"] >= 1 else "",
            )
            for item, t in measured
            if isinstance(item, Choice)
        ),
        notes=(
            "Row `0000` has no consumer: its second time is that of the block's own sum.",
            choice,
        ),
    )
    yield TableSection(
        title="Collectives through this package against the bare call",
        columns=("collective", "hidden", "tokens", "here / us", "bare / us", "here : bare", "GB/s"),
        rows=tuple(
            (
                item.collective,
                str(item.hidden),
                str(item.tokens),
                _us(t["wrapped"]),
                _us(t["bare"]),
                f"{t['wrapped'] / t['bare']:.2f}",
                _gigabytes(item, t["wrapped"], world_size),
            )
            for item, t in measured
            if isinstance(item, Bandwidth)
        ),
        notes=("GB/s is bus bandwidth as NCCL's own tests define it; 0 on one rank.",),
    )
    yield TableSection(
        title="Where a layer's time goes",
        columns=("block", "hidden", "tokens", "layer / us", "experts", "collectives", "rest"),
        rows=tuple(
            (
                item.model,
                str(item.hidden),
                str(item.tokens),
                _us(t["layer"]),
                _percent(t["experts"], t),
                _percent(t["collectives"], t),
                _percent(t["layer"] - t["experts"] - t["collectives"], t),
            )
            for item, t in measured
            if isinstance(item, Share)
        ),
    )


def _us(time: float) -> str:
    return f"{time:.1f}"


def _percent(part: float, timings: Timings) -> str:
    return f"{100 * part / timings['layer']:.1f} %"


def _gigabytes(item: Bandwidth, microseconds: float, ranks: int) -> str:
    """Bus bandwidth: what each rank's link has to carry, whatever the algorithm."""
    width = 4 if item.dtype == "float32" else 2
    rounds = 2 if item.collective == "all-reduce" else 1
    size = item.tokens * item.hidden * width
    return f"{rounds * (ranks - 1) / ranks * size / microseconds / 1e3:.1f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gpu_tests.measure", description=__doc__)
    parser.add_argument("--world-size", type=int, default=1, metavar="N")
    parser.add_argument("--backend", choices=("gloo", "nccl"), default="gloo")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--experts", choices=EXPERTS)
    parser.add_argument("--tokens", type=_numbers, default=TOKENS, metavar="N,N,...")
    parser.add_argument("--hidden", type=_numbers, default=HIDDEN, metavar="N,N,...")
    parser.add_argument("--intermediate", type=int, default=INTERMEDIATE, metavar="N")
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
