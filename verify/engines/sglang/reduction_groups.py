"""Which group a step of the source sums over, read from where the source picks it."""

import ast
import re
from collections.abc import Mapping

from verify.engines.sglang.boundary_decisions import OPS, WHOLE
from verify.engines.sglang.vocabulary import (
    COLLECTIVES,
    COMMUNICATOR,
    COMMUNICATOR_FILE,
    FACTORIES_FILE,
    FUSED_NORM,
    GROUPS,
    NORMS_FILE,
    PARALLEL_STATE_FILE,
    UTILS_FILE,
)
from verify.engines.traits import Coverage, ReductionGroups, Stage
from verify.interpreter.index import Class, Function, Index
from verify.interpreter.machine import Machine
from verify.interpreter.state import Frame, State
from verify.interpreter.values import NONE, Axis, Place, Text, Truth, Value, alternatives
from verify.logic.diagrams import TRUE, Cond, Logic

RETURNED = "return"
# a norm fused with a sum takes one of two groups: the attention's, or the one that this picks
OWN_GROUP = "use_attn_tp_group"
_FUSION_FILE = "sglang/srt/layers/flashinfer_comm_fusion.py"
_FUSION_SETUP = "ensure_workspace_initialized"
_FUSED_CALL = re.compile(rf"{FUSED_NORM}\((?:[^()]|\([^()]*\))*?\b{OWN_GROUP}=(?P<own>\w+)")
_STAND_IN = re.compile(
    r"(?:(?!\n    def ).){0,200}?\n\s+else:\n\s+(?P<value>\w+) = (?P<name>\w+)\((?P=value)\)",
    re.DOTALL,
)
_DECIDES = re.compile(r"def should_fuse_mlp_allreduce_with_next_layer\(")
_METHOD = re.compile(r"^    def (\w+)\(", re.MULTILINE)
_COPIES = "moe_dp_size"
_MOE_OUTPUT = "MOE_OUTPUT"
_MOE_GROUP = "post_experts_reduction_group"
_COMPLETES, _OF_EXPERTS = "sum_output", "sum_post_experts_output"


class GroupReader(Machine):
    """Runs a function; remembers which groups it names, under which name and condition."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.named: dict[str, list[tuple[Cond, tuple[Axis, ...]]]] = {}

    def _do_assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self._note(target.id, node.value)
        super()._do_assign(node)

    def _do_return(self, node: ast.Return) -> None:
        if node.value is not None:
            self._note(RETURNED, node.value)
        super()._do_return(node)

    def _note(self, name: str, value: ast.expr) -> None:
        text = ast.unparse(value).removesuffix("()")
        axes = next((axes for key, axes in GROUPS.items() if text.endswith(key)), None)
        if axes is not None:
            self.named.setdefault(name, []).append((self.state.here, axes))


def read_groups(index: Index, logic: Logic) -> ReductionGroups:
    """Read them. Raises what following a source may raise."""
    ranks, communicator = index.module(PARALLEL_STATE_FILE), index.module(COMMUNICATOR_FILE)
    text = communicator.text if communicator else ""
    call, fuses = _FUSED_CALL.search(text), _DECIDES.search(text)
    stand_in = _STAND_IN.match(text, call.end()) if call else None
    axes = COLLECTIVES.get(stand_in["name"]) if stand_in else None
    return ReductionGroups(
        fused=_fused_coverage(index, logic),
        fused_at=_place(text, call.start()) if call and call["own"] == "False" else None,
        declined=_coverage(logic, [(TRUE, axes)]) if axes else None,
        declined_at=_place(text, stand_in.start("name")) if stand_in else None,
        fuses_at=_place(text, fuses.start()) if fuses else None,
        moe_output=_moe_output_coverage(index, logic),
        copies=ranks is not None and _COPIES in ranks.text,
    )


def _fused_coverage(index: Index, logic: Logic) -> Coverage | None:
    module = index.module(_FUSION_FILE)
    setup = module.lookup(_FUSION_SETUP) if module else None
    if not isinstance(setup, Function):
        return None
    if OWN_GROUP not in {arg.arg for arg in setup.node.args.args}:
        return None
    named = _read(index, logic, setup, {OWN_GROUP: Truth(logic.negation(TRUE))})
    picked = [pairs for pairs in named.values() if len(pairs) > 1]
    return _coverage(logic, picked[0]) if picked else None


def _moe_output_coverage(index: Index, logic: Logic) -> Coverage | None:
    factories, utils = index.module(FACTORIES_FILE), index.module(UTILS_FILE)
    function = utils.lookup(_MOE_GROUP) if utils else None
    if factories is None or _MOE_OUTPUT not in factories.text:
        return None
    if not isinstance(function, Function):
        return None
    pairs = _read(index, logic, function, {}).get(RETURNED, [])
    return _coverage(logic, pairs) if pairs else None


def _coverage(logic: Logic, pairs: list[tuple[Cond, tuple[Axis, ...]]]) -> Coverage:
    """Where no group is picked at all, the step does not run, and nothing is missing."""
    elsewhere = logic.negation(logic.any_of(*(cond for cond, _ in pairs)))

    def over(axis: Axis) -> Cond:
        return logic.any_of(elsewhere, *(cond for cond, axes in pairs if axis in axes))

    return Coverage(axes={axis: over(axis) for axis in ("EP", "MOE_TP")}, whole=over("TP"))


def _read(
    index: Index, logic: Logic, function: Function, given: Mapping[str, Value]
) -> dict[str, list[tuple[Cond, tuple[Axis, ...]]]]:
    reader = GroupReader(State(index=index, logic=logic, theory=True))
    frame = Frame(function.module, function.name, function.owner, TRUE)
    frame.env.update({arg.arg: Text(arg.arg) for arg in function.node.args.args})
    frame.env.update(given)
    reader.state.enter(frame)
    body = function.node.body
    reader.run_body(body if isinstance(body, list) else [])
    return reader.named


def _place(text: str, at: int) -> Place:
    """Where in the communicator's file."""
    methods = _METHOD.findall(text, 0, text.find("\n", at))
    return Place(
        file=COMMUNICATOR_FILE,
        line=text.count("\n", 0, at) + 1,
        column=0,
        cls=COMMUNICATOR,
        method=methods[-1] if methods else "",
        collective=FUSED_NORM,
        axes=(),
    )


def boundary_sum(index: Index, stage: Stage) -> Place | None:
    """The last call of its kind in the function that completes what a boundary's stage owes."""
    module = index.module(OPS)
    function = module.lookup(_COMPLETES) if module else None
    if not isinstance(function, Function):
        return None
    wanted = _OF_EXPERTS if stage == "sparse" else WHOLE
    calls = [
        node
        for node in ast.walk(function.node)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == wanted
    ]
    if not calls:
        return None
    return Place(
        file=OPS,
        line=calls[-1].lineno,
        column=calls[-1].col_offset,
        cls=None,
        method=_COMPLETES,
        collective=wanted,
        axes=(),
    )


def takes_the_picked_group(index: Index, norm: Value | None) -> bool:
    """Whether a norm of this kind hands the choice of the group on to its fused kernel."""
    module = index.module(NORMS_FILE)
    for _, value in alternatives(norm or NONE):
        name = value.text.removesuffix("()") if isinstance(value, Text) else ""
        cls = module.lookup(name) if module and name.isidentifier() else None
        method = cls.method(FUSED_NORM) if isinstance(cls, Class) else None
        if method is None or any(map(_takes_attentions, ast.walk(method.node))):
            return False
    return True


def _takes_attentions(node: ast.AST) -> bool:
    """Whether a call asks for the attention's group, whatever its caller wants."""
    return isinstance(node, ast.Call) and any(
        keyword.arg == OWN_GROUP and ast.unparse(keyword.value) == "True"
        for keyword in node.keywords
    )
