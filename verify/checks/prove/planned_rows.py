"""The plan in the rows of other guards: how often is a layer exact that follows it instead?

A plan answers a deployment, not a row. What a row's share of a guard can be compared with is the
share of the same deployments in which the layer that follows the plan is exact.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from helper import MoeConfig, Plan
from verify.checks.prove.lattice import Features, Memo, SceneKey, configurations
from verify.checks.prove.planned import (
    PLAN_STEPS,
    Addend,
    Planner,
    layer_of,
    mode_of,
    program,
    the_plan,
)
from verify.engines.ledger import LayerTraits
from verify.engines.sources import ledger
from verify.parallel.deployment import Deployment, layers
from verify.parallel.guards import Guards
from verify.parallel.scene import Scene

LEDGER = ledger()

Rows = Mapping[tuple[Guards, int], tuple[int, int]]
"""By guards and row: deployments in which the plan is exact, and all deployments of the row."""


@dataclass(kw_only=True)
class _Case:
    """Layers of one configuration in which following the plan comes down to the same."""

    scene: SceneKey
    plan: Plan
    program: tuple[str, ...]
    example: Deployment
    rows: Counter[tuple[Guards, int]]


def plan_rows(
    guards: Iterable[Guards], *, max_world_size: int, planner: Planner = the_plan
) -> Rows:
    """Follow the plan in every legal deployment of each row in which a block with `guards` can be.

    What the plan is asked for is a layer of experts of the deployment; where it has shared experts
    of its own they are built as the plan says.
    """
    blocks = tuple(dict.fromkeys(guards))
    known: dict[Features, list[_Case]] = {}
    exact: Counter[tuple[Guards, int]] = Counter()
    total: Counter[tuple[Guards, int]] = Counter()
    for world_size in range(1, max_world_size + 1):
        for config, stands_for in configurations(world_size):
            features = Features.of(config, LEDGER.release)
            if features not in known:
                known[features] = _cases(config, blocks, planner)
            memos: dict[SceneKey, Memo] = {}
            for case in known[features]:
                if case.scene not in memos:
                    example = replace(case.example, config=config)
                    scene = Scene(deployment=example, mode=mode_of(case.plan))
                    memos[case.scene] = Memo(scene, PLAN_STEPS)
                kind, _ = memos[case.scene].verdict(case.program)
                for key, weight in case.rows.items():
                    total[key] += weight * stands_for
                    exact[key] += weight * stands_for * (kind == "exact")
    return {key: (exact[key], number) for key, number in total.items()}


def _cases(config: MoeConfig, blocks: tuple[Guards, ...], planner: Planner) -> list[_Case]:
    traits = {each: LayerTraits.of(each) for each in blocks}
    found: dict[tuple[SceneKey, tuple[str, ...]], _Case] = {}
    for deployment in layers(config):
        rows = {
            each: LEDGER.plan(deployment, each, LEDGER.release).row for each in set(traits.values())
        }
        layer = layer_of(deployment, block="experts")
        plan = planner(deployment, layer)
        addend: Addend = "none" if deployment.shared in ("none", "fused") else "shared"
        steps = program(deployment, layer, plan, addend)
        scene = SceneKey(
            mode_of(plan), Scene.token_kind(deployment), deployment.context_parallel_extend
        )
        case = found.setdefault(
            (scene, steps),
            _Case(scene=scene, plan=plan, program=steps, example=deployment, rows=Counter()),
        )
        for each in blocks:
            if LEDGER.applies(deployment, each):
                case.rows[each, rows[traits[each]]] += 1
    return list(found.values())
