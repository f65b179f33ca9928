"""One rank of the real 0.5.23 against transformers' own model, through ``load_weights``."""

import os
from pathlib import Path

import pytest

from verify.checks.serve.session import Engine, Session
from verify.checks.serve.source import locate
from verify.engines.sglang.serving import ENGINE

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

PYTHON = os.environ.get("SERVE_PYTHON")
RELEASE = "0.5.23"
DRIVE = "verify.engines.sglang.serving.inside.checkpoint"
# nats; two implementations of one model, both float32, gave at most 1e-4 (granitemoe)
NEAR = 5e-4
FAR = 0.1
SAMPLES = Path(__file__).parent / "samples"
MODELS = (
    "qwen3_moe",
    "glm4_moe",
    "glm4_moe_lite",
    "qwen2_moe",
    "mixtral",
    "olmoe",
    "granitemoe",
    "mellum",
    "minimax_m2",
    "DeepseekV3ForCausalLM",
)
DOUBLED = """
import sglang.srt.models.qwen3_moe as q
forward = q.Qwen3MoeSparseMoeBlock.forward
q.Qwen3MoeSparseMoeBlock.forward = lambda *a, **k: 2 * forward(*a, **k)
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    if PYTHON is None:
        pytest.skip("SERVE_PYTHON is not set")
    scratch = tmp_path_factory.mktemp("source")
    engine = Engine(
        python=Path(PYTHON),
        drive=DRIVE,
        source=locate(f"sglang=={RELEASE}", engines=[ENGINE], scratch=scratch).folder,
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


def test_gpt_oss_decodes_over_one_key_fewer_than_its_window(session, distance):
    whole = str(SAMPLES / "decode_window_whole.py")
    assert distance(session, "gpt_oss", engine=ENGINE) > FAR
    assert distance(session, "gpt_oss", engine=ENGINE, patch=whole) < NEAR
