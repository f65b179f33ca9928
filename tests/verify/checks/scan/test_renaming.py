"""No verdict depends on what a model, class, method or variable is called."""

import io
import keyword
import random
import tokenize
from collections.abc import Callable, Collection
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


class Names:
    """A random name for every identifier that is not among `known`, the same wherever it is."""

    def __init__(self, seed: int, *, known: Collection[str] = KNOWN) -> None:
        self._draw = random.Random(seed)
        self._known = known
        self._names: dict[str, str] = {}

    def of(self, word: str) -> str:
        """The name that `word` has now."""
        if keyword.iskeyword(word) or word in self._known:
            return word
        if word not in self._names:
            letters = "".join(self._draw.choices("abcdefghijklmnop", k=9))
            self._names[word] = letters.capitalize() if word[0].isupper() else letters
        return self._names[word]

    def renamed(self, text: str) -> str:
        """A source file with all of them."""
        lines = text.splitlines(keepends=True)
        # from the last to the first, so that every other token keeps its place
        for token in reversed([*tokenize.generate_tokens(io.StringIO(text).readline)]):
            if token.type == tokenize.NAME:
                (row, start), (_, end) = token.start, token.end
                line = lines[row - 1]
                lines[row - 1] = line[:start] + self.of(token.string) + line[end:]
        return "".join(lines)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("broken", [False, True])
def test_verdicts_survive_renaming(scanned: Scan, sample: Any, seed: int, broken: bool) -> None:
    block = sample.block
    if broken:
        block = sample.changed(block, "            use_reduce_scatter=use_reduce_scatter,\n", "")
    before = scanned(block, sample.layer)
    text = Names(seed).renamed(sample.head + block + sample.layer)
    assert "Block" not in text
    after = scanned(text.removeprefix(sample.head))
    assert verdicts(after) == verdicts(before)
    assert len(before.findings) == int(broken)


def verdicts(result: ScanResult) -> list[tuple[object, ...]]:
    sites = [(s.verdict, s.site.collective, s.site.skips_on) for s in result.sites]
    return [*sites, *((f.rule, f.kind, f.row) for f in result.findings)]
