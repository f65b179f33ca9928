"""One rank of vLLM 0.32.0 against transformers' own model, through ``load_weights``."""

import os
import subprocess
from pathlib import Path

import pytest

from verify.checks.serve.session import Engine, Session
from verify.engines.vllm.serving import ENGINE

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

PYTHON = os.environ.get("VLLM_PYTHON")
DRIVE = "verify.engines.vllm.serving.inside.checkpoint"
# nats; two implementations of one model, both float32
NEAR = 5e-4
FAR = 0.1
MODELS = (
    "qwen3_moe",
    "qwen2_moe",
    "mixtral",
    "granitemoe",
    "granitemoeshared",
    "granitemoehybrid",
    "glm4_moe",
    "glm4_moe_lite",
    "minimax_m2",
    "gpt_oss",
    "ernie4_5_moe",
    "dots1",
    "afmoe",
    "qwen3_next",
    "nemotron_h",
    "hy_v3",
    "mellum",
    "solar_open",
    "jamba",
    "olmoe_plain",
    "deepseek_v2_plain",
    "exaone_moe_windows",
    "lfm2_moe_tied",
    "cohere2_moe_tied",
)
SAMPLES = Path(__file__).parent / "samples"
DOUBLED = """
from vllm.model_executor.models.qwen3_moe import Qwen3MoeSparseMoeBlock as block
forward = block.forward
block.forward = lambda *a, **k: 2 * forward(*a, **k)
"""


@pytest.fixture(scope="module")
def session():
    if PYTHON is None:
        pytest.skip("VLLM_PYTHON is not set")
    where = [PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    ran = subprocess.run(where, capture_output=True, text=True, timeout=60, check=True)
    engine = Engine(
        python=Path(PYTHON),
        drive=DRIVE,
        source=Path(ran.stdout.strip()),
        variables=ENGINE.variables,
    )
    with Session(engine) as session:
        session.start()
        yield session


@pytest.mark.parametrize("model", MODELS)
def test_one_rank_says_what_transformers_says(session, distance, model):
    assert 0 < distance(session, model, engine=ENGINE) < NEAR


def test_a_sum_taken_twice_is_far_from_it(session, distance, tmp_path):
    patch = tmp_path / "doubled.py"
    patch.write_text(DOUBLED)
    assert distance(session, "qwen3_moe", engine=ENGINE, patch=str(patch)) > FAR


def test_a_bias_that_phimoe_loads_and_never_adds_is_seen_and_with_it_added_it_agrees(
    session, distance
):
    patch = str(SAMPLES / "phimoe_bias.py")
    assert distance(session, "phimoe_biases", engine=ENGINE) > FAR
    assert distance(session, "phimoe_biases", engine=ENGINE, patch=patch) < NEAR
