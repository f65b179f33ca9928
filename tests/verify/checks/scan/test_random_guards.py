"""Random guards in a block: the rows that scan calls wrong are those in which the sums are not one.

The other side knows no conditions: it goes through every deployment and counts who sums.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.verify.checks.scan.conftest import BLOCK, HEAD, LAYER, LIBRARY, write_source
from verify.checks.scan.scan import scan
from verify.engines.sources import open_source

Guard = tuple[object, ...]
# how the block asks each of the four, in row order, and whether there is more than one rank
ASKED = (
    "should_allreduce_fusion",
    "use_reduce_scatter",
    "should_use_dp_reduce_scatterv()",
    "should_use_flashinfer_cutlass_moe_fp4_allgather()",
)
SEVERAL = (
    "self.tp_size > 1",
    "get_tensor_model_parallel_world_size() > 1",
    "1 < self.tp_size",
    "self.tp_size != 1",
    "not get_tensor_model_parallel_world_size() <= 1",
    "self.tp_size >= 2",
    "2 <= get_tensor_model_parallel_world_size()",
    "1 != self.tp_size",
    "bool(self.tp_size > 1)",
    "get_tp_group().world_size > 1",
    "get_parallel().tp_group.world_size > 1",
)
SHAPES = (
    "if {0}:\n    out = tensor_model_parallel_all_reduce(out)\nreturn out",
    "if not ({0}):\n    return out\nreturn tensor_model_parallel_all_reduce(out)",
    "needed = {0}\nreturn tensor_model_parallel_all_reduce(out) if needed else out",
    "if {0}:\n    pass\nelse:\n    return out\nreturn tensor_model_parallel_all_reduce(out)",
)
SOUND: Guard = ("and", ("size", 0), ("not", ("or", ("or", 0, 1), ("or", 2, 3))))
START = BLOCK.index("        if self.tp_size > 1")

guards = st.recursive(
    st.one_of(
        st.sampled_from(range(4)),
        st.tuples(st.just("size"), st.sampled_from(range(len(SEVERAL)))),
    ),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(("and", "or")), inner, inner),
        inner.map(lambda one: ("not", one)),
    ),
    max_leaves=6,
)


def text(guard: object) -> str:
    """The guard as a source has it."""
    match guard:
        case int(at):
            return ASKED[at]
        case ("size", int(at)):
            return SEVERAL[at]
        case ("not", one):
            return f"not ({text(one)})"
        case (word, one, other):
            return f"({text(one)}) {word} ({text(other)})"
    raise ValueError(guard)


def holds(guard: object, row: tuple[bool, ...]) -> bool:
    """Whether the guard lets the block sum in this row, on more than one rank."""
    match guard:
        case int(at):
            return row[at]
        case ("size", _):
            return True
        case ("not", one):
            return not holds(one, row)
        case ("and", one, other):
            return holds(one, row) and holds(other, row)
        case ("or", one, other):
            return holds(one, row) or holds(other, row)
    raise ValueError(guard)


def rows() -> Iterator[tuple[bool, ...]]:
    """The row of every deployment that the sample knows, without all-to-all, on several ranks."""
    for attention_dp, kernels, last, padded, fp4, one_each in product((False, True), repeat=6):
        combines = attention_dp and fp4
        yield (
            kernels and not attention_dp and not last,
            attention_dp and padded,
            not combines and attention_dp and one_each,
            combines,
        )


def sums(guard: object, row: tuple[bool, ...]) -> int:
    """How often the routed experts' output is summed up: once is right."""
    fuses, scatters, by_size, combines = row
    # a dispatcher that has summed hands out each rank's rows, which no communicator sums
    later = combines or fuses or scatters or by_size
    return int(holds(guard, row)) + int(later)


def wrong_rows(guard: object) -> set[str]:
    return {shown(row) for row in rows() if sums(guard, row) != 1}


def shown(row: tuple[bool, ...]) -> str:
    return "".join(str(int(bit)) for bit in row)


def said(guard: object, shape: str) -> set[str]:
    """The rows in which scan says that the block is wrong."""
    body = shape.format(text(guard))
    block = BLOCK[:START] + "".join(f"        {line}\n" for line in body.splitlines())
    with TemporaryDirectory() as folder:
        files = {**LIBRARY, "models/sample.py": "".join((HEAD, block, LAYER))}
        with open_source(str(write_source(Path(folder), files))) as tree:
            result = scan(tree)
    assert result.unread == ()
    # what shared code leaves undone is judged by itself
    found = [one for one in result.findings if one.file == "sglang/srt/models/sample.py"]
    return {row for finding in found for row in finding.rows}


@settings(max_examples=60, deadline=None)
@given(guard=guards, shape=st.sampled_from(SHAPES))
@example(guard=SOUND, shape=SHAPES[0])
@example(guard=("size", 1), shape=SHAPES[0])
@example(guard=("not", ("size", 4)), shape=SHAPES[1])
def test_wrong_rows_are_those_that_are_not_summed_once(guard: object, shape: str) -> None:
    assert said(guard, shape) == wrong_rows(guard)


def test_a_rule_that_forgets_a_consumer_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Corrupted: nobody judges what is left of a sum, so that a lost one is none."""
    lost = ("not", ("size", 4))
    assert wrong_rows(lost) == said(lost, SHAPES[0]) != set()
    monkeypatch.setattr("verify.checks.scan.layers.faults", lambda *_: ())
    assert wrong_rows(lost) != said(lost, SHAPES[0])
