"""Faults as findings: one a cause, in words, with the smallest deployment that shows it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from verify.checks.prove.judge import Kind, Verdict, judge
from verify.checks.prove.lattice import Fault
from verify.checks.prove.subject import Subject
from verify.engines.ledger import Release
from verify.engines.sources import ledger
from verify.parallel.deployment import Deployment
from verify.parallel.guards import ANSWERS, Guards, always
from verify.report.report import Finding

READERS = ledger().readers
RULES: Mapping[Kind, str] = {
    "double": "ledger-double",
    "missing": "ledger-missing",
    "mixed": "ledger-mixed",
    "crash": "ledger-crash",
}
SIZES = {
    "tp_size": "tp",
    "ep_size": "ep",
    "moe_dp_size": "moe_dp",
    "dp_size": "dp",
    "attn_cp_size": "cp",
}
USUAL = (("padding", "max_len"), ("tokens", "even"))
COLLECTIVES = {
    "ep_all_reduce": "EP",
    "moe_tp_all_reduce": "MoE-TP",
    "tp_all_reduce": "the TP group",
}
COMPLETE = {
    "fp4_combine": "the dispatcher's combine has completed the sum",
    "all_to_all_experts": "the all-to-all combine has completed the sum",
    "dense_mlp_fully_dp": "every rank has the whole MLP",
}


@dataclass(frozen=True, kw_only=True)
class Story:
    """Faults of one cause: everyone who has it, and the smallest deployment of all.

    `deployments`: in how many whoever has it most often has it. `fault` is the first of them.
    `own_doing`: the block could have answered better; otherwise its surroundings fail.
    """

    finding: Finding
    subjects: tuple[str, ...]
    deployments: int
    verdict: Verdict
    deployment: Deployment
    fault: Fault
    own_doing: bool


def stories(
    faults: Sequence[Fault], subjects: Sequence[Subject], release: Release
) -> tuple[Story, ...]:
    """One story a cause: first what blocks do wrong themselves, the smallest deployments first."""
    names: dict[Guards, list[str]] = {}
    for subject in subjects:
        names.setdefault(subject.guards, []).append(subject.name)
    groups: dict[tuple[object, ...], list[Fault]] = {}
    for fault in faults:
        groups.setdefault(_same_cause(fault), []).append(fault)
    told = [_told(group, names, release) for group in groups.values()]
    return tuple(sorted(told, key=lambda story: not story.own_doing))


def _same_cause(fault: Fault) -> tuple[object, ...]:
    cause = fault.cause
    dense = fault.guards.producer == "dense"
    complete = any(step in COMPLETE for step in cause.before)
    return (cause.kind, cause.family, cause.reader, cause.sites, dense, complete)


def _told(
    faults: Sequence[Fault], names: Mapping[Guards, Sequence[str]], release: Release
) -> Story:
    first = faults[0]
    verdict = judge(first.example, first.guards, release=release)
    subjects = tuple(dict.fromkeys(name for fault in faults for name in names[fault.guards]))
    shown_by: Counter[Guards] = Counter()
    for fault in faults:
        shown_by[fault.guards] += fault.weight
    finding = Finding(
        rule=RULES[verdict.kind],
        kind=verdict.kind,
        subject=", ".join(subjects),
        row=verdict.row,
        deployment=first.example.as_json(),
        counts=verdict.counts,
        counts_of=verdict.counts_of,
        groups=drawn(first.example),
        message=sentence(first, verdict),
        fix=READERS[first.cause.reader].repair,
    )
    return Story(
        finding=finding,
        subjects=subjects,
        deployments=max(shown_by.values()),
        verdict=verdict,
        deployment=first.example,
        fault=first,
        own_doing=own_doing(first, release),
    )


def drawn(deployment: Deployment) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The groups that counts are drawn with."""
    layout = deployment.layout
    groups = {"EP": layout.ep, "MoE-TP": layout.moe_tp, "attention TP": layout.attn_tp}
    if deployment.config.moe_dp_size > 1:
        groups["MoE-DP"] = layout.moe_dp
    return groups


def own_doing(fault: Fault, release: Release) -> bool:
    """Whether the block could have answered better by what it knows.

    It could where some other answer is exact, unless it skipped because a flag told it to: then
    the later step that the flag promises is the one that fails.
    """
    verdict = judge(fault.example, fault.guards, release=release)
    if "1" in verdict.row and not fault.cause.sites:
        return False
    return any(
        judge(fault.example, always(fault.guards, answer), release=release).kind == "exact"
        for answer in ANSWERS
    )


def sentence(fault: Fault, verdict: Verdict) -> str:
    """What a maintainer has to know, in one sentence."""
    reader = READERS[fault.cause.reader].said.format(group=_reader_group(fault))
    return f"{in_words(fault.example)}: {_block(fault)}, {reader}; {_effect(fault, verdict)}"


def in_words(deployment: Deployment) -> str:
    """A deployment as it would be started, what is 1 or usual left out."""
    words = []
    for name, value in deployment.as_json().items():
        if name in SIZES:
            if value != 1 or name == "tp_size":
                words.append(f"{SIZES[name]}={value}")
        elif (name, value) in USUAL:
            continue
        elif value is True:
            words.append(name)
        else:
            words.append(f"{name}={value}")
    return " ".join(words)


def _block(fault: Fault) -> str:
    done = next((COMPLETE[step] for step in fault.cause.before if step in COMPLETE), "")
    what = "the dense MLP" if fault.guards.producer == "dense" else "the block"
    over = " and ".join(COLLECTIVES[site] for site in fault.cause.sites)
    if fault.example.config.moe_dp_size > 1 and "tp_all_reduce" in fault.cause.sites:
        over += ", which holds several copies of the experts"
    reduces = f"{what} reduces over {over}" if over else f"{what} reduces nothing"
    return f"{done}, {reduces}" if done else reduces


def _reader_group(fault: Fault) -> str:
    summed = [COLLECTIVES[step] for step in fault.cause.after if step in COLLECTIVES]
    return summed[0] if summed else "no group of several ranks"


def _effect(fault: Fault, verdict: Verdict) -> str:
    part = "shared expert's parts" if verdict.family == "shared" else "partial sums"
    if verdict.kind == "crash":
        return f"it stops: {verdict.why}"
    if verdict.kind == "mixed":
        return "tensors of different tokens are added to each other"
    worst = max(verdict.counts, key=lambda row: (max(row), row.count(0)))
    if verdict.kind == "double":
        return f"{part} are counted {max(worst)} times"
    return f"each rank lacks {worst.count(0)} of {len(worst)} {part}"


def causes(stories: Sequence[Story]) -> Iterator[tuple[str, ...]]:
    """A line for each story in the table that a person reads; the findings say it in words."""
    for story in stories:
        sites = story.fault.cause.sites
        over = " and ".join(COLLECTIVES[site].removeprefix("the ") for site in sites) or "nothing"
        yield (
            story.verdict.kind,
            "block" if story.own_doing else "surroundings",
            str(len(story.subjects)),
            story.verdict.row,
            in_words(story.deployment),
            f"dense, {over}" if story.fault.guards.producer == "dense" else over,
            story.fault.cause.reader,
        )
