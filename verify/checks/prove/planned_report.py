"""What `prove --subject plan` found, as one value for every renderer."""

from verify.checks.prove.findings import RULES, drawn, in_words
from verify.checks.prove.planned import PlannedFault, Planner, judge_plan, prove_plan, the_plan
from verify.report.report import Finding, Json, Report, TableSection

PLAN = "plan"


def build_plan(*, max_ranks: int, planner: Planner = the_plan) -> Report:
    """Judge the helper's plan in every legal deployment of 1 to `max_ranks` ranks."""
    tally = prove_plan(max_world_size=max_ranks, planner=planner)
    faults = tuple(tally.faults.values())
    kinds: dict[str, Json] = dict(sorted(tally.kinds.items()))
    return Report(
        command="prove",
        title=f"The helper's plan, on every legal deployment of 1 to {max_ranks} ranks",
        summary=(
            f"the plan: {tally.deployments} layers, {tally.cases} cases, "
            f"{tally.kinds['exact']} exact, {len(faults)} causes"
        ),
        payload={
            "max_ranks": max_ranks,
            "release": None,
            "deployments": tally.deployments,
            "cases": tally.cases,
            "subjects": [{"name": PLAN, "producer": "any", "cases": kinds}],
            "causes": [_cause(fault) for fault in faults],
            "left_out": [],
        },
        sections=(_coverage(tally.cases, tally.deployments, kinds),),
        findings=tuple(map(_finding, faults)),
    )


def _coverage(cases: int, deployments: int, kinds: dict[str, Json]) -> TableSection:
    return TableSection(
        title="Coverage",
        columns=("what", "how many"),
        rows=(
            ("layers (a dense one and one of experts in each deployment)", str(deployments)),
            ("cases (alone, with a shared expert, with a value whole on every rank)", str(cases)),
            *((f"{kind}", str(number)) for kind, number in kinds.items()),
        ),
        notes=("What the block and its consumer do is what the plan says, and nothing else.",),
    )


def _cause(fault: PlannedFault) -> dict[str, Json]:
    return {
        "kind": fault.kind,
        "addend": fault.addend,
        "program": fault.program,
        "why": fault.plan.why,
        "deployment": fault.example.as_json(),
        "cases": fault.weight,
    }


def _finding(fault: PlannedFault) -> Finding:
    verdict = judge_plan(fault.example, fault.layer, fault.plan, fault.addend)
    return Finding(
        rule=RULES[fault.kind],
        subject=PLAN,
        kind=fault.kind,
        message=(
            f"a {fault.layer.block} block that follows the plan is counted {fault.kind}: "
            f"{', then '.join(fault.program)} ({in_words(fault.example)})"
        ),
        fix=f"the plan says: {fault.plan.why}. It is wrong there: report it with this line",
        deployment=fault.example.as_json(),
        counts=verdict.counts or None,
        counts_of=verdict.counts_of,
        groups=drawn(fault.example),
    )
