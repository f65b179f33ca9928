"""A picture is added between layers by the released engine: to the residual, or to a part of a sum.

The kernel that makes the sum and the norm in one is replaced by its arithmetic, on CPU ranks.
SERVE_PYTHON names a Python with the packages; SERVE_RELEASES a folder with the releases unpacked.
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from verify.cli import command_line
from verify.engines.sglang.serving.inside import pictures
from verify.engines.sglang.serving.inside.record import CUT

PYTHON = os.environ.get("SERVE_PYTHON")
RELEASES = os.environ.get("SERVE_RELEASES")
SAMPLES = Path(__file__).parent / "samples"
FUSED = (SAMPLES / "fused_norm_on_cpu.py").read_text(encoding="utf-8")
REPAIRED = FUSED + (SAMPLES / "picture_after_the_sum.py").read_text(encoding="utf-8")
TWICE = """
from sglang.srt.models import qwen3_vl_moe as model
own = model.Qwen3MoeLLMModel.get_deepstack_embeds
def twice(self, *given):
    said = own(self, *given)
    ranks = self.layers[0].layer_communicator._context.tp_size
    return said if said is None else ranks * said
model.Qwen3MoeLLMModel.get_deepstack_embeds = twice
"""


def outcome(tmp_path, release, patch):
    if PYTHON is None:
        pytest.skip("SERVE_PYTHON is not set")
    source = str(Path(RELEASES, release)) if RELEASES else f"sglang=={release}"
    output, file = tmp_path / "report.json", tmp_path / "patch.py"
    file.write_text(patch, encoding="utf-8")
    words = ["--python", PYTHON, "--model", "qwen3_vl_moe", "--layout", "tp2"]
    words += ["--patch", str(file), "--format", "json", "--output", str(output)]
    command_line.main(["serve", source, *words])
    (case,) = json.loads(output.read_text(encoding="utf-8"))["cases"]
    return case["outcome"]


@pytest.fixture
def picture(monkeypatch):
    """What `pictures.seen` makes of a prompt, with the engine's two records as they come."""
    scheduled = SimpleNamespace(
        MultimodalDataItem=lambda **named: SimpleNamespace(
            **named, pad_value=10**6, set_pad_value=lambda: None
        ),
        MultimodalInputs=SimpleNamespace,
        Modality=SimpleNamespace(IMAGE="image"),
    )
    monkeypatch.setitem(sys.modules, "sglang.srt.managers.schedule_batch", scheduled)

    def seen(prompt, seed):
        model = torch.nn.Linear(1, 1)
        model.config, model.deepstack_visual_indexes = SimpleNamespace(hidden_size=8), [0, 1, 2]
        text, inputs = pictures.seen(model, list(range(100, 110)), prompt=prompt, seed=seed)
        return text, inputs.mm_items[0]

    return seen


def test_a_picture_has_tokens_on_both_sides_of_the_cached_prefix(picture):
    text, item = picture(0, 0)
    assert text == [100, 101, 10**6, 10**6, 10**6, 105, 106, 107, 108, 109]
    ((first, last),) = item.offsets
    assert first < CUT <= last
    assert item.precomputed_embeddings.shape == (3, 8 * 4)


def test_a_picture_is_the_same_on_every_rank_and_another_in_every_prompt(picture):
    said, again = (picture(3, 1)[1].precomputed_embeddings for _ in range(2))
    assert torch.equal(said, again)
    for prompt, seed in ((4, 1), (3, 2)):
        assert not torch.equal(said, picture(prompt, seed)[1].precomputed_embeddings)


@pytest.mark.engine
@pytest.mark.ranks
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("release", "patch", "wanted"),
    [
        pytest.param("0.5.17", "", "exact", id="added to the residual"),
        pytest.param("0.5.17", TWICE, "diverged", id="added once for every rank"),
        pytest.param("0.5.17", FUSED, "diverged", id="lost before a fused norm"),
        pytest.param("0.5.17", REPAIRED, "exact", id="in the residual of a fused norm"),
        pytest.param("0.5.20", "", "exact", id="added to a sum"),
        pytest.param("0.5.20", FUSED, "diverged", id="added to every part of a sum"),
        pytest.param("0.5.20", REPAIRED, "exact", id="in the residual instead"),
    ],
)
def test_a_picture_is_added_once(tmp_path, release, patch, wanted):
    assert outcome(tmp_path, release, patch) == wanted
