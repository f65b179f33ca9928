"""What a source's own definitions of the flags say of a configuration.

The texts are boolean expressions as `verify.checks.scan` reads them, with other flags as names.
They are taken apart and answered from a `MoeConfig`; nothing of a source is evaluated by Python.
"""

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from helper import MoeConfig
from verify.engines.sglang.vocabulary import FLAG_FUNCTIONS

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
class Definitions:
    """The flags that a source computes from its configuration, by their function's name."""

    texts: Mapping[str, str] = field(default_factory=dict)

    def text(self, flag: str) -> str | None:
        """The flag's expression; None where the source has no such flag."""
        return next((t for name, t in self.texts.items() if FLAG_FUNCTIONS.get(name) == flag), None)

    def holds(self, flag: str, config: MoeConfig) -> bool:
        """The flag in `config`; False where the source has none. Ask `unknown` first."""
        if flag not in self._expressions:
            return False
        # a lattice asks the same of few configurations, once for each of its cases
        asked = flag, config
        if asked not in self._answers:
            self._answers[asked] = self._holds(self._expressions[flag], config)
        return self._answers[asked]

    def unknown(self, flag: str) -> str | None:
        """What the flag depends on that no configuration answers: the first such atom's text."""
        if flag not in self._expressions:
            return None
        atoms = self._atoms(self._expressions[flag], within=(flag,))
        return next((atom for atom in atoms if atom not in ATOMS), None)

    @cached_property
    def _answers(self) -> dict[tuple[str, MoeConfig], bool]:
        return {}

    @cached_property
    def _expressions(self) -> Mapping[str, ast.expr]:
        return {
            FLAG_FUNCTIONS[name]: _expression(text)
            for name, text in self.texts.items()
            if name in FLAG_FUNCTIONS
        }

    def _holds(self, node: ast.expr, config: MoeConfig) -> bool:
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                return all(self._holds(value, config) for value in values)
            case ast.BoolOp(op=ast.Or(), values=values):
                return any(self._holds(value, config) for value in values)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self._holds(operand, config)
            case ast.Name(id=name) if name in self._expressions:
                return self._holds(self._expressions[name], config)
            case ast.Constant(value=bool(always)):
                return always
        return ATOMS[ast.unparse(node)](config)

    def _atoms(self, node: ast.expr, *, within: tuple[str, ...]) -> Iterator[str]:
        """All that `node` asks; a flag that is defined by itself (`within`) answers nothing."""
        match node:
            case ast.BoolOp(values=values):
                for value in values:
                    yield from self._atoms(value, within=within)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield from self._atoms(operand, within=within)
            case ast.Name(id=name) if name in self._expressions and name not in within:
                yield from self._atoms(self._expressions[name], within=(*within, name))
            case ast.Constant(value=bool()):
                return
            case _:
                yield ast.unparse(node)


def _expression(text: str) -> ast.expr:
    """The parsed definition; one with parts that were not read as Python is a single atom."""
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        return ast.Name(id=text)
