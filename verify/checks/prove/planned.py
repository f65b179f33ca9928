"""The helper's plan, followed to the letter on every legal deployment: is each sum made once?

A plan is turned into the ledger's steps without looking at the deployment again: what the block and
its consumer do is what the plan says, and nothing else.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from helper import Layer, MoeConfig, Plan, plan_layer
from helper.layer import Block, Group, Next
from helper.reasons import Form
from verify.checks.prove.judge import Kind, Verdict, run
from verify.checks.prove.lattice import Features, Memo, SceneKey, configurations
from verify.engines.ledger import Step
from verify.engines.sources import ledger
from verify.logic.flags import flag_of, skip_reasons
from verify.parallel.counts import (
    Family,
    ImpossibleError,
    State,
    all_gather,
    all_reduce,
    produce,
    produce_on,
)
from verify.parallel.deployment import (
    Deployment,
    layers,
    with_every_backend,
    with_every_transport,
)
from verify.parallel.scene import Mode, Scene
from verify.report.progress import track

LEDGER = ledger()

Planner = Callable[[Deployment, Layer], Plan]
Addend = Literal["none", "shared", "whole"]
"""What goes into the output beside the routed experts: an MLP that the plan places, or a value that
every rank computes whole (zero experts)."""

BLOCKS: tuple[Block, ...] = ("experts", "dense")
ADDENDS: tuple[Addend, ...] = ("none", "shared", "whole")
GROUPS: tuple[Group, ...] = ("tp", "ep", "moe_tp", "attn_tp")
_MODES: Mapping[str, Mode] = {
    "all": "moe_full",
    "attention group": "full",
    "own share": "scattered",
}
_NEXT: Mapping[str, Next] = {"last": "model end", "stage-end": "stage end"}
_UNFUSED = ("off", "no-fused-norm")


@dataclass(frozen=True, kw_only=True)
class PlannedFault:
    """A plan that is wrong in `example`, the smallest such deployment; `weight` are wrong so."""

    kind: Kind
    layer: Layer
    addend: Addend
    plan: Plan
    example: Deployment
    program: tuple[str, ...]
    weight: int


@dataclass(kw_only=True)
class PlannedTally:
    """Deployments looked at, cases judged (a deployment has one for each addend), and faults."""

    deployments: int = 0
    cases: int = 0
    kinds: Counter[Kind]
    faults: dict[tuple[str, ...], PlannedFault]


def layer_of(deployment: Deployment, *, block: Block) -> Layer:
    """What the plan is told about the layer of `deployment`."""
    plain: Next = "norm" if deployment.fusion in _UNFUSED else "fused norm"
    return Layer(
        block=block,
        next=_NEXT.get(deployment.position, plain),
        equal_rows=deployment.padding == "max_len",
        contexts_differ=deployment.context_parallel_extend,
        may_scatter=deployment.allow_reduce_scatter,
        dense_on_own_rows=deployment.dense_fully_dp and block == "dense",
    )


def layers_of(deployment: Deployment, *, block: Block) -> tuple[Layer, ...]:
    """Every layer of `deployment`, one with experts that every rank fetches where that is legal.

    `server_args.py` (0.5.23, `_handle_dwdp`): EP and attention DP are then the whole world, without
    an all-to-all backend, and the ledger's deployments do not tell it from other servers of these
    sizes.
    """
    config, layer = deployment.config, layer_of(deployment, block=block)
    fetches = (
        block == "experts"
        and config.ep_size == config.attn_dp_size == config.tp_size > 1
        and config.moe_a2a_backend == "none"
        and not deployment.fp4_allgather
    )
    return (layer, replace(layer, experts_everywhere=True)) if fetches else (layer,)


def the_plan(deployment: Deployment, layer: Layer) -> Plan:
    """The helper's own answer."""
    return plan_layer(deployment.config, layer)


def program(deployment: Deployment, layer: Layer, plan: Plan, addend: Addend) -> tuple[str, ...]:
    """The ledger's steps of a layer that does what `plan` says; names are keys of `PLAN_STEPS`."""
    added = (f"shared_over_{plan.over('shared')}",) if addend == "shared" else ()
    block_sum = () if plan.block_sum == "none" else (f"{plan.block_sum}_all_reduce",)
    late: tuple[str, ...] = ()
    if addend == "whole":
        first = plan.whole_on == "first rank"
        late = (f"whole_on_first_of_{plan.consumer.over}" if first else "shared_replicated",)
    made, consumed = _made(deployment, layer, plan), _consumed(deployment, layer, plan)
    return (*made, *added, *block_sum, *late, *consumed)


def _made(deployment: Deployment, layer: Layer, plan: Plan) -> tuple[str, ...]:
    """What leaves the experts is the configuration's doing; a plan that calls it else is wrong."""
    if layer.block == "dense":
        return (f"mlp_over_{plan.over('dense')}",)
    config, layout = deployment.config, deployment.layout
    made: tuple[str, ...] = ("routed_experts",)
    partial_over: Sequence[Sequence[int]] = _copies(config)
    complete = [[rank] for rank in range(layout.world_size)]
    if layer.experts_everywhere:
        made, partial_over = ("mlp_over_none",), complete
    elif config.moe_a2a_backend != "none":
        made, partial_over = ("all_to_all_experts",), complete
    elif deployment.fp4_allgather or _dispatches(config, layer):
        made, partial_over = ("gather_over_tp", "routed_experts", "fp4_combine"), complete
    over = plan.over("routed")
    told = complete if over == "none" else getattr(layout, over)
    same = list(map(list, told)) == list(map(list, partial_over))
    return made if same else ("not_what_is_made",)


def _copies(config: MoeConfig) -> list[list[int]]:
    """The ranks that hold different parts of one copy of the experts."""
    size = config.ep_size * config.moe_tp_size
    return [list(range(first, first + size)) for first in range(0, config.tp_size, size)]


def _dispatches(config: MoeConfig, layer: Layer) -> bool:
    """Whether a reason promises that the dispatcher completes the sum."""
    return any(
        reason.form == "dispatch" and reason.completes(config, layer) for reason in skip_reasons()
    )


def _consumed(deployment: Deployment, layer: Layer, plan: Plan) -> tuple[str, ...]:
    step, over = plan.consumer.step, plan.consumer.over
    own_rows = "moe_cp_slice" if deployment.config.attn_cp_size > 1 else LEDGER.own_rows
    quiet: dict[str, tuple[str, ...]] = {
        "nothing": ("residual_add",),
        "own rows": (own_rows, "residual_add"),
        "gather shares": ("residual_add", "attention_gather"),
    }
    if step in quiet:
        return quiet[step]
    forms: dict[str, Form] = {reason.step: reason.form for reason in skip_reasons()}
    scatters = forms[step] == "scatter"
    if (step == "fused norm" and layer.next != step) or (scatters and not layer.may_scatter):
        return ("no_such_step",)
    known = LEDGER.scatters.get(flag_of(step))
    if known is not None:
        return (f"{known}_over_{over}", "residual_add")
    handed = (own_rows,) if scatters else ()
    return (f"{over}_all_reduce", *handed, "residual_add")


def mode_of(plan: Plan) -> Mode:
    """The ledger's word for the rows that the plan's block works on."""
    return _MODES[plan.rows]


def judge_plan(
    deployment: Deployment, layer: Layer, plan: Plan, addend: Addend = "none"
) -> Verdict:
    """The verdict on one layer that follows `plan`."""
    scene = Scene(deployment=deployment, mode=mode_of(plan))
    return run(scene, program(deployment, layer, plan, addend), row="", steps=PLAN_STEPS)


def prove_plan(*, max_world_size: int, planner: Planner = the_plan) -> PlannedTally:
    """Judge the plan in every legal deployment of at most `max_world_size` ranks."""
    tally = PlannedTally(kinds=Counter(), faults={})
    known: dict[Features, _Judged] = {}
    for world_size in track(range(1, max_world_size + 1), what="world sizes proved"):
        for config, stands_for in configurations(world_size):
            features = Features.of(config, LEDGER.release)
            first = features not in known
            if first:
                known[features] = _judged(config, planner)
            _count_all(tally, known[features].cases, config, stands_for=stands_for)
            # what is taken for granted of it: that it is planned as the one that it is judged by
            others = with_every_backend(config) if first else with_every_transport(config)
            for named in others:
                if not known[features].plans_alike(named, planner):
                    _count_all(tally, _judged(named, planner).cases, named, stands_for=1)
    return tally


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """What one configuration comes down to, and the plans that it was asked for."""

    cases: list["_Case"]
    plans: dict[Layer, tuple[Deployment, Plan]]

    def plans_alike(self, config: MoeConfig, planner: Planner) -> bool:
        """Whether every layer of `config` is planned as here."""
        return all(
            planner(replace(example, config=config), layer) == plan
            for layer, (example, plan) in self.plans.items()
        )


@dataclass(kw_only=True)
class _Case:
    """Layers of one configuration whose plan comes down to one program in one scene."""

    scene: SceneKey
    program: tuple[str, ...]
    layer: Layer
    addend: Addend
    plan: Plan
    example: Deployment
    weight: int = 0


def _judged(config: MoeConfig, planner: Planner) -> _Judged:
    plans: dict[Layer, tuple[Deployment, Plan]] = {}
    found: dict[tuple[SceneKey, tuple[str, ...], Plan], _Case] = {}
    for deployment in layers(config):
        if deployment.shared != "none":
            continue  # where shared experts live is the plan's to say
        for layer in (one for block in BLOCKS for one in layers_of(deployment, block=block)):
            plan = planner(deployment, layer)
            plans.setdefault(layer, (deployment, plan))
            scene = SceneKey(
                mode_of(plan), Scene.token_kind(deployment), deployment.context_parallel_extend
            )
            for addend in ADDENDS if layer.block == "experts" else ADDENDS[:1]:
                steps = program(deployment, layer, plan, addend)
                case = found.setdefault(
                    (scene, steps, plan),
                    _Case(
                        scene=scene,
                        program=steps,
                        layer=layer,
                        addend=addend,
                        plan=plan,
                        example=deployment,
                    ),
                )
                case.weight += 1
    return _Judged(cases=list(found.values()), plans=plans)


def _count_all(
    tally: PlannedTally, cases: Sequence[_Case], config: MoeConfig, *, stands_for: int
) -> None:
    memos: dict[SceneKey, Memo] = {}
    for case in cases:
        example = replace(case.example, config=config)
        _count(tally, case, example, stands_for=stands_for, memos=memos)


def _count(
    tally: PlannedTally,
    case: _Case,
    example: Deployment,
    *,
    stands_for: int,
    memos: dict[SceneKey, Memo],
) -> None:
    if case.scene not in memos:
        memos[case.scene] = Memo(Scene(deployment=example, mode=mode_of(case.plan)), PLAN_STEPS)
    kind, _ = memos[case.scene].verdict(case.program)
    weight = case.weight * stands_for
    tally.cases += weight
    if case.addend == "none":
        tally.deployments += weight
    tally.kinds[kind] += weight
    if kind == "exact":
        return
    key = (kind, case.layer.block, case.addend, *case.program)
    fault = tally.faults.get(key)
    tally.faults[key] = (
        replace(fault, weight=fault.weight + weight)
        if fault
        else PlannedFault(
            kind=kind,
            layer=case.layer,
            addend=case.addend,
            plan=case.plan,
            example=example,
            program=case.program,
            weight=weight,
        )
    )


def _groups(scene: Scene, over: Group) -> Sequence[Sequence[int]]:
    if over == "none":
        return [[rank] for rank in range(scene.world_size)]
    groups: Sequence[Sequence[int]] = getattr(scene.layout, over)
    return groups


def _sharded(over: Group, family: Family) -> Step:
    def step(scene: Scene, state: State) -> State:
        groups = _groups(scene, over)
        places = {rank: place for group in groups for place, rank in enumerate(group)}
        return produce(state, family, different=len(groups[0]), part=places.__getitem__)

    return step


def _whole_on_first(over: Group) -> Step:
    def step(scene: Scene, state: State) -> State:
        return produce_on(state, "shared", {group[0] for group in _groups(scene, over)})

    return step


def _gather_over_tp(scene: Scene, state: State) -> State:
    """What `fp4_dispatch` does, to the rows that the plan says a rank brings."""
    return all_gather(state, scene.layout.tp)


def _summed(over: Group) -> Step:
    return lambda scene, state: all_reduce(state, getattr(scene.layout, over))


def _no_such_step(scene: Scene, state: State) -> State:
    raise ImpossibleError("the plan asks for a step that this layer does not have")


def _not_what_is_made(scene: Scene, state: State) -> State:
    raise ImpossibleError("experts are not partial over the ranks that the plan says")


PLAN_STEPS: Mapping[str, Step] = {
    **LEDGER.steps,
    # an engine has these two over the TP group only
    **{f"{step}_over_tp": LEDGER.steps[step] for step in LEDGER.scatters.values()},
    "gather_over_tp": _gather_over_tp,
    "no_such_step": _no_such_step,
    "not_what_is_made": _not_what_is_made,
    **{f"{over}_all_reduce": _summed(over) for over in GROUPS},
    **{f"mlp_over_{over}": _sharded(over, "routed") for over in ("none", *GROUPS)},
    **{f"shared_over_{over}": _sharded(over, "shared") for over in ("none", *GROUPS)},
    **{f"whole_on_first_of_{over}": _whole_on_first(over) for over in ("none", *GROUPS)},
}
