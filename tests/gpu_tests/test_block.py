"""Routers, blocks and the reference against each other and against the plain definitions."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpu_tests.block import MoEBlock, Shard, whole_weights
from gpu_tests.reference import draw_inputs, model, solve
from gpu_tests.routing import route
from gpu_tests.specs import SPECS, widened
from oracles import SITES

models = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def shards_for(ep, tp):
    return tuple(
        Shard(
            ep_rank=rank // tp,
            ep_size=ep,
            tp_rank=rank % tp,
            tp_size=tp,
            shared_rank=rank,
            shared_size=ep * tp,
        )
        for rank in range(ep * tp)
    )


def test_there_is_a_specification_for_every_model_with_a_site():
    assert set(SPECS) == {site.model for site in SITES}


@models
def test_specifications_can_be_routed(spec):
    assert spec.experts % spec.groups == 0
    assert spec.top_k <= spec.experts // spec.groups * spec.group_top_k
    assert spec.experts <= spec.public_experts
    assert spec.top_k % spec.group_top_k == 0


def plain_route(logits, bias, spec):
    """One token, by the definition, with lists."""
    scores = logits.softmax(-1) if spec.scoring == "softmax" else logits.sigmoid()
    choice = scores if bias is None else scores + bias
    size = spec.experts // spec.groups
    groups = [list(range(g * size, (g + 1) * size)) for g in range(spec.groups)]
    if spec.groups > 1:
        groups.sort(key=lambda g: -sum(sorted((float(choice[e]) for e in g), reverse=True)[:2]))
        groups = groups[: spec.group_top_k]
    allowed = sorted((e for g in groups for e in g), key=lambda e: -float(choice[e]))
    chosen = allowed[: spec.top_k]
    total = sum(float(scores[e]) for e in chosen) if spec.renormalise else 1.0
    return {e: float(scores[e]) / total * spec.routed_scaling for e in chosen}


@models
@given(seed=st.integers(0, 2**32 - 1))
def test_routing_is_the_definition(spec, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, spec.experts, generator=generator, dtype=torch.float64)
    bias = torch.randn(spec.experts, generator=generator, dtype=torch.float64) / 10
    bias = bias if spec.bias else None
    choice = route(logits, bias, spec)
    for row in range(3):
        expected = plain_route(logits[row], bias, spec)
        found = dict(zip(choice.ids[row].tolist(), choice.weights[row].tolist(), strict=True))
        assert found == pytest.approx(expected)


@given(seed=st.integers(0, 2**32 - 1))
def test_nothing_smaller_than_the_margin_changes_the_choice(seed):
    spec = SPECS["deepseek_v2"]
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, spec.experts, generator=generator, dtype=torch.float64)
    choice = route(logits, torch.zeros(spec.experts), spec)
    # a sigmoid score moves by a quarter of its logit at most, and a group's by two scores
    shift = 0.9 * choice.margin.min() * torch.rand(logits.shape, generator=generator) / 2
    moved = route(logits + 2 * shift, torch.zeros(spec.experts), spec)
    assert choice.ids.sort(-1).values.tolist() == moved.ids.sort(-1).values.tolist()


@models
@pytest.mark.parametrize(("ep", "tp"), [(1, 1), (4, 1), (1, 4), (2, 2)])
def test_partial_sums_add_up_to_the_whole_block(spec, ep, tp):
    weights = whole_weights(spec)
    x = torch.randn(5, spec.hidden, generator=torch.Generator().manual_seed(3)).double()
    whole = MoEBlock(spec, weights, Shard())
    choice = whole.choose(x)
    parts = [MoEBlock(spec, weights, shard) for shard in shards_for(ep, tp)]
    total = sum(part.routed(x, choice.ids, choice.weights) for part in parts)
    torch.testing.assert_close(total, whole.routed(x, choice.ids, choice.weights))
    if spec.shared:
        torch.testing.assert_close(sum(part.shared(x) for part in parts), whole.shared(x))
    else:
        assert whole.shared(x) is None


@models
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_block_is_the_reference(spec, dtype):
    """Two implementations: one bmm over all experts, and term by term with error bounds."""
    shards = shards_for(2, 2)
    m = model(spec, dtype, shards)
    inputs, truth = draw_inputs(m, tokens=6, attention_ranks=2)
    residual = (inputs.parts.sum(0) + inputs.residual).to(dtype)
    normed = torch.nn.functional.rms_norm(residual.double(), (spec.hidden,), m.norm, 1e-6).to(dtype)
    for number, shard in enumerate(shards):
        block = MoEBlock(spec, whole_weights(spec).to(dtype), shard)
        choice = block.choose(normed)
        partial = block.routed(normed, choice.ids, choice.weights).double()
        error = (partial - truth.routed.value[number]).abs()
        assert (error <= 4 * truth.routed.noise[number]).all()


@models
def test_drawn_tokens_are_routed_safely_and_everywhere(spec):
    m = model(spec, torch.bfloat16, shards_for(2, 1))
    inputs, _ = draw_inputs(m, tokens=8, attention_ranks=1)
    _, safety = solve(m, inputs)
    assert (safety >= 1).all()


def test_weights_do_not_depend_on_the_process():
    script = (
        "from gpu_tests.block import whole_weights\n"
        "from gpu_tests.specs import SPECS\n"
        "print(float(whole_weights(SPECS['qwen3_moe']).gate.sum()))\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    other = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    assert float(other.stdout) == float(whole_weights(SPECS["qwen3_moe"]).gate.sum())


def test_wide_specifications_keep_the_structure():
    for spec in SPECS.values():
        assert replace(widened(spec), hidden=spec.hidden, intermediate=spec.intermediate) == spec
