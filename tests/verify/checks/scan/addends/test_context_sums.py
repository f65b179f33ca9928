"""A dense MLP sums over ranks of a context group, each of which has tokens of its own (#38078)."""

from collections.abc import Callable
from typing import Any

import pytest

Judge = Callable[..., Any]

PLAIN = "else ScatterMode.FULL\n            )\n        return"
GATHERED = (
    "else ScatterMode.GATHERED\n"
    "                if get_parallel().attn_cp_size > 1\n"
    "                else ScatterMode.FULL\n            )\n        return"
)
DENSE = "return ScatterMode.SCATTERED if enable_moe_dense_fully_dp() else ScatterMode.FULL"
DENSE_TOO = (
    "return ScatterMode.SCATTERED if enable_moe_dense_fully_dp() "
    "else ScatterMode.GATHERED if get_parallel().attn_cp_size > 1 else ScatterMode.FULL"
)
RUNNER = (
    "from sglang.srt.layers.cp.split import cp_shard_inputs\n\nbatch = cp_shard_inputs(batch)\n"
)
SPLIT = "def cp_shard_inputs(batch):\n    return batch.part if envs.SPLITS.get() else batch\n"


@pytest.fixture
def library(change: Any) -> dict[str, str]:
    """A source that gathers a sparse layer's rows over its context ranks, and no dense layer's."""
    path = "layers/communicator.py"
    text = change.library[path].replace("FULL = auto()", "FULL = auto()\n    GATHERED = auto()")
    assert PLAIN in text
    assert DENSE in text
    return {
        path: text.replace(PLAIN, GATHERED),
        "layers/cp/split.py": SPLIT,
        "model_executor/runner.py": RUNNER,
    }


def test_rows_that_only_sparse_layers_are_gathered_for(
    judged: Judge, library: dict[str, str]
) -> None:
    (finding,) = judged(library=library).findings
    assert (finding.rule, finding.kind, finding.row) == ("sums-local-rows", "mixed", "0000")
    assert (finding.cls, finding.method) == ("Mlp", "forward")
    assert "context group" in finding.message
    assert finding.needs == (
        "attention context parallelism, of which this model's code says nothing",
    )
    dense_too = library["layers/communicator.py"].replace(DENSE, DENSE_TOO)
    assert judged(library={**library, "layers/communicator.py": dense_too}).rules == []


def test_a_source_that_gathers_for_no_layer_is_not_judged(
    judged: Judge, library: dict[str, str]
) -> None:
    nobody = {name: text for name, text in library.items() if "communicator" not in name}
    assert judged(library=nobody).rules == []


def test_a_split_that_models_make_is_theirs_alone(judged: Judge, library: dict[str, str]) -> None:
    alone = {name: text for name, text in library.items() if "runner" not in name}
    assert judged(library=alone).rules == []
    other = {**alone, "models/other.py": RUNNER}
    assert judged(library=other).rules == []
    imports = "from elsewhere import kernel\n"
    own = (imports, f"{imports}{RUNNER}")
    assert judged(own, library=alone).rules == [("sums-local-rows", "0000")]


def test_a_layer_with_another_communicator_for_it_is_not_judged(
    judged: Judge, library: dict[str, str]
) -> None:
    path = "layers/communicator.py"
    others = "\n\nclass Other(LayerCommunicator):\n    pass\n"
    imports = "import LayerCommunicator, LayerScatterModes\n"
    may = (
        (imports, "import LayerCommunicator, LayerScatterModes, Other\n"),
        ("self.comm = LayerCommunicator(", "self.comm = (Other if on() else LayerCommunicator)("),
    )
    changed = {**library, path: library[path] + others}
    assert judged(library=changed).rules == [("sums-local-rows", "0000")]
    assert judged(*may, library=changed).rules == []
