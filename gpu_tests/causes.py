"""The failing deployments that `verify prove` finds, each as a case that shows it on ranks.

Nothing is listed here: the causes are read from the ledger's own run over every legal deployment.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from gpu_tests.blocks import subjects
from gpu_tests.cases import ON_TORCH, Case, Dtype, Kernels
from gpu_tests.expect import guards
from gpu_tests.plan import has_shared_experts, placed_shared
from verify.checks.prove.findings import Story, stories
from verify.checks.prove.judge import judge
from verify.checks.prove.lattice import prove
from verify.checks.prove.report import built_in_subjects
from verify.engines.sglang.layer import RELEASE_0_5_11
from verify.parallel.guards import Guards


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One cause and the block, under its guard, that is run in the cause's smallest deployment.

    Without a `subject` no block can show it, and `why_not` says what is lacking.
    """

    story: Story
    subject: str = ""
    guard: str = ""
    why_not: str = ""

    def cases(self, dtypes: Iterable[Dtype], *, kernels: Kernels = ON_TORCH) -> list[Case]:
        """The cause's cases, one a precision; `kernels` where they take it. None without block."""
        return [
            Case(
                subject=self.subject,
                deployment=self.story.deployment,
                guard=self.guard,
                dtype=dtype,
                kernels=kernels.taking(dtype),
            )
            for dtype in dtypes
            if self.subject
        ]


def causes(*, world_size: int, models: tuple[str, ...] = ()) -> Iterator[Cause]:
    """Those whose smallest deployment has `world_size` ranks, in the order `prove` lists them.

    With `models`, those that one of their blocks shows.
    """
    judged = built_in_subjects()
    tally = prove(judged, max_world_size=world_size)
    for story in stories(tuple(tally.faults.values()), judged, RELEASE_0_5_11):
        if story.deployment.config.tp_size == world_size:
            named = {subject.guards for subject in judged if subject.name in story.subjects}
            cause = _shown(story, named, subjects(models))
            if cause.subject or not models:
                yield cause


def _shown(story: Story, named: Collection[Guards], blocks: Sequence[str]) -> Cause:
    """The first of `blocks`, of those that the cause names, that its deployment is possible for.

    One whose model file puts its shared experts where the deployment has them comes first.
    """
    deployment = story.deployment
    bearers = [
        (subject, guard)
        for guard in ("helper", "oracle")
        for subject in blocks
        if guards(subject, guard) in named
        and judge(deployment, guards(subject, guard)) == story.verdict
    ]
    fitting = [
        (subject, guard)
        for subject, guard in bearers
        if deployment.shared in ("none", "fused") or has_shared_experts(subject)
    ]
    if not fitting:
        lacking = "shared experts" if bearers else "these guards"
        return Cause(story=story, why_not=f"no block that is run here has {lacking}")
    subject, guard = min(
        fitting, key=lambda each: placed_shared(each[0], deployment) != deployment.shared
    )
    return Cause(story=story, subject=subject, guard=guard)
