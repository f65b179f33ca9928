"""The configuration's flags as a source defines them, against the helper's definitions."""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from helper import MoeConfig, SkipReason, use_config
from verify.flags import skip_reasons
from verify.pull_request.reachable import configurations, in_words
from verify.scan.primitives import FLAG_FUNCTIONS

# what the atoms of a source's definitions ask of a configuration
ATOMS: Mapping[str, Callable[[MoeConfig], bool]] = {
    "get_moe_a2a_backend().is_none()": lambda c: c.moe_a2a_backend == "none",
    "get_moe_runner_backend().is_flashinfer_cutlass()": (
        lambda c: c.moe_runner_backend == "flashinfer_cutlass"
    ),
    "is_dp_attention_enabled()": lambda c: c.enable_dp_attention,
    "attn_dp_size > 1": lambda c: c.attn_dp_size > 1,
    "attn_dp_size == moe_ep_size": lambda c: c.attn_dp_size == c.ep_size,
    "attn_dp_size == tp_size": lambda c: c.attn_dp_size == c.tp_size,
    "DISABLE_FLASHINFER_CUTLASS_MOE_FP4_ALLGATHER": (
        lambda c: c.disable_flashinfer_cutlass_moe_fp4_allgather
    ),
    "get_flags().moe.disable_fp4_allgather": (
        lambda c: c.disable_flashinfer_cutlass_moe_fp4_allgather
    ),
    "MOE_QUANTIZATION == 'modelopt_fp4'": lambda c: c.quantization == "modelopt_fp4",
    "get_flags().moe.quantization == 'modelopt_fp4'": lambda c: c.quantization == "modelopt_fp4",
}


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One flag as the source defines it; `text` is None where the source has no such flag.

    `unknown` is the first atom that no configuration answers, `differs` the smallest configuration
    in which source and helper disagree.
    """

    flag: str
    text: str | None
    unknown: str | None = None
    differs: MoeConfig | None = None

    @property
    def verdict(self) -> str:
        """The comparison in words."""
        if self.text is None:
            return "not in this source"
        if self.unknown is not None:
            return f"not compared: {self.unknown} is not part of a configuration here"
        if self.differs is not None:
            return f"differs with {in_words(self.differs)}: it is {self.text} here"
        return f"the same in {len(configurations())} configurations"


def compare_definitions(texts: Mapping[str, str]) -> tuple[Definition, ...]:
    """Each flag of the configuration; `texts` maps a flag's function to its boolean expression."""
    functions = {flag: name for name, flag in FLAG_FUNCTIONS.items()}
    reasons = {r.flag: r for r in skip_reasons() if r.value is not None and r.flag in functions}
    expressions = {
        flag: ast.parse(texts[functions[flag]], mode="eval").body
        for flag in reasons
        if functions[flag] in texts
    }
    return tuple(
        _compare(reason, expressions, text=texts.get(functions[flag]))
        for flag, reason in reasons.items()
    )


def _compare(
    reason: SkipReason, expressions: Mapping[str, ast.expr], *, text: str | None
) -> Definition:
    assert reason.value is not None
    if text is None:
        return Definition(flag=reason.flag, text=None)
    for config in configurations():
        try:
            there = _holds(expressions[reason.flag], config, expressions)
        except KeyError as error:
            return Definition(flag=reason.flag, text=text, unknown=error.args[0])
        with use_config(config):
            if there != reason.value():
                return Definition(flag=reason.flag, text=text, differs=config)
    return Definition(flag=reason.flag, text=text)


def _holds(node: ast.expr, config: MoeConfig, flags: Mapping[str, ast.expr]) -> bool:
    """The expression's value; raises `KeyError` with the text of an atom that is not known."""
    match node:
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_holds(value, config, flags) for value in values)
        case ast.BoolOp(op=ast.Or(), values=values):
            return any(_holds(value, config, flags) for value in values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _holds(operand, config, flags)
        case ast.Name(id=name) if name in flags:
            return _holds(flags[name], config, flags)
    return ATOMS[ast.unparse(node)](config)
