"""What every rank holds in full may not go into a sum that is completed later."""

from collections.abc import Callable
from typing import Any

import pytest

Judge = Callable[..., Any]


def test_sound_model_is_clean(judged: Judge, change: Any) -> None:
    result = judged()
    assert result.rules == []
    assert result.untold == ()


def test_complete_value_added_before_the_sum_counts_once_a_rank(judged: Judge, change: Any) -> None:
    result = judged(change.before_the_sum())
    assert result.rules == [("replicated-addend", "0000")]
    (finding,) = result.findings
    assert (finding.cls, finding.method) == ("Block", "forward")
    assert "it counts once for every rank" in finding.sums
    assert finding.fix is not None


def test_who_sums_it_up_is_named(judged: Judge, change: Any) -> None:
    """The block's own reduction does, and not the communicator that takes its output."""
    (finding,) = judged(change.before_the_sum()).findings
    assert finding.sums.startswith("tensor_model_parallel_all_reduce in models/")


@pytest.mark.parametrize(
    "addition",
    [
        "        out += identity_part(x, weights, config.kind)\n",
        "        out.add_(identity_part(x, weights, config.kind).to(out.device))\n",
        "        out = torch.add(out, identity_part(x, weights, config.kind))\n",
        "        part = identity_part(x, weights, config.kind) * config.scale\n"
        "        out = part.view(-1) + out * config.scale\n",
        "        if x.shape[0] > 0:\n            out = out + kernel(x, weights)\n",
        "        out = out + x\n",
    ],
)
def test_however_it_is_added(judged: Judge, change: Any, addition: str) -> None:
    assert judged(change.before_the_sum(addition)).rules == [("replicated-addend", "0000")]


@pytest.mark.parametrize(
    "addition",
    [
        "        if get_parallel().tp_rank == 0:\n            out = out + x\n",
        "        if one_rank_adds_all_reduce():\n            out = out + x\n",
        "        if self.tp_size == 1 or get_parallel().tp_rank == 0:\n            out = out + x\n",
        "        out = out + x / self.tp_size\n",
        "        out = out * torch.sigmoid(x)\n",
        "        out = out + torch.zeros_like(x)\n",
        "        out = out + 1e-6\n",
    ],
    ids=["rank 0", "a helper", "one rank or rank 0", "divided", "gate", "zeros", "constant"],
)
def test_what_counts_once_or_is_no_addend(judged: Judge, change: Any, addition: str) -> None:
    assert judged(change.before_the_sum(addition)).rules == []


@pytest.mark.parametrize(
    "addition",
    [
        "        out = out + kernel(x, self.weight)\n",
        "        out = out + self.other(x)\n",
        "        out = out + rank_slice(x)\n",
    ],
    ids=["with weights", "an unknown module", "an unknown function"],
)
def test_unknown_addend_is_counted_and_not_judged(
    judged: Judge, change: Any, addition: str
) -> None:
    result = judged(change.before_the_sum(addition))
    assert result.rules == []
    assert len(result.untold) == 1


def test_function_that_asks_for_its_rank_is_not_taken_for_replicated(
    judged: Judge, change: Any
) -> None:
    slices = "def identity_part(x, weights, kind):\n    return x if get_rank() == 0 else x * 0\n"
    library = {"layers/moe/identity.py": slices}
    result = judged(change.before_the_sum(), library=library)
    assert result.rules == []
    assert len(result.untold) == 1


def test_names_do_not_matter(judged: Judge, change: Any) -> None:
    result = judged(change.before_the_sum(), renamed=change.names)
    assert result.rules == [("replicated-addend", "0000")]


AT_ONCE = """        self.attn_stage, self.ffn_stage = append_stages(
            (declare_attn(group="attn_tp"), self.norm), (declare_ffn(sparse=sparse), self.norm)
        )
"""
ONE_BY_ONE = """        stages, norms = [], []
        if not config.skips_attention[layer_id]:
            stages.append(declare_attn(group="attn_tp"))
            norms.append(self.norm)
        stages.append(declare_ffn(sparse=sparse))
        norms.append(self.norm)
        made = list(zip(stages, norms, strict=True))
        if made:
            self.ffn_stage = append_stages(*made)[-1]
"""


def test_stages_may_be_put_together_by_configuration(judged: Judge, change: Any) -> None:
    behind = (*change.stages, (AT_ONCE, ONE_BY_ONE), change.never_summed)
    assert judged(*behind).rules == [("replicated-addend", "0000")]
    assert judged(*behind, change.added_once).rules == []


def test_a_sum_for_a_stage_that_nobody_knows_is_not_passed_over(judged: Judge, change: Any) -> None:
    unknown = AT_ONCE.partition(" = ")[0] + " = append_stages(*config.stages(layer_id))\n"
    with pytest.raises(AssertionError, match="which stage is config"):
        judged(*change.stages, (AT_ONCE, unknown), change.never_summed)
