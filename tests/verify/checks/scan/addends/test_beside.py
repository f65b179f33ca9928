"""What ends another layer of the same model, which the model surely has, ends the launch."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.verify.checks.scan.addends.test_launches import CONFIG, knows_it, server

Judge = Callable[..., Any]

ASSERTS = "assert get_parallel().attn_tp_size == get_parallel().tp_size"
# two kinds of layers; an attention, of which the second kind knows nothing, insists on its group
MODEL = """from elsewhere import kernel
from sglang.srt.configs.oak import OakConfig

EntryClass = [OakForCausalLM]


class OakAttention:
    def __init__(self):
        ASSERTS


class OakAttentionLayer:
    def __init__(self, config, layer_id):
        self.attention = OakAttention()


def choose(layer_id, config):
    if ASKED:
        return OakAttentionLayer(config, layer_id)
    return Layer(config, layer_id)


class OakModel:
    def __init__(self, config):
        self.layers = make_layers(config.n, lambda idx, prefix: choose(layer_id=idx, config=config))


class OakForCausalLM:
    def __init__(self, config: OakConfig):
        self.model = OakModel(config)


"""
OLD = "from elsewhere import kernel\n"
BY_NUMBER = "layer_id % 2 == 0"


@pytest.fixture
def scanned(judged: Judge, change: Any) -> Callable[..., Any]:
    def scan(asserts: str = ASSERTS, asked: str = BY_NUMBER, name: str = "Oak") -> Any:
        model = MODEL.replace("ASSERTS", asserts).replace("ASKED", asked)
        model = model.replace("Oak", name).replace("oak", name.lower())
        files = {**server("pass"), f"configs/{name.lower()}.py": CONFIG.replace("Oak", name)}
        return judged((OLD, model), library={**knows_it(change), **files})

    return scan


@pytest.mark.parametrize("name", ["Oak", "Yew"])
def test_what_ends_the_layer_beside_it_is_refused(scanned: Callable[..., Any], name: str) -> None:
    lines = []
    for asserts in (ASSERTS, "pass\n        " + ASSERTS):
        result = scanned(asserts, name=name)
        assert result.rules == []
        ((line,),) = (refused.refused for refused in result.refused)
        place, _, launch = line.partition(": ")
        assert launch == "--tp-size 4 --dwdp-size 4"
        lines.append(int(place.removeprefix("sglang/srt/models/sample.py:")))
    assert lines[1] == lines[0] + 1


@pytest.mark.parametrize(
    ("asserts", "asked"),
    [
        ("pass", BY_NUMBER),
        # whether a model has the other kind is its configuration's
        (ASSERTS, "config.kinds[layer_id] == 0"),
        # and this one is another launch's
        ("assert get_parallel().moe_dp_size == 1", BY_NUMBER),
    ],
)
def test_it_is_a_finding_without_that(
    scanned: Callable[..., Any], asserts: str, asked: str
) -> None:
    result = scanned(asserts, asked)
    assert [rule for rule, _ in result.rules] == ["lost-addend"]
    assert result.refused == ()
