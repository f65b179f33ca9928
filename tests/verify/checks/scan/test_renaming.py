"""No verdict depends on what a model, class, method or variable is called."""

import io
import keyword
import random
import tokenize
from collections.abc import Callable
from typing import Any

import pytest

from verify.checks.scan.scan import ScanResult
from verify.engines.sglang import vocabulary as primitives

Scan = Callable[..., ScanResult]

# what upstream's blocks are called with and by; everything else may be renamed
KNOWN = {
    *primitives.COLLECTIVES,
    *primitives.FLAG_FUNCTIONS,
    *primitives.FLAG_NAMES,
    *primitives.COMMUNICATOR_FLAGS,
    *primitives.EXPERT_LAYERS,
    primitives.COMMUNICATOR,
    primitives.COMMUNICATOR_EXIT,
    primitives.FUSION_MARK,
    primitives.ALLOW,
    primitives.ROW_LINEAR,
    "should_skip_post_experts_all_reduce",
    "get_tensor_model_parallel_world_size",
    "is_tp_path",
    "is_last_layer",
    "skip_all_reduce",
    "reduce_results",
    "RMSNorm",
    "prepare_mlp",
    "forward",
    "__init__",
    "self",
    "sglang",
    "srt",
    "layers",
    "moe",
    "utils",
    "linear",
    "communicator",
    "layernorm",
    "experts",
    "distributed",
    "hidden_states",
}


def renamed(text: str, seed: int) -> str:
    """`text` with every other identifier replaced by a random one."""
    draw = random.Random(seed)
    names: dict[str, str] = {}
    found = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        word = token.string
        free = token.type == tokenize.NAME and not keyword.iskeyword(word) and word not in KNOWN
        if free and word not in names:
            letters = "".join(draw.choices("abcdefghijklmnop", k=9))
            names[word] = letters.capitalize() if word[0].isupper() else letters
        found.append((token.type, names[word] if free else word))
    return tokenize.untokenize(found)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("broken", [False, True])
def test_verdicts_survive_renaming(scanned: Scan, sample: Any, seed: int, broken: bool) -> None:
    block = sample.block
    if broken:
        block = sample.changed(block, "            use_reduce_scatter=use_reduce_scatter,\n", "")
    before = scanned(block, sample.layer)
    text = renamed(sample.head + block + sample.layer, seed)
    assert "Block" not in text
    after = scanned(text.removeprefix(sample.head))
    assert verdicts(after) == verdicts(before)
    assert len(before.findings) == int(broken)


def verdicts(result: ScanResult) -> list[tuple[object, ...]]:
    sites = [(s.verdict, s.site.collective, s.site.skips_on) for s in result.sites]
    return [*sites, *((f.rule, f.kind, f.row) for f in result.findings)]
