"""Small sources with the faults of public bugs: each fault is found, whatever its names are.

A sample is the files in which it differs from the sound part of `mini_sglang`.
"""

import builtins
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.verify.checks.scan.test_renaming import KNOWN, Names
from verify.checks.scan.scan import scan
from verify.engines.sources import open_source

SAMPLES = Path(__file__).parent / "shared_samples"
SOUND = Path(__file__).parents[3] / "samples" / "mini_sglang"
FAULTY = "cedar.py"
# what upstream calls its own, beside what its blocks are called with and by
UPSTREAM = {
    "add_",  # torch's
    "Enum",
    "MoeA2ABackend",
    "RadixAttention",
    "attention",
    "attn_cp_all_gather",
    "attn_cp_reduce_scatter",
    "dp_attention",
    "dp_reduce_scatter_tensor",
    "dp_reduce_scatterv",
    "dp_scatter",
    "enum",
    "fused_moe",
    "get_moe_a2a_backend",
    "is_deepep",
    "is_flashinfer",
    "is_mori",
    "is_none",
    "models",
    "postprocess_layer",
    "server_args",
    "tensor_model_parallel_all_reduce",
}


def found(root: Path) -> set[tuple[str, int | None, str | None, str]]:
    with open_source(str(root)) as tree:
        return {(f.file or "", f.line, f.row, f.rule) for f in scan(tree).findings}


def said(sample: str) -> dict[str, Any]:
    return dict(json.loads((SAMPLES / sample / "expected.json").read_text()))


def expected(sample: str) -> set[tuple[str, int | None, str | None, str]]:
    return {(r["file"], r["line"], r["row"], r["rule"]) for r in said(sample)["expected"]}


def sound(root: Path) -> Path:
    """What samples differ from, written to `root`."""
    return Path(shutil.copytree(SOUND, root, ignore=shutil.ignore_patterns(FAULTY)))


def written(sample: str, root: Path) -> Path:
    """The whole source of a sample, written to `root`."""
    whole = Path(shutil.copytree(SAMPLES / sample, sound(root), dirs_exist_ok=True))
    for file in said(sample).get("leaves_out", ()):
        (whole / file).unlink()
    return whole


def test_what_samples_differ_from_is_sound(tmp_path: Path) -> None:
    assert found(sound(tmp_path / "source")) == set()


@pytest.mark.parametrize("sample", sorted(path.name for path in SAMPLES.iterdir()))
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_fault_is_found_and_nothing_else(tmp_path: Path, sample: str, seed: int | None) -> None:
    root = written(sample, tmp_path / "source")
    wanted = expected(sample)
    if seed is not None:
        names = Names(seed, known=KNOWN | UPSTREAM | set(dir(builtins)))
        for path in sorted(root.rglob("*.py")):
            path.write_text(names.renamed(path.read_text()))
            path.rename(path.with_stem(names.of(path.stem)))
        wanted = {
            (str(Path(file).with_stem(names.of(Path(file).stem))), *rest) for file, *rest in wanted
        }
    assert found(root) == wanted


# by sample: a file, what is wrong in it, and what is right there
RIGHT = {
    "dense_under_context_parallel": (
        "layers/communicator.py",
        "self.sparse and prefill_is_context_parallel()",
        "prefill_is_context_parallel()",
    ),
    "fuse_under_attention_dp": (
        "layers/communicator.py",
        "return batch.small",
        "return not attention_is_data_parallel() and batch.small",
    ),
    "unnamed_backend": (
        "models/hazel.py",
        "or get_moe_a2a_backend().is_flashinfer()",
        "or not get_moe_a2a_backend().is_none()",
    ),
}


@pytest.mark.parametrize("sample", RIGHT)
def test_a_sample_without_its_fault_is_clean(tmp_path: Path, sample: str) -> None:
    name, wrong, right = RIGHT[sample]
    root = written(sample, tmp_path / "source")
    file = root / "sglang/srt" / name
    assert wrong in file.read_text()
    file.write_text(file.read_text().replace(wrong, right))
    assert found(root) == set()


EXPERTS = """from sglang.srt.layers.moe.utils import get_moe_a2a_backend


def dispatcher_of(config):
    return Standard() if {asked} else Moving()


class FusedMoE:
    def __init__(self, config, reduce_results=False):
        self.dispatcher = dispatcher_of(config)

    def forward(self, hidden_states):
        return self.dispatcher.combine(self.apply(self.dispatcher.dispatch(hidden_states)))
"""


@pytest.mark.parametrize(
    ("asked", "rules"),
    [("get_moe_a2a_backend().is_none()", {"reduces-after-combine"}), ("config.plain", set())],
)
def test_experts_that_ask_for_no_backend_combine_nothing(tmp_path, asked, rules):
    root = written("unnamed_backend", tmp_path / "source")
    model = root / "sglang/srt/models/hazel.py"
    head, _, _ = model.read_text().partition("        self.communicator = ")
    forward = "\n    def forward(self, hidden_states):\n        return self.mlp(hidden_states)\n"
    model.write_text(head.replace("A layer with", "A layer without") + forward)
    (root / "sglang/srt/layers/moe/fused_moe.py").write_text(EXPERTS.format(asked=asked))
    assert {rule for *_, rule in found(root)} == rules
