"""The groups are those that upstream builds: compared with what its own loops make."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helper import MoeConfig
from verify.engines.sources import open_source
from verify.parallel.deployment import layouts
from verify.parallel.layout import Layout

KINDS = ("tp", "ep", "moe_tp", "moe_dp", "attn_tp", "attn_cp")


def test_groups_by_hand():
    layout = Layout(MoeConfig(tp_size=8, ep_size=2, attn_dp_size=2, enable_dp_attention=True))
    assert layout.tp == ((0, 1, 2, 3, 4, 5, 6, 7),)
    assert layout.ep == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert layout.moe_tp == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert layout.attn_tp == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert [layout.attn_dp_rank(rank) for rank in range(8)] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_more_contexts_than_copies_share_tokens_in_the_context_group():
    layout = Layout(MoeConfig(tp_size=4, attn_cp_size=2))
    assert layout.moe_dp == layout.attn_cp == ((0, 2), (1, 3))


sizes = st.integers(1, 64).flatmap(lambda size: st.sampled_from(list(layouts(size))))


@given(sizes)
def test_every_rank_is_in_one_group_of_each_kind(config):
    layout = Layout(config)
    for kind in KINDS:
        ranks = [rank for group in getattr(layout, kind) for rank in group]
        assert sorted(ranks) == list(range(config.tp_size))


@given(sizes)
def test_ep_and_moe_tp_groups_span_one_copy_of_the_experts(config):
    layout = Layout(config)
    for group in layout.ep:
        reached = {other for rank in group for tp in layout.moe_tp if rank in tp for other in tp}
        copy = config.ep_size * config.moe_tp_size
        assert len(reached) == copy
        assert len({rank // copy for rank in reached}) == 1


def rank_lists(function):
    """`initialize_model_parallel` with nothing left but what computes rank lists."""
    function.body = kept(function.body)
    function.args = ast.arguments([], [], None, [], [], None, [])
    function.returns = None
    return function


def kept(body):
    return [node for node in body if keeps(node)] or [ast.Pass()]


def keeps(node):
    """Whether a statement stays; blocks lose the statements that do not."""
    stays = False
    match node:
        case ast.Global():
            stays = True
        case ast.For():
            node.body = kept(node.body)
            stays = True
        case ast.If():
            stays = not any(isinstance(inner, ast.Raise) for inner in node.body)
            node.body, node.orelse = kept(node.body), kept(node.orelse)
        case ast.Expr():
            stays = ast.unparse(node).startswith("group_ranks.append(")
        case ast.Assign() | ast.AnnAssign() if node.value is not None:
            calls = [call for call in ast.walk(node.value) if isinstance(call, ast.Call)]
            called = {ast.unparse(call.func) for call in calls}
            stays = called <= {"range", "list"}
            if "init_model_parallel_group" in called:
                node.value = ast.parse("list(group_ranks)", mode="eval").body
                stays = True
    return stays


def upstream_groups(code, config):
    """What the release's own loops make of these sizes; nothing else of it runs."""
    names = {
        "__builtins__": {"range": range, "list": list, "int": int},
        "world_size": config.tp_size,
        "tensor_model_parallel_size": config.tp_size,
        "expert_model_parallel_size": config.ep_size,
        "pipeline_model_parallel_size": 1,
        "attention_data_parallel_size": config.attn_dp_size,
        "attention_context_model_parallel_size": config.attn_cp_size,
        "moe_data_model_parallel_size": config.moe_dp_size,
        "duplicate_tp_group": False,
    }
    exec(code, names)
    names["initialize_model_parallel"]()
    return {
        kind: tuple(tuple(group) for group in names[name])
        for kind, name in {
            "tp": "_TP",
            "ep": "_MOE_EP",
            "moe_tp": "_MOE_TP",
            "moe_dp": "_MOE_DP",
            "attn_tp": "_ATTN_TP",
            "attn_cp": "_ATTN_CP",
        }.items()
    }


@pytest.fixture(scope="module")
def loops():
    with open_source("sglang==0.5.11") as tree:
        module = ast.parse(tree.read("sglang/srt/distributed/parallel_state.py"))
    function = next(
        node
        for node in module.body
        if isinstance(node, ast.FunctionDef) and node.name == "initialize_model_parallel"
    )
    module = ast.Module([rank_lists(function)], [])
    return compile(ast.fix_missing_locations(module), "initialize_model_parallel", "exec")


@pytest.mark.network
def test_groups_are_the_release_s_own(loops):
    compared = 0
    for world_size in range(1, 65):
        for config in layouts(world_size):
            layout = Layout(config)
            upstream = upstream_groups(loops, config)
            assert upstream == {kind: getattr(layout, kind) for kind in KINDS}, config
            compared += 1
    assert compared > 1000


@pytest.mark.network
def test_a_wrong_layout_is_noticed(loops):
    config = MoeConfig(tp_size=8, ep_size=2)
    wrong = Layout(MoeConfig(tp_size=8, ep_size=4))
    assert upstream_groups(loops, config)["ep"] != wrong.ep
