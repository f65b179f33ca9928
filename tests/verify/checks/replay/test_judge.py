"""Verdicts on what ranks hold: marks tell tokens apart only where they stay proportional."""

from dataclasses import replace

import pytest
import torch

from verify.checks.replay.judge import judge
from verify.emulator.witness import Seen


def seen(rank, worked_on, *, ranks=2):
    """What one of two ranks holds of `part`: both shards once, made from `worked_on`."""
    counts = torch.ones(2, ranks)
    return Seen(
        marks=torch.tensor([1.0, 2.0]),
        found=torch.tensor([1.0, 2.0]),
        counts={"part": counts},
        worked_on={"part": torch.tensor(worked_on)},
        shards={"part": (rank, ranks)},
        slots={"part": 1},
    )


@pytest.mark.parametrize(
    ("alone", "together", "kind"),
    [
        ((1.0, 2.0), (2.0, 4.0), "exact"),
        ((1.0, 2.0), (4.0, 6.0), "mixed"),
        # squared by an activation: nothing is known of the tokens
        ((1.0, 4.0), (2.0, 8.0), "exact"),
    ],
)
def test_sums_over_other_tokens_are_mixed(alone, together, kind):
    reference = seen(0, alone, ranks=1)
    ranks = [seen(0, together), seen(1, together)]
    assert judge(ranks, reference=reference).kind == kind


def test_what_every_rank_adds_in_full_is_drawn_as_often_as_it_counts():
    reference = seen(0, (1.0, 2.0), ranks=1)
    ranks = [replace(seen(rank, (2.0, 4.0)), shards={"part": (0, 1)}) for rank in range(2)]
    judged = judge(ranks, reference=reference)
    assert judged.kind == "double"
    assert judged.counts == [[2.0, 2.0], [2.0, 2.0]]
