"""The truth table read from source equals the one it was written from, in whatever shape."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verify.checks.scan.sites import read_sites
from verify.engines.sglang.library import LIBRARY
from verify.engines.sglang.vocabulary import FLAGS
from verify.interpreter.index import Index
from verify.logic.truth import evaluate, full, variables
from verify.source.source import SourceTree

Open = Callable[..., SourceTree]

NAMES = {
    "AF": "should_allreduce_fusion",
    "RS": "use_reduce_scatter",
    "DP": "should_use_dp_reduce_scatterv()",
    "FI": "should_use_flashinfer_cutlass_moe_fp4_allgather()",
}

expressions = st.recursive(
    st.sampled_from(FLAGS),
    lambda inner: st.one_of(
        inner.map(lambda a: f"(not {a})"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]} and {p[1]})"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]} or {p[1]})"),
    ),
    max_leaves=8,
)

SHAPES = {
    "if": "        if {guard}:\n            x = tensor_model_parallel_all_reduce(x)\n",
    "else": "        if not {guard}:\n            pass\n        else:\n"
    "            x = tensor_model_parallel_all_reduce(x)\n",
    "nest": "        if batch is None:\n            pass\n        if {guard}:\n"
    "            if {guard}:\n                x = tensor_model_parallel_all_reduce(x)\n",
    "early return": "        if not {guard}:\n            return x\n"
    "        x = tensor_model_parallel_all_reduce(x)\n",
    "alias": "        reduce = {guard}\n        also = reduce\n        if also:\n"
    "            x = tensor_model_parallel_all_reduce(x)\n",
    "ternary": "        x = tensor_model_parallel_all_reduce(x) if {guard} else x\n",
    "walrus": "        if (reduce := {guard}) and reduce:\n"
    "            x = tensor_model_parallel_all_reduce(x)\n",
    "short circuit": "        {guard} and tensor_model_parallel_all_reduce(x)\n",
    "inner method": "        x = self.inner(x, {guard})\n",
    "keyword": "        x = self.inner(x, when={guard})\n",
    "helper": "        if helper({guard}):\n            x = tensor_model_parallel_all_reduce(x)\n",
    "set in branches": "        reduce = False\n        if {guard}:\n            reduce = True\n"
    "        if reduce:\n            x = tensor_model_parallel_all_reduce(x)\n",
    "is": "        if ({guard}) is True:\n            x = tensor_model_parallel_all_reduce(x)\n",
    "match": "        match batch:\n            case _ if False:\n                pass\n"
    "            case _:\n                if {guard}:\n"
    "                    x = tensor_model_parallel_all_reduce(x)\n",
    "loop": "        for _ in range(1):\n            if not {guard}:\n                break\n"
    "            x = tensor_model_parallel_all_reduce(x)\n",
    "try": "        try:\n            if {guard}:\n"
    "                x = tensor_model_parallel_all_reduce(x)\n        finally:\n            pass\n",
    "local function": "        def reduce(y):\n"
    "            return tensor_model_parallel_all_reduce(y)\n"
    "        if {guard}:\n            x = reduce(x)\n",
}

MODEL = """
def helper(value):
    if value:
        return True
    return False


class Block:
    def inner(self, y, when):
        if not when:
            return y
        return tensor_model_parallel_all_reduce(y)

    def forward(self, x, batch=None, should_allreduce_fusion=False, use_reduce_scatter=False):
{body}        return x
"""


def written(expression: str) -> str:
    for flag, name in NAMES.items():
        expression = expression.replace(flag, name)
    return expression


def table_of(tree: SourceTree, shape: str) -> int:
    method = "inner" if shape in ("inner method", "keyword") else "forward"
    sites = {site.method: site for site in read_sites(Index(tree, LIBRARY))}
    assert sites[method].reduces == sites[method].must
    return sites[method].reduces


@pytest.mark.parametrize("shape", [s for s in SHAPES if s not in ("inner method", "keyword")])
@given(expression=expressions)
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_round_trip(source: Open, shape: str, expression: str) -> None:
    body = SHAPES[shape].format(guard=written(expression))
    expected = evaluate(expression, variables(FLAGS), len(FLAGS))
    with source(MODEL.format(body=body)) as tree:
        if expected == 0:
            assert [
                s for s in read_sites(Index(tree, LIBRARY)) if s.method == "forward" and s.reduces
            ] == []
        else:
            assert table_of(tree, shape) == expected


def test_condition_handed_to_an_inner_method_is_the_callers(scanned, sample) -> None:  # type: ignore[no-untyped-def]
    start = sample.block.index("        if self.tp_size")
    guard = (
        "not (should_allreduce_fusion or use_reduce_scatter or should_use_dp_reduce_scatterv()"
        " or should_use_flashinfer_cutlass_moe_fp4_allgather())"
    )
    block = sample.block[:start] + (
        f"        return self.inner(out, {guard})\n\n"
        "    def inner(self, y, when):\n        if not when:\n            return y\n"
        "        return tensor_model_parallel_all_reduce(y)\n"
    )
    assert scanned(block, sample.layer).findings == ()
    forgets = block.replace("use_reduce_scatter or ", "")
    assert [f.row for f in scanned(forgets, sample.layer).findings] == ["0100"]


def test_what_is_not_a_flag_stays_a_named_atom(source: Open) -> None:
    body = (
        "        if batch.is_capturing and self.tp_size > 1 and not use_reduce_scatter:\n"
        "            x = tensor_model_parallel_all_reduce(x)\n"
    )
    with source(MODEL.format(body=body)) as tree:
        site = next(s for s in read_sites(Index(tree, LIBRARY)) if s.method == "forward")
    assert site.atoms == ("batch.is_capturing", "Block.tp_size > 1")
    assert site.guard == "not RS and (batch.is_capturing) and Block.tp_size > 1"
    assert site.must == 0, "it need not capture"
    assert site.reduces == full(4) ^ evaluate("RS", variables(FLAGS), 4)
    assert (site.accepts, site.passes) == (("AF", "RS"), ())


def test_size_is_greater_than_one_in_every_spelling(source: Open) -> None:
    spellings = ("self.n > 1", "not self.n <= 1", "self.n >= 2", "self.n != 1", "not self.n == 1")
    body = "".join(
        f"        if {spelling}:\n            x = tensor_model_parallel_all_reduce(x)\n"
        for spelling in spellings
    )
    with source(MODEL.format(body=body)) as tree:
        guards = {
            site.guard for site in read_sites(Index(tree, LIBRARY)) if site.method == "forward"
        }
    assert guards == {"Block.n > 1"}
