"""Each step that is new to dense layers, all-to-all and contexts, done wrong: ranks disagree."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from gpu_tests.blocks import DENSE
from gpu_tests.cases import Case
from gpu_tests.outcome import Outcome
from gpu_tests.pool import rank_pool
from gpu_tests.work import run_case
from helper import MoeConfig
from verify.engines.sglang import steps
from verify.parallel.deployment import Deployment

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(300)]

LLAMA = "llama4/Llama4MoE.forward"
QWEN = "qwen3_moe/Qwen3MoeSparseMoeBlock.forward_normal"
DATA_PARALLEL = MoeConfig(tp_size=2, ep_size=2, attn_dp_size=2, enable_dp_attention=True)
DEEPEP = MoeConfig(tp_size=2, ep_size=2, moe_a2a_backend="deepep")
CONTEXTS = MoeConfig(tp_size=2, attn_cp_size=2)

VALUES = "values deviate from what the counts say by"
# what is done wrong, in which block and deployment, what that turns out as
WRONG = [
    ("the MLP reduces once more", DENSE.block, Deployment(config=DATA_PARALLEL), "double (x2)"),
    ("the MLP reduces once more", DENSE.block, Deployment(config=DEEPEP), "double (x2)"),
    (
        "the MLP reduces once more",
        DENSE.block,
        Deployment(config=MoeConfig(tp_size=2), dense_fully_dp=True),
        "mixed",
    ),
    ("the MLP reduces once more", QWEN, Deployment(config=DEEPEP), "mixed"),
    (
        "the MLP does not reduce",
        DENSE.block,
        Deployment(config=MoeConfig(tp_size=2)),
        "missing (ranks 0, 1)",
    ),
    (
        "the MLP does not reduce",
        QWEN,
        Deployment(config=CONTEXTS, context_parallel_extend=True),
        "missing (ranks 0, 1)",
    ),
    (
        "all-to-all combine forgets one rank",
        QWEN,
        Deployment(config=DEEPEP),
        "missing (ranks 1)",
    ),
    (
        "all-to-all sends weights beside the wrong experts",
        QWEN,
        Deployment(config=DEEPEP),
        VALUES,
    ),
    (
        "all-to-all counts nothing for ranks without an expert",
        LLAMA,
        Deployment(config=DEEPEP),
        "missing (ranks 0, 1)",
    ),
    (
        "contexts are not gathered",
        QWEN,
        Deployment(config=CONTEXTS, context_parallel_extend=True),
        "mixed",
    ),
    (
        "another context's rows are kept",
        QWEN,
        Deployment(config=CONTEXTS, context_parallel_extend=True),
        "mixed",
    ),
    ("shares are not gathered for attention", QWEN, Deployment(config=DEEPEP), "mixed"),
]


@pytest.fixture
def corrupted(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield import_module("corruptions").corrupted
    sys.modules.pop("corruptions")


def run(work, items):
    with rank_pool(work, world_size=2, deadline=60.0) as pool:
        return [verdicts for _, verdicts in pool.run(items, titles=["x"] * len(items))]


def test_a_step_done_wrong_is_noticed(corrupted):
    cases = [
        Case(subject=subject, deployment=deployment, guard="helper", dtype="float32")
        for _, subject, deployment, _ in WRONG
    ]
    right = run(run_case, cases)
    for case, verdicts in zip(cases, right, strict=True):
        outcome = Outcome.of(case, verdicts)
        assert (outcome.kind, outcome.problem) == ("exact", ""), case.title
    wrong = run(corrupted, [(name, case) for (name, *_), case in zip(WRONG, cases, strict=True)])
    for (name, _, _, seen), case, verdicts in zip(WRONG, cases, wrong, strict=True):
        problem = Outcome.of(case, verdicts).problem
        said = seen if seen == VALUES else f"ranks measure {seen}, the ledger says exact"
        assert problem.startswith(said), name


LEDGER_WRONG = [
    ("all_to_all_experts", steps.routed_experts, QWEN, Deployment(config=DEEPEP)),
    ("dense_mlp", steps.dense_mlp_fully_dp, DENSE.block, Deployment(config=MoeConfig(tp_size=2))),
    (
        "dense_mlp_fully_dp",
        steps.dense_mlp,
        DENSE.block,
        Deployment(config=MoeConfig(tp_size=2), dense_fully_dp=True),
    ),
    (
        "moe_cp_slice",
        lambda scene, state: state,
        QWEN,
        Deployment(config=CONTEXTS, context_parallel_extend=True),
    ),
]


def test_a_ledger_that_takes_a_step_wrong_is_noticed(monkeypatch):
    cases = [
        Case(subject=subject, deployment=deployment, guard="helper", dtype="float32")
        for *_, subject, deployment in LEDGER_WRONG
    ]
    for (name, wrong, *_), case, verdicts in zip(
        LEDGER_WRONG, cases, run(run_case, cases), strict=True
    ):
        assert Outcome.of(case, verdicts).problem == ""
        with monkeypatch.context() as patched:
            patched.setitem(steps.STEPS, name, wrong)
            assert "the ledger says" in Outcome.of(case, verdicts).problem, name
