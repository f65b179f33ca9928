"""`docs/plan.md` is a program: its blocks run in order, in one namespace."""

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from helper import Consumer, MoeConfig, Placement, Plan, plan_layer
from verify.checks.prove.planned import judge_plan, layers_of
from verify.parallel.deployment import Deployment

TEXT = (Path(__file__).parent.parent / "docs" / "plan.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_worked_example_runs():
    namespace = {}
    assert len(BLOCKS) == 3
    for block in BLOCKS:
        exec(compile(block, "docs/plan.md", "exec"), namespace)


def test_the_field_table_names_every_field():
    for field in fields(Plan):
        assert f"`{field.name}`" in TEXT


EVERYONE = MoeConfig(tp_size=4, ep_size=4, attn_dp_size=4, enable_dp_attention=True)
GROUPS = MoeConfig(tp_size=4, attn_dp_size=2, enable_dp_attention=True)
HYBRID = MoeConfig(tp_size=4, ep_size=2)
COPIES = MoeConfig(tp_size=4, attn_cp_size=2, moe_dp_size=2)
DEEPEP = MoeConfig(tp_size=4, ep_size=4, moe_a2a_backend="deepep")
FP4 = replace(EVERYONE, moe_runner_backend="flashinfer_cutlass", quantization="modelopt_fp4")
PLAIN = MoeConfig(tp_size=4)
SHARDED = Placement(over="tp")
# what was found: where, which block, what is added, and how the release answered the plan's field
FOUND = {
    "gpt_oss: the guard knows one of four reasons (#37199)": (
        Deployment(config=EVERYONE, padding="sum_len"), "experts", "none", {"block_sum": "tp"},
    ),
    "qwen3_moe: the EP all-reduce ignores reduce-scatter (#23734)": (
        Deployment(config=EVERYONE), "experts", "none", {"block_sum": "ep"},
    ),
    "glm4_moe: the layer reduce-scatters, the block is never told (#11665)": (
        Deployment(config=GROUPS), "experts", "none", {"block_sum": "tp"},
    ),
    "hybrid EP x MoE-TP with fusion: the fused kernel sums one of two groups (#32963)": (
        Deployment(config=HYBRID, fusion="flashinfer"),
        "experts",
        "none",
        {"consumer": Consumer(step="fused norm", over="ep")},
    ),
    "Qwen3-Next: the last layer leaves its sum to a next layer that is not there": (
        Deployment(config=PLAIN, fusion="flashinfer", position="last"),
        "experts",
        "none",
        {"block_sum": "none"},
    ),
    "fusion at the end of a pipeline stage": (
        Deployment(config=PLAIN, fusion="flashinfer", position="stage-end"),
        "experts",
        "none",
        {"block_sum": "none"},
    ),
    "fusion under attention data parallelism (#11632)": (
        Deployment(config=GROUPS, padding="sum_len", fusion="aiter"),
        "experts",
        "none",
        {"consumer": Consumer(step="fused norm", over="tp")},
    ),
    "qwen3_moe: the EP all-reduce under FP4 all-gather": (
        Deployment(config=FP4), "experts", "none", {"block_sum": "ep"},
    ),
    "LongCat-Flash: zero experts are added once per rank": (
        Deployment(config=PLAIN, fusion="flashinfer"),
        "experts",
        "whole",
        {"whole_on": "every rank"},
    ),
    "shared experts sharded under FP4 all-gather": (
        Deployment(config=FP4), "experts", "shared", {"shared": SHARDED},
    ),
    "shared experts sharded under an all-to-all backend": (
        Deployment(config=DEEPEP), "experts", "shared", {"shared": SHARDED},
    ),
    "shared experts sharded under `--dwdp-size`": (
        Deployment(config=EVERYONE), "fetched", "shared", {"shared": SHARDED},
    ),
    "shared experts lose half under `--moe-dp-size 2`": (
        Deployment(config=COPIES), "experts", "shared", {"shared": SHARDED},
    ),
    "routed experts count twice under `--moe-dp-size 2`": (
        Deployment(config=COPIES), "experts", "none", {"block_sum": "tp"},
    ),
    "dense layers keep the rank's own slice under `--moe-dense-tp-size 1`": (
        Deployment(config=PLAIN, dense_fully_dp=True), "dense", "none", {"dense": SHARDED},
    ),
    "a dense MLP sums other context ranks' tokens (#38078)": (
        Deployment(config=MoeConfig(tp_size=4, attn_cp_size=2), context_parallel_extend=True),
        "dense",
        "none",
        {"block_sum": "tp"},
    ),
    "Kimi K3, Gemma 4: sums over other ranks' tokens under an all-to-all backend": (
        Deployment(config=DEEPEP), "experts", "none", {"block_sum": "tp"},
    ),
}  # fmt: skip
ROWS = re.findall(r"^\| ([^|]+) \| `(\w+)` \| (\w+) \|$", TEXT, re.MULTILINE)


def test_the_table_of_causes_is_what_is_counted():
    assert [found for found, _, _ in ROWS] == list(FOUND)


@pytest.mark.parametrize(("found", "field", "kind"), ROWS)
def test_the_release_s_answer_is_wrong_as_the_table_says_and_the_plan_s_exact(found, field, kind):
    deployment, block, addend, answer = FOUND[found]
    layer = layers_of(deployment, block="dense" if block == "dense" else "experts")[
        block == "fetched"
    ]
    plan = plan_layer(deployment.config, layer)
    assert list(answer) == [field]
    assert getattr(plan, field) != answer[field]
    assert judge_plan(deployment, layer, plan, addend).kind == "exact"
    assert judge_plan(deployment, layer, replace(plan, **answer), addend).kind == kind
