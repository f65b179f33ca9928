"""What `prove` found, as one value for every renderer."""

from collections.abc import Sequence

from verify.checks.prove.findings import Story, causes, drawn, in_words, stories
from verify.checks.prove.lattice import Tally, prove
from verify.checks.prove.subject import Subject, dense_subject, helper_subjects, oracle_subjects
from verify.engines.ledger import Release
from verify.errors import VerifyError
from verify.report.render.words import counted, few
from verify.report.report import Json, RanksSection, Report, Section, TableSection


def built_in_subjects() -> tuple[Subject, ...]:
    """The helper, every oracle and the dense MLP beside them."""
    return (*helper_subjects(), *oracle_subjects(), dense_subject())


def build(
    subjects: Sequence[Subject],
    *,
    release: Release,
    max_ranks: int,
    only: Sequence[str] = (),
    workers: int = 1,
    left_out: Sequence[str] = (),
) -> Report:
    """Judge those of `subjects` whose names contain one of the texts in `only`."""
    subjects = chosen(subjects, only)
    tally = prove(subjects, max_world_size=max_ranks, release=release, workers=workers)
    told = stories(tuple(tally.faults.values()), subjects, release)
    own = sum(story.own_doing for story in told)
    return Report(
        command="prove",
        title=f"Exactly once, on every legal deployment of 1 to {max_ranks} ranks",
        summary=(
            f"{counted(len(subjects), 'subject')}, {counted(tally.deployments, 'deployment')}, "
            f"{counted(tally.cases, 'case')}: {counted(len(told), 'cause')}, "
            f"{own} in a block, {len(told) - own} in what is around it"
        ),
        payload={
            "max_ranks": max_ranks,
            "release": release.name,
            "deployments": tally.deployments,
            "cases": tally.cases,
            "programs": tally.programs,
            "subjects": [_subject(subject, tally) for subject in subjects],
            "causes": [_cause(story) for story in told],
            "left_out": left_out,
        },
        sections=(_causes(told), *_worst(told), _coverage(subjects, tally, left_out)),
        findings=tuple(story.finding for story in told),
    )


def chosen(subjects: Sequence[Subject], only: Sequence[str]) -> tuple[Subject, ...]:
    """Subjects whose name contains one of the texts; all when there are none."""
    if "" in only:
        raise VerifyError("--subject is empty: leave it out to judge all")
    kept = tuple(s for s in subjects if not only or any(text in s.name for text in only))
    if not kept:
        known = few(", ".join(subject.name for subject in subjects))
        raise VerifyError(f"--subject {' '.join(only)}: no such subject; known: {known}")
    return kept


def _subject(subject: Subject, tally: Tally) -> dict[str, Json]:
    kinds: dict[str, int] = {}
    for (guards, _), numbers in tally.kinds.items():
        if guards == subject.guards:
            for kind, number in numbers.items():
                kinds[kind] = kinds.get(kind, 0) + number
    return {"name": subject.name, "producer": subject.guards.producer, "cases": kinds}


def _cause(story: Story) -> dict[str, Json]:
    return {
        "kind": story.verdict.kind,
        "whose": "block" if story.own_doing else "surroundings",
        "subjects": story.subjects,
        "deployments": story.deployments,
        "deployment": story.deployment.as_json(),
        "steps": story.verdict.steps,
        "message": story.finding.message,
    }


def _causes(told: Sequence[Story]) -> TableSection:
    return TableSection(
        title="What is not counted exactly once, by cause",
        columns=(
            "verdict",
            "whose",
            "subjects",
            "row",
            "smallest deployment",
            "block reduces over",
            "then",
        ),
        rows=tuple(causes(told)),
        more=True,
        notes=(
            "then: what is left to complete the sum. whose: block where it could have answered "
            "better by the flags it is given, surroundings where no answer is right or the later "
            "step that a flag promises fails. The findings say each cause in words.",
        ),
    )


def _worst(told: Sequence[Story]) -> tuple[Section, ...]:
    """The counts of the smallest deployment in which more than two ranks differ."""
    countable = [story for story in told if len(story.verdict.counts) > 2] or [
        story for story in told if story.verdict.counts
    ]
    if not countable:
        return ()
    story = countable[0]
    return (
        RanksSection(
            title=f"Counts per rank: {in_words(story.deployment)}",
            groups=drawn(story.deployment),
            counts=story.verdict.counts,
            notes=(story.finding.message,),
        ),
    )


def _coverage(subjects: Sequence[Subject], tally: Tally, left_out: Sequence[str]) -> TableSection:
    return TableSection(
        title="Coverage",
        columns=("what", "how many"),
        rows=(
            ("subjects", str(len(subjects))),
            ("different guards among them", str(len({subject.guards for subject in subjects}))),
            ("legal deployments", str(tally.deployments)),
            ("cases (subject x deployment)", str(tally.cases)),
            ("programs run for them", str(tally.programs)),
        ),
        notes=(
            "Not covered: attention data parallelism together with context parallelism, "
            "scattered attention inputs, the sparse attention's own prefill context parallelism, "
            "two-batch overlap, speculative draft models, customized all-to-all backends.",
            *(f"Left out: {text}." for text in left_out),
        ),
    )
