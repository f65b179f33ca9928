"""What the streams of a residual have no answer for ends the launch, and nothing else does."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.verify.checks.scan.addends.test_launches import OAK, server
from verify.checks.scan.server.streams import KNOWN

Judge = Callable[..., Any]

STREAMS = """from dataclasses import dataclass
from typing import NamedTuple

@dataclass
class State:
    width: int

    def gather(self, residual):
        ENDS

    def operations(self):
        return Operations(read=Read(), update=Update(self))


class Read:
    pass


class Update:
    def __init__(self, state):
        self.state = state

    def GATHERS(self, residual):
        return self.state.gather(residual)


class Operations(NamedTuple):
    read: Read
    update: Update
""".replace("GATHERS", KNOWN.gathers)
ENDS = "raise NotImplementedError('no answer')"
ROWS = """from sglang.srt.layers.moe.utils import leaves_all_reduce
from sglang.srt.layers.dp_attention import enable_moe_dense_fully_dp


def _ffn_on_rank_rows(sparse, dense_tp_size):
    if sparse:
        return leaves_all_reduce()
    return enable_moe_dense_fully_dp() if dense_tp_size is None else dense_tp_size == 1
"""
ASKS = "def enable_moe_dense_fully_dp():\n    return get_parallel().moe_dense_tp_size == 1\n"
PLAIN = ("--tp-size", "4", "--moe-dense-tp-size", "1")
BESIDE = ("--tp-size", "4", "--dp-size", "4", "--enable-dp-attention", "--moe-dense-tp-size", "1")


@pytest.fixture
def scanned(judged: Judge, change: Any) -> Callable[..., Any]:
    def scan(ends: str = ENDS, sparse: str = "sparse", rename: Any = str) -> Any:
        declared = (
            ('declare_attn(group="attn_tp")', "declare_attn(update=State(2).operations().update)"),
            ("declare_ffn(sparse=sparse)", f"declare_ffn(sparse={sparse})"),
        )
        imported = (
            "from elsewhere",
            "from sglang.srt.layers.layer_boundary.streams import State\nfrom elsewhere",
        )
        library = {
            **server("pass"),
            "layers/layer_boundary/streams.py": STREAMS.replace("ENDS", ends),
            "layers/layer_boundary/factories.py": ROWS,
            "layers/dp_attention.py": ASKS,
        }
        changes = (
            OAK,
            imported,
            *change.stages,
            *declared,
            change.never_summed,
            change.added_once,
            change.ignores_the_flag,
        )
        return judged(
            *((rename(old), rename(new)) for old, new in changes),
            library={rename(path): rename(text) for path, text in library.items()},
        )

    return scan


def test_the_launch_that_is_printed_is_one_that_starts(scanned: Callable[..., Any]) -> None:
    (finding,) = scanned().findings
    assert (finding.rule, finding.launch) == ("sharded-dense", BESIDE)
    (refused,) = finding.refused
    line = STREAMS[: STREAMS.index("ENDS")].count("\n") + 1
    assert refused == f"sglang/srt/layers/layer_boundary/streams.py:{line}: {' '.join(PLAIN)}"
    # each rank has its own rows, and its own slice of them alone
    assert finding.counts == tuple(tuple(int(r == s) for s in range(4)) for r in range(4))


def test_without_the_raise_the_first_launch_is_back(scanned: Callable[..., Any]) -> None:
    (finding,) = scanned("return residual").findings
    assert (finding.launch, finding.refused) == (PLAIN, ())


@pytest.mark.parametrize(
    "ends",
    # another launch's, and one that is not known
    [
        "if get_parallel().moe_dp_size > 1:\n            " + ENDS,
        "if self.kind:\n            " + ENDS,
    ],
)
def test_what_may_be_answered_is_no_refusal(scanned: Callable[..., Any], ends: str) -> None:
    (finding,) = scanned(ends).findings
    assert (finding.launch, finding.refused) == (PLAIN, ())


def test_without_experts_no_rows_change(scanned: Callable[..., Any]) -> None:
    launches = {finding.launch for finding in scanned(sparse="False").findings}
    assert PLAIN in launches
    assert BESIDE not in launches


def test_names_are_names(scanned: Callable[..., Any]) -> None:
    def renamed(text: str) -> str:
        for old, new in {"State": "Yew", "operations": "deeds", "gather(": "fetch("}.items():
            text = text.replace(old, new)
        return text

    (before,), (after,) = scanned().findings, scanned(rename=renamed).findings
    assert (before.launch, before.refused, before.counts) == (
        after.launch,
        after.refused,
        after.counts,
    )
