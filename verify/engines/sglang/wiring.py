"""How a decoder layer is wired around its block, and the steps that differ between releases.

Told by a file's text: the words are those that every release from 0.5.0 to 0.5.20 has for them.
"""

import re
from collections.abc import Iterator

from verify.engines.ledger import FlagDefinitions, Release, UnfusedGroup, Wired
from verify.engines.sglang.fusing import FUSES, read_fuses
from verify.engines.sglang.reduction_groups import read_groups
from verify.engines.sglang.vocabulary import (
    ALLOW,
    ARGUMENTS,
    COMMUNICATOR,
    COMMUNICATOR_FILE,
    FUSION_MARK,
    IS_LAST,
    MODELS,
    SERVER_FILE,
)
from verify.engines.traits import Coverage, ReductionGroups
from verify.errors import VerifyError
from verify.interpreter.index import Index, UnreadableError
from verify.interpreter.state import CANNOT_FOLLOW
from verify.logic.diagrams import TRUE, Logic
from verify.parallel.guards import Producer, SharedRule
from verify.source.source import SourceTree

SCATTERS = "should_use_reduce_scatter"
PRODUCERS: dict[str, Producer] = {
    "tensor_model_parallel_all_reduce": "one-site",
    "moe_expert_parallel_all_reduce": "two-site",
    "moe_tensor_model_parallel_all_reduce": "two-site",
}
MODEL_IMPORT = re.compile(r"^from sglang\.srt\.models\.(\w+) import", re.MULTILINE)


def why_not(tree: SourceTree) -> str:
    """Why the ledger does not know this source's steps; empty where it does."""
    if COMMUNICATOR_FILE in tree.paths:
        return ""
    return (
        f"has no {COMMUNICATOR_FILE}: prove knows the steps of {COMMUNICATOR}, which releases up "
        "to 0.5.20 have; `scan` reads this one"
    )


def asks_sizes(tree: SourceTree) -> bool:
    """Whether its communicator reads the DP flag at all."""
    return re.search(r"\bshould_use_dp_reduce_scatterv\b", tree.read(COMMUNICATOR_FILE)) is not None


def wired(tree: SourceTree, text: str) -> Wired:
    """What a model file says of the layers in it."""
    announces = FUSES in text
    return Wired(
        communicates=f"{COMMUNICATOR}(" in text,
        # without it no layer here asks: what forward() takes stays at its default, false
        hears_scatter=SCATTERS in text,
        allows_scatter=bool(re.search(rf"{ALLOW}\s*=\s*True", text)),
        # a block that other files' layers call is tagged there
        tags_fusion=not announces or FUSION_MARK in text,
        knows_last_layer=not announces or re.search(rf"{IS_LAST}\s*=", text) is not None,
        shared_experts=_shared_experts(text),
        completes_stage=any(_completes_stage(other) for other in _own_and_imported(tree, text)),
    )


def release_of(index: Index, definitions: FlagDefinitions) -> Release:
    """What differs in the steps of this source. Raises `VerifyError` where a file is broken."""
    tree = index.tree
    try:
        fuses = read_fuses(index)
        groups = read_groups(index, Logic())
    except UnreadableError as error:
        raise VerifyError(str(error)) from error
    except CANNOT_FOLLOW as error:
        index.give_up(COMMUNICATOR_FILE, "which groups it sums over", error)
        groups = ReductionGroups()
    return Release(
        name=tree.version,
        fused_group="tp" if groups.fused is None else "ep-or-moe-tp",
        unfused_group=_summed(groups.declined),
        fuses=fuses,
        copies_experts=_takes(tree, "moe_dp_size"),
        splits_contexts=_takes(tree, "attn_cp_size"),
        definitions=None if definitions.unknown("DP") else definitions,
    )


def _summed(declined: Coverage | None) -> UnfusedGroup:
    """What is summed over where the norm has no fused form; a source without that case: nothing."""
    if declined is None:
        return "none"
    return "tp" if declined.whole == TRUE else "moe_tp"


def _takes(tree: SourceTree, option: str) -> bool:
    """Whether the server has an option; a source that came without its server cannot say no."""
    files = [path for path in tree.paths if path == SERVER_FILE or path.startswith(ARGUMENTS)]
    named = re.compile(rf"\b{option}\b")
    return not files or any(named.search(tree.read(path)) for path in files)


def _shared_experts(text: str) -> SharedRule:
    """How the block builds its shared expert, if it has one."""
    if not re.search(r"\bshared?_(experts?|mlp)\b", text):
        return "none"
    # the block asks for FI where it decides on tp_rank=0, tp_size=1
    whole = re.search(r"tp_(?:rank=0|size=1).{0,600}fp4_allgather\(\)", text, re.DOTALL)
    return "replicated for FI" if whole else "sharded for FI"


def _own_and_imported(tree: SourceTree, text: str) -> Iterator[str]:
    yield text
    for name in MODEL_IMPORT.findall(text):
        path = f"{MODELS}{name}.py"
        if path in tree.paths:
            yield tree.read(path)


def _completes_stage(text: str) -> bool:
    """Whether a fused sum is made up before the tensors leave for the next pipeline stage."""
    return (
        re.search(r"not self\.pp_group\.is_last_rank:\s+if \([^:]*_needs_allreduce", text)
        is not None
    )
