"""How a decoder layer is wired around its block, and the steps that differ between releases.

Told by a file's text: the words are those that every release from 0.5.0 to 0.5.20 has for them.
"""

import ast
import re
from collections.abc import Iterable, Iterator

from verify.engines.ledger import FlagDefinitions, Release, UnfusedGroup, Wired
from verify.engines.sglang.vocabulary import (
    ALLOW,
    COMMUNICATOR,
    COMMUNICATOR_FILE,
    FUSED_NORM,
    FUSION_MARK,
    IS_LAST,
    MODELS,
    NORMS_FILE,
)
from verify.errors import VerifyError
from verify.interpreter.index import UnreadableError, parse
from verify.parallel.guards import Producer, SharedRule
from verify.source.source import SourceTree

ARGUMENTS = "sglang/srt/server_args.py"
FUSES = "should_fuse_mlp_allreduce_with_next_layer"
# what answers for it since 0.5.10, of the kernel that is asked about first
KERNEL = "apply_flashinfer_allreduce_fusion"
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
    return _mentions(tree, COMMUNICATOR_FILE, "should_use_dp_reduce_scatterv")


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


def release_of(tree: SourceTree, definitions: FlagDefinitions) -> Release:
    """What differs in the steps of this source. Raises `VerifyError` where a file is broken."""
    communicator = _parsed(tree, COMMUNICATOR_FILE)
    norm = _parsed(tree, NORMS_FILE)
    announces = _function(communicator, FUSES)
    fused = [function for function in _functions(norm) if function.name.lstrip("_") == FUSED_NORM]
    names = {name for function in fused for name in _names(function)}
    return Release(
        name=tree.version,
        fused_group="ep-or-moe-tp" if any(_is_moe_ep(name) for name in names) else "tp",
        unfused_group=_unfused_group(_function(communicator, "prepare_attn")),
        fuses_under_attention_dp=announces is not None
        and not any(
            map(_refuses_attention_dp, filter(None, (announces, _function(communicator, KERNEL))))
        ),
        fuses_hybrid=announces is None or not any(_refuses_hybrid(announces)),
        copies_experts=_mentions(tree, ARGUMENTS, "moe_dp_size"),
        splits_contexts=_mentions(tree, ARGUMENTS, "attn_cp_size"),
        definitions=None if definitions.unknown("DP") else definitions,
    )


def _mentions(tree: SourceTree, path: str, name: str) -> bool:
    """Whether a file names something; a file that is not there cannot say no."""
    return path not in tree.paths or re.search(rf"\b{name}\b", tree.read(path)) is not None


def _parsed(tree: SourceTree, path: str) -> ast.Module:
    """One file; an empty module where there is none. Raises `VerifyError` where it is broken."""
    try:
        return parse(tree.read(path) if path in tree.paths else "", shown=path)
    except UnreadableError as error:
        raise VerifyError(str(error)) from error


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


def _function(tree: ast.Module, name: str) -> ast.FunctionDef | None:
    return next((function for function in _functions(tree) if function.name == name), None)


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def _is_moe_ep(name: str) -> bool:
    return name in ("moe_ep_size", "get_moe_expert_parallel_world_size")


def _is_moe_tp(name: str) -> bool:
    return name in ("moe_tp_size", "get_moe_tensor_parallel_world_size")


def _refuses_hybrid(function: ast.FunctionDef) -> Iterator[bool]:
    """For each refusal: whether it is made because both groups have several ranks."""
    for node in ast.walk(function):
        if isinstance(node, ast.If) and _returns_false(node.body):
            names = set(_names(node.test))
            yield any(map(_is_moe_ep, names)) and any(map(_is_moe_tp, names))


def _refuses_attention_dp(function: ast.FunctionDef) -> bool:
    """Whether it is true only where attention is not data-parallel (0.5.4.post1 on, #11632)."""
    return any(
        ast.unparse(node) == "not is_dp_attention_enabled()"
        for node in ast.walk(function)
        if isinstance(node, ast.UnaryOp)
    )


def _returns_false(body: Iterable[ast.stmt]) -> bool:
    return any(
        isinstance(statement, ast.Return)
        and isinstance(statement.value, ast.Constant)
        and statement.value.value is False
        for statement in body
    )


def _unfused_group(prepare_attn: ast.FunctionDef | None) -> UnfusedGroup:
    called = set(_names(prepare_attn)) if prepare_attn else set()
    if "moe_tensor_model_parallel_all_reduce" in called:
        return "moe_tp"
    return "tp" if "tensor_model_parallel_all_reduce" in called else "none"
