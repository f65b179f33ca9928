"""The steps around a block that differ between releases with a layer communicator."""

import re

from verify.engines.ledger import FlagDefinitions, Release, UnfusedGroup
from verify.engines.sglang.answers import boundary_sum, read_answers
from verify.engines.sglang.constraints import EXIT_FILE, published_flags
from verify.engines.sglang.package import ARGUMENTS, SERVER_FILE
from verify.engines.sglang.reduction_groups import read_groups
from verify.engines.sglang.vocabulary import ATTENTION_FILE, COMMUNICATOR_FILE, GATHERS_CONTEXTS
from verify.engines.traits import Coverage, ReductionGroups
from verify.errors import VerifyError
from verify.interpreter.index import Function, Index, UnreadableError
from verify.interpreter.state import CANNOT_FOLLOW
from verify.logic.diagrams import TRUE, Logic
from verify.parallel.guards import Producer
from verify.source.source import SourceTree

PRODUCERS: dict[str, Producer] = {
    "tensor_model_parallel_all_reduce": "one-site",
    "moe_expert_parallel_all_reduce": "two-site",
    "moe_tensor_model_parallel_all_reduce": "two-site",
    "reduce_moe_output": "one-site",
    "post_experts_all_reduce": "two-site",
}


def why_not(index: Index) -> str:
    """Why the ledger does not know this source's steps; empty where it does."""
    if COMMUNICATOR_FILE in index.tree.paths:
        return ""
    if EXIT_FILE in index.tree.paths:
        return ""
    return f"has neither {COMMUNICATOR_FILE} nor {EXIT_FILE}: prove knows no other steps"


def asks_sizes(tree: SourceTree) -> bool:
    """Whether what sums around a block reads the DP flag at all."""
    return any(
        re.search(r"\bshould_use_dp_reduce_scatterv\b", tree.read(path))
        for path in (COMMUNICATOR_FILE, EXIT_FILE)
        if path in tree.paths
    )


def release_of(index: Index, definitions: FlagDefinitions) -> Release:
    """What differs in the steps of this source. Raises `VerifyError` where a file is broken."""
    tree, logic = index.tree, Logic()
    try:
        answers = read_answers(index)
        groups = read_groups(index, logic)
    except UnreadableError as error:
        raise VerifyError(str(error)) from error
    except CANNOT_FOLLOW as error:
        index.give_up(COMMUNICATOR_FILE, "which groups it sums over", error)
        groups = ReductionGroups()
    return Release(
        name=tree.version,
        fused_group="tp" if groups.fused is None else "ep-or-moe-tp",
        unfused_group=_summed(groups.declined),
        answers=answers,
        boundary=boundary_sum(logic, groups.moe_output) if groups.moe_output else None,
        publishes=bool(published_flags(index)),
        copies_experts=_takes(tree, "moe_dp_size"),
        splits_contexts=_takes(tree, "attn_cp_size") and _gathers_contexts(index),
        definitions=None if definitions.unknown("DP") else definitions,
    )


def _summed(declined: Coverage | None) -> UnfusedGroup:
    """What is summed over where the norm has no fused form; a source without that case: nothing."""
    if declined is None:
        return "none"
    return "tp" if declined.whole == TRUE else "moe_tp"


def _gathers_contexts(index: Index) -> bool:
    """Whether experts can be given the tokens of all context-parallel ranks.

    Where they cannot (0.5.9), a layer with such ranks stops: its gather knows no group for them.
    """
    module = index.module(ATTENTION_FILE)
    return module is None or isinstance(module.lookup(GATHERS_CONTEXTS), Function)


def _takes(tree: SourceTree, option: str) -> bool:
    """Whether the server has an option; a source that came without its server cannot say no."""
    files = [path for path in tree.paths if path == SERVER_FILE or path.startswith(ARGUMENTS)]
    named = re.compile(rf"\b{option}\b")
    return not files or any(named.search(tree.read(path)) for path in files)
