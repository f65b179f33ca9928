"""The guards of a release and what its layers do around them, read from its source.

What is read: every block's guards (`verify.checks.scan`), how its decoder layer is wired (does the
communicator reduce-scatter, is a fused tensor tagged, is the last layer known, does a pipeline
stage complete its sum), and the steps that differ between releases (`layer.Release`). What is not
read, and stays as in 0.5.11: which deployments are legal where the arguments exist, and the other
steps.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from verify.checks.prove.definitions import Definitions
from verify.checks.prove.layer import Release, UnfusedGroup
from verify.checks.prove.subject import Guards, Producer, SharedRule, Subject
from verify.checks.scan.sites import GuardedSite, read_sites
from verify.checks.scan.whole import broken
from verify.engines.registry import library
from verify.engines.sglang.vocabulary import COMMUNICATOR_FILE, NORMS_FILE
from verify.engines.sources import reading
from verify.errors import VerifyError
from verify.interpreter.index import Index, UnreadableError, parse
from verify.logic import truth
from verify.logic.flags import argument_flags, flag_names
from verify.source.source import SourceTree

ARGUMENTS = "sglang/srt/server_args.py"
PRODUCERS: dict[str, Producer] = {
    "tensor_model_parallel_all_reduce": "one-site",
    "moe_expert_parallel_all_reduce": "two-site",
    "moe_tensor_model_parallel_all_reduce": "two-site",
}
LAYER_CLASS = re.compile(r"Layer$")
MODEL_IMPORT = re.compile(r"^from sglang\.srt\.models\.(\w+) import", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Sourced:
    """A release as the ledger takes it.

    `left_out` says what it does not judge, `unread` what nobody could read.
    """

    release: Release
    subjects: tuple[Subject, ...]
    left_out: tuple[str, ...]
    unread: tuple[str, ...]


def read(tree: SourceTree) -> Sourced:
    """All subjects of a source. Raises `VerifyError` for a source without a LayerCommunicator."""
    if COMMUNICATOR_FILE not in tree.paths:
        raise VerifyError(
            f"{tree.name} {tree.version} has no {COMMUNICATOR_FILE}: prove knows the steps of "
            "LayerCommunicator, which releases up to 0.5.20 have; `scan` reads this one"
        )
    index = Index(tree, library(tree.name))
    sites = [site for site in read_sites(index) if site.collective in PRODUCERS]
    sites.sort(key=lambda site: (site.file, str(site.cls), site.method, site.line))
    subjects: list[Subject] = []
    definitions = _definitions(index)
    unknown = definitions.unknown("DP")
    left_out = [f"the source's own DP flag, it depends on {unknown}"] if unknown else []
    for _, members in groupby(sites, key=lambda site: (site.file, site.cls, site.method)):
        block = _one_a_path(members)
        why = _unjudged(block, tree.read(block[0].file))
        name = block[0].id.rpartition("/")[0]
        if why:
            left_out.append(f"{name}: {why}")
        else:
            subjects.append(Subject(name=name, guards=_guards(block, tree)))
    index.unread |= broken(index)
    unread = (*tree.skipped, *sorted(index.unread.values()))
    release = _release(tree, definitions)
    return Sourced(
        release=release, subjects=tuple(subjects), left_out=(*left_out, *unread), unread=unread
    )


def read_release(tree: SourceTree) -> Release:
    """The steps of `layer.Release` as this source has them."""
    return _release(tree, _definitions(Index(tree, library(tree.name))))


def _release(tree: SourceTree, definitions: Definitions) -> Release:
    communicator = _parsed(tree, COMMUNICATOR_FILE)
    norm = _parsed(tree, NORMS_FILE)
    announces = _function(communicator, "should_fuse_mlp_allreduce_with_next_layer")
    fused = [
        function
        for function in _functions(norm)
        if function.name.lstrip("_") == "forward_with_allreduce_fusion"
    ]
    names = {name for function in fused for name in _names(function)}
    return Release(
        name=tree.version,
        fused_group="ep-or-moe-tp" if any(_is_moe_ep(name) for name in names) else "tp",
        unfused_group=_unfused_group(_function(communicator, "prepare_attn")),
        fuses_hybrid=announces is None or not any(_refuses_hybrid(announces)),
        copies_experts=_mentions(tree, ARGUMENTS, "moe_dp_size"),
        splits_contexts=_mentions(tree, ARGUMENTS, "attn_cp_size"),
        definitions=None if definitions.unknown("DP") else definitions,
    )


def _definitions(index: Index) -> Definitions:
    """The flags' definitions, if the communicator reads the DP flag at all."""
    asked = _mentions(index.tree, COMMUNICATOR_FILE, "should_use_dp_reduce_scatterv")
    return Definitions(texts=reading().constraints.texts(index) if asked else {})


def _mentions(tree: SourceTree, path: str, name: str) -> bool:
    """Whether a file names something; a file that is not there cannot say no."""
    return path not in tree.paths or re.search(rf"\b{name}\b", tree.read(path)) is not None


def _parsed(tree: SourceTree, path: str) -> ast.Module:
    """One file; an empty module where there is none. Raises `VerifyError` where it is broken."""
    try:
        return parse(tree.read(path) if path in tree.paths else "", shown=path)
    except UnreadableError as error:
        raise VerifyError(str(error)) from error


def _guards(block: Sequence[GuardedSite], tree: SourceTree) -> Guards:
    text = tree.read(block[0].file)
    full = truth.full(len(flag_names()))
    skip = {site.path: full ^ site.reduces for site in block}
    heard = {flag for site in block for flag in site.accepts}
    names = flag_names()
    heard |= {
        flag
        for table in skip.values()
        for flag in argument_flags()
        if truth.depends_on(table, names.index(flag), len(names))
    }
    if "should_use_reduce_scatter" not in text:
        # no layer here asks for it: what forward() takes stays at its default, false
        scatter = names.index("RS")
        skip = {path: truth.where_false(table, scatter, len(names)) for path, table in skip.items()}
        heard.discard("RS")
    announces = "should_fuse_mlp_allreduce_with_next_layer" in text
    return Guards(
        producer=_producer(block),
        skip_ep=skip.get("EP", 0),
        skip_tp=skip.get("TP", 0),
        accepts=frozenset(heard),
        allows_reduce_scatter=bool(re.search(r"allow_reduce_scatter\s*=\s*True", text)),
        # a block that other files' layers call is tagged there
        tags_fusion=not announces or "_sglang_needs_allreduce_fusion" in text,
        knows_last_layer=not announces or re.search(r"is_last_layer\s*=", text) is not None,
        shared_experts=_shared_experts(text),
        completes_stage=any(_completes_stage(other) for other in _own_and_imported(tree, text)),
    )


def _one_a_path(sites: Iterable[GuardedSite]) -> tuple[GuardedSite, ...]:
    """Reductions of one path with equal guards are one reduction, written in two branches."""
    return tuple({(site.path, site.reduces): site for site in sites}.values())


def _unjudged(block: Sequence[GuardedSite], text: str) -> str:
    """Why these reductions are not a block of a layer that the ledger knows; empty if they are."""
    first = block[0]
    paths = {site.path for site in block}
    in_layer = first.cls is not None and LAYER_CLASS.search(first.cls) is not None
    reasons = {
        "its file has no layer with a LayerCommunicator": "LayerCommunicator(" not in text,
        "not a method": first.cls is None,
        "several reductions of one path, by different guards": len(block) > len(paths),
        "one of two reductions only": _producer(block) == "two-site" and len(block) == 1,
        "a layer's own, and no flag decides": in_layer and not any(s.skips_on for s in block),
        "completes a pipeline stage": any("is_last_rank" in site.guard for site in block),
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


def _producer(block: Sequence[GuardedSite]) -> Producer:
    return PRODUCERS[block[0].collective]


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
        path = f"sglang/srt/models/{name}.py"
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
