"""What is sharded may not stay where nobody completes its sum."""

from collections.abc import Callable
from typing import Any

import pytest

from verify.report.report import SUMS_FIRST

Judge = Callable[..., Any]


def test_replicated_shared_expert_in_a_later_sum(judged: Judge, change: Any) -> None:
    result = judged(("dict(tp_size=1) if alone else {}", "dict(tp_size=1)"))
    assert result.rules == [("replicated-addend", "0000")]


def test_shared_expert_that_forgets_fi_is_lost(judged: Judge, change: Any) -> None:
    result = judged(change.forgets_fi)
    assert result.rules == [("lost-addend", "0001")]
    (finding,) = result.findings
    assert (finding.cls, finding.method) == ("Block", "__init__")


def test_a_model_whose_attention_knows_no_group_of_its_own_needs_one(
    judged: Judge, change: Any
) -> None:
    result = judged(change.forgets_fi, (", attn_tp_size=1)", ")"))
    (finding,) = result.findings
    assert (finding.rule, finding.row, finding.reach) == ("lost-addend", "0001", "conditional")
    assert finding.needs[-1].startswith("attention data parallelism, of which this model's code")


def test_shared_expert_that_forgets_a_backend_is_lost_with_it(judged: Judge, change: Any) -> None:
    forgets = ("            or get_moe_a2a_backend().is_nixl()\n", "")
    asks_elsewhere = {"models/other.py": "def f():\n    return get_moe_a2a_backend().is_nixl()\n"}
    result = judged(forgets, library=asks_elsewhere)
    assert result.rules == [("lost-addend", "0000")]
    assert "all-to-all backend nixl (which" in result.findings[0].message


DISPATCHER = "layers/moe/token_dispatcher/choice.py"
FORGETS_NIXL = ("            or get_moe_a2a_backend().is_nixl()\n", "")


def dispatcher(change: Any, old: str, new: str) -> dict[str, str]:
    text = change.library[DISPATCHER]
    assert old in text
    return {DISPATCHER: text.replace(old, new)}


def test_backend_counts_where_experts_ask_about_it(judged: Judge, change: Any) -> None:
    """Whether any model asks about it says nothing: one that nobody asks about is forgotten."""
    assert judged(FORGETS_NIXL).rules == [("lost-addend", "0000")]
    never = dispatcher(change, " or a2a_backend.is_nixl()", "")
    assert judged(FORGETS_NIXL, library=never).rules == []
    # by experts that ask about none, with any
    asks_none = {DISPATCHER: ""}
    assert judged(FORGETS_NIXL, library=asks_none).rules == [("lost-addend", "0000")]


def test_sum_behind_a_combine_that_the_block_does_not_know(judged: Judge, change: Any) -> None:
    utils = "layers/moe/utils.py"
    leaves = "return not get_moe_a2a_backend().is_none() or"
    knows = "return get_moe_a2a_backend().is_deepep() or get_moe_a2a_backend().is_planned() or"
    assert leaves in change.library[utils]
    library = {utils: change.library[utils].replace(leaves, knows)}
    found = judged(library=library)
    assert found.rules == [("reduces-after-combine", "0000")]
    # both places that sum are named: the experts' call, three lines above the block's reduction
    (again,) = found.findings
    (first,) = [one for one in again.related if one.what.startswith(SUMS_FIRST)]
    assert (first.file, first.line) == (again.file, again.line - 3)


UTILS = "layers/moe/utils.py"
MODES = "layers/communicator.py"
NIXL = "get_moe_a2a_backend().is_nixl()"


def without_a_dispatcher(change: Any, sums: str) -> dict[str, str]:
    """The library where nixl moves no tokens, and the block leaves its sum where `sums` is not."""
    leaves = "return not get_moe_a2a_backend().is_none() or"
    assert leaves in change.library[UTILS]
    knows = f"return (not get_moe_a2a_backend().is_none() and not {sums}) or"
    both = "    if a2a_backend.is_deepep() or a2a_backend.is_nixl():\n"
    apart = (
        "    if a2a_backend.is_none() or a2a_backend.is_nixl():\n        return Plain(config)\n"
        "    if a2a_backend.is_deepep():\n"
    )
    moves = dispatcher(change, both, apart)
    return {UTILS: change.library[UTILS].replace(leaves, knows), **moves}


def test_sum_beside_a_backend_that_moves_no_tokens(judged: Judge, change: Any) -> None:
    """Nothing has summed, but the communicator makes the rows this rank's own: other tokens mix."""
    result = judged(library=without_a_dispatcher(change, NIXL))
    (finding,) = result.findings
    assert (finding.rule, finding.kind, finding.row) == ("sums-local-rows", "mixed", "0000")
    assert finding.takes == ("moe_a2a_backend",)
    assert "backend nixl (" in finding.message
    assert "which moves no tokens" in finding.message


def test_sum_beside_such_a_backend_on_rows_that_all_ranks_have(judged: Judge, change: Any) -> None:
    library = without_a_dispatcher(change, NIXL)
    scattered = "                if not get_moe_a2a_backend().is_none()\n"
    assert scattered in change.library[MODES]
    gathers = scattered.replace("is_none()", "is_none() and not " + NIXL)
    library[MODES] = change.library[MODES].replace(scattered, gathers)
    assert judged(library=library).rules == []


def test_experts_of_such_a_backend_whose_sum_is_left_to_nobody(judged: Judge, change: Any) -> None:
    """The block leaves its sum, and who takes rows of a rank's own takes them for complete."""
    moves = without_a_dispatcher(change, NIXL)
    del moves[UTILS]
    result = judged(library=moves)
    (finding,) = result.findings
    assert (finding.rule, finding.kind, finding.row) == ("lost-sum", "lost", "0000")
    text = moves[DISPATCHER]
    line = text[: text.index("a2a_backend.is_nixl()")].count("\n") + 1
    assert (finding.file, finding.line) == (f"sglang/srt/{DISPATCHER}", line)
    assert (finding.subject, finding.method) == ("Layer", "dispatcher_of")
    # by the block's own kernel: its experts are not asked
    own = ("self.experts(x, ids)", f"kernel(x) if {NIXL} else self.experts(x, ids)")
    assert judged(own, library=moves).rules == []


def test_ranks_that_hold_all_experts_lose_none(judged: Judge, change: Any) -> None:
    library = without_a_dispatcher(change, NIXL)
    leaves = "def leaves_all_reduce():\n"
    assert leaves in library[UTILS]
    early = f"{leaves}    if get_parallel().dwdp_size > 1:\n        return True\n"
    library[UTILS] = library[UTILS].replace(leaves, early)
    assert judged(library=library).rules == [("sums-local-rows", "0000")]


def test_one_repair_for_backends_that_move_tokens_and_that_do_not(
    judged: Judge, change: Any
) -> None:
    library = without_a_dispatcher(change, f"({NIXL} or get_moe_a2a_backend().is_deepep())")
    assert judged(library=library).rules == [("reduces-after-combine", "0000")]


def test_a_model_that_knows_no_backend_needs_one(judged: Judge, change: Any) -> None:
    model = (
        "            get_moe_a2a_backend().is_deepep()\n"
        "            or get_moe_a2a_backend().is_nixl()\n            or should",
        "            should",
    )
    result = judged(model)
    (finding,) = result.findings
    assert (finding.rule, finding.row, finding.reach) == ("lost-addend", "0000", "conditional")
    assert finding.needs == ("an all-to-all backend, of which this model's code says nothing",)


def test_shared_expert_that_forgets_data_parallel_weights_is_lost(
    judged: Judge, change: Any
) -> None:
    knows_it = {
        path: text.replace(
            "or should_use_flashinfer_cutlass_moe_fp4_allgather()",
            "or should_use_flashinfer_cutlass_moe_fp4_allgather() or get_parallel().dwdp_size > 1",
        )
        for path, text in change.library.items()
    }
    assert judged(library=knows_it).rules == [("lost-addend", "0000")]
    remembers = (
        "            or should_use_flashinfer_cutlass_moe_fp4_allgather()\n        )",
        "            or should_use_flashinfer_cutlass_moe_fp4_allgather()\n"
        "            or get_parallel().dwdp_size > 1\n        )",
    )
    assert judged(remembers, library=knows_it).rules == []


def test_shared_expert_that_sums_itself_on_local_rows_mixes_tokens(
    judged: Judge, change: Any
) -> None:
    own = ("reduce_results=False, **", "reduce_results=True, **")
    assert judged(change.after_the_sum, own).rules == []
    assert judged(change.after_the_sum, own, change.forgets_fi).rules == [("mixed-addend", "0001")]


def test_dense_mlp_that_ignores_the_flag_is_still_sharded(judged: Judge, change: Any) -> None:
    result = judged(change.ignores_the_flag)
    assert result.rules == [("sharded-dense", "0000")]
    assert result.findings[0].kind == "mixed"
    silent = judged(("Mlp(config, tp_size=dense_size)", "Mlp(config, reduce_results=False)"))
    assert ("sharded-dense", "0000") in silent.rules
    assert {finding.kind for finding in silent.findings if finding.rule == "sharded-dense"} == {
        "lost"
    }


def test_layer_declared_dense_runs_on_gathered_rows(judged: Judge, change: Any) -> None:
    dense = ("is_layer_sparse=sparse", "is_layer_sparse=False")
    # that it says so of either kind is all that is wrong
    assert judged(dense, change.forgets_fi).rules == [("flag-misbound", "0000")]


def test_modes_of_the_models_own_are_not_guessed(judged: Judge, change: Any) -> None:
    own = ("LayerScatterModes.init_new(is_layer_sparse=sparse, attn_tp_size=1)", "modes(sparse)")
    assert judged(own, change.forgets_fi).rules == []


BY_FUNCTION = """
def _ffn_on_rank_rows(sparse, dense_tp_size):
    if sparse:
        return leaves_all_reduce()
    if dense_tp_size is None:
        return enable_moe_dense_fully_dp()
    return dense_tp_size == 1
"""
INLINE = """
def resolve(variant, *, sparse, dense_tp_size=None):
    on_local = (
        leaves_all_reduce()
        if sparse
        else (enable_moe_dense_fully_dp() if dense_tp_size is None else dense_tp_size == 1)
    )
    return on_local
"""
IMPORT = "from sglang.srt.layers.moe.utils import leaves_all_reduce\n"


@pytest.mark.parametrize("rows", [BY_FUNCTION, INLINE], ids=["a function", "written inline"])
def test_stage_boundary_says_where_rows_are_local(judged: Judge, change: Any, rows: str) -> None:
    library = {"layers/layer_boundary/factories.py": IMPORT + rows}

    def rules(*changes: tuple[str, str]) -> Any:
        return judged(*change.stages, change.never_summed, *changes, library=library).rules

    # the boundary sums the block's output up: what every rank holds may not be in it
    once = change.added_once
    assert rules(once) == []
    assert rules() == [("replicated-addend", "0000")]
    assert rules(once, change.forgets_fi) == [("lost-addend", "0001")]
    assert rules(once, change.ignores_the_flag) == [("sharded-dense", "0000")]
    # whole on each rank, on rows that all ranks have
    whole = ("Mlp(config, tp_size=dense_size)", "Mlp(config, tp_size=1)")
    assert rules(once, whole) == [("replicated-addend", "0000")]
    own_size = ("declare_ffn(sparse=sparse", "declare_ffn(sparse=sparse, dense_tp_size=f(config)")
    assert rules(once, change.ignores_the_flag, own_size) == []


@pytest.mark.parametrize(
    ("broken", "expected"),
    [("forgets_fi", ("lost-addend", "0001")), ("ignores_the_flag", ("sharded-dense", "0000"))],
)
def test_names_do_not_matter(
    judged: Judge, change: Any, broken: str, expected: tuple[str, str]
) -> None:
    assert judged(getattr(change, broken), renamed=change.names).rules == [expected]


@pytest.mark.parametrize(("declared", "lost"), [("sparse=True", True), ("sparse=f(config)", False)])
def test_experts_that_the_layer_is_handed_when_it_runs(
    judged: Judge, change: Any, declared: str, *, lost: bool
) -> None:
    handed = (
        ("self.mlp = Block(config)", "self.mlp = Mlp(config)"),
        ("self.mlp = Mlp(config, tp_size=dense_size)", "self.mlp = Mlp(config)"),
        ("declare_ffn(sparse=sparse)", f"declare_ffn({declared})"),
        ("= self.mlp(hidden_states)", "= bank(hidden_states) + self.mlp(hidden_states)"),
    )
    library = {"layers/layer_boundary/factories.py": IMPORT + BY_FUNCTION}
    rules = judged(*change.stages, *handed, library=library).rules
    assert (("lost-addend", "0001") in rules) == lost
