"""Configurations that the source's own code refuses: no finding may rest on one of them.

Each is read from the file that refuses it. A source without that file refuses nothing.
"""

import re
from collections.abc import Iterable, Iterator

from verify.engines.sglang.vocabulary import COMMUNICATOR_FILE, MODELS_PACKAGE, PARALLEL_STATE_FILE
from verify.interpreter.index import Class, Index, Module
from verify.logic.diagrams import Cond, Logic

ATTENTION_DP = "is_dp_attention_enabled()"
INPUT_SCATTERED = "get_attn_tp_context().input_scattered"
ATTENTION = "RadixAttention("
WHOLE_GROUP = re.compile(r"get_tensor_model_parallel_world_size\(\)|get_parallel\(\)\.tp_size")
ATTENTION_GROUP = re.compile(r"attn_tp|attention_tp|attn_dp")

_MOVES_FILE = "sglang/srt/layers/dp_attention.py"
_ALLOWS_SCATTERED = "init_context("
_FP4_FILE = "sglang/srt/layers/quantization/modelopt_quant.py"
_ONE_SIZE_A_RANK = re.compile(
    r"def reduce_scatterv\((?:(?!\n    def ).){0,6000}?assert len\(sizes\) ==", re.S
)
_REFUSED_SETTING = re.compile(
    r"if [^\n]*flashinfer_cutlass[^\n]*:\n(?:[^\n]*\n){0,6}?"
    r"\s*assert\s*\(?\s*not (?:\w+\.)*moe_runner_config\.(\w+)\s*\)?\s*,"
)
_SCATTERS_INPUT = re.compile(
    r"allow_input_scattered = \((?:(?!\n {8}\)).){0,2000}?\b_?is_cuda\b", re.DOTALL
)


def moves_on_gpus_only(index: Index) -> bool:
    """Whether attention data parallelism moves its tokens by a Triton kernel on every platform."""
    text = _text(index, _MOVES_FILE)
    return "memcpy_triton(" in text and "is_cpu" not in text


def scatters_inputs_on_gpus_only(index: Index) -> bool:
    """Whether attention inputs are kept scattered over the group on some kinds of device only."""
    return bool(_SCATTERS_INPUT.search(_text(index, COMMUNICATOR_FILE)))


def takes_one_size_a_rank(index: Index) -> bool:
    """Whether reduce_scatterv wants as many sizes as its group has ranks.

    There is one size for each attention data-parallel group, so that with more than one rank in
    such a group the server stops.
    """
    return bool(_ONE_SIZE_A_RANK.search(_text(index, PARALLEL_STATE_FILE)))


def refused_by_fp4(index: Index) -> frozenset[str]:
    """Settings of an expert layer with which the FP4 method stops."""
    return frozenset(_REFUSED_SETTING.findall(_text(index, _FP4_FILE)))


def refused(index: Index, cls: Class, handed: frozenset[str], logic: Logic) -> Cond:
    """What cannot be where a layer of this class runs, with `handed` switched on for its experts.

    Attention that asks how many ranks there are, and never for those of its own group, is split
    over all of them: it has mixed other tokens in before attention data parallelism reaches the
    MLP. Attention inputs stay scattered only in a model that asks for it.
    """
    own = {ancestor.module for ancestor in cls.ancestors}
    near = own | set(_imported(own))
    attention = [
        piece.text for module in own for piece in module.pieces.values() if ATTENTION in piece.text
    ]
    rules = []
    if handed and handed & refused_by_fp4(index):
        rules.append(logic.negation(logic.atom("FI")))
    over_all = any(map(WHOLE_GROUP.search, attention))
    if over_all and not any(ATTENTION_GROUP.search(module.text) for module in near):
        rules.append(logic.negation(logic.atom(ATTENTION_DP)))
    if attention and not any(_ALLOWS_SCATTERED in module.text for module in near):
        rules.append(logic.negation(logic.atom(INPUT_SCATTERED)))
    return logic.all_of(*rules)


def _imported(modules: Iterable[Module]) -> Iterator[Module]:
    """The model files that these import from."""
    for module in modules:
        for dotted, _ in module.imports.values():
            found = module.index.module_of(dotted) if MODELS_PACKAGE in dotted else None
            if found is not None:
                yield found


def _text(index: Index, path: str) -> str:
    module = index.module(path)
    return module.text if module else ""
