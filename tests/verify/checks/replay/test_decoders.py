"""Decoder layers are found by what they build, wherever it is defined."""

import pytest

from verify.checks.replay.decoders import AttentionName, Models
from verify.emulator.tree import SourceFiles
from verify.engines.sources import open_source

BLOCK = """
class Block(nn.Module):
    def __init__(self, config):
        self.experts = get_moe_impl_class(config)(config)
"""
LAYER = """
class Layer(nn.Module):
    def __init__(self, config):
        self.self_attn = Attention(config)
        self.mlp = Block(config)
        self.attn_norm = Norm(config)

    def forward(self, positions, hidden_states, forward_batch):
        hidden_states, index = self.self_attn(hidden_states)
        return self.mlp(hidden_states)
"""
STACK = """
class Model(nn.Module):
    def __init__(self, config):
        self.layers = [{layer}(config)]

    def forward(self, input_ids, positions, forward_batch):
        return input_ids
"""
ELM = BLOCK + LAYER + STACK.format(layer="Layer")


@pytest.fixture
def decoders(tmp_path):
    def find(model, **files):
        for name, text in files.items():
            file = tmp_path / "sglang" / "srt" / "models" / (name.replace("__", "/") + ".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        models = Models(SourceFiles(open_source(str(tmp_path))))
        return [*models.decoders(model)]

    return find


def test_a_layer_is_what_builds_a_block(decoders):
    (layer,) = decoders("elm", elm=ELM)
    assert (layer.cls, layer.stacks, layer.boundary) == ("Layer", ("Model",), False)
    assert layer.attention == (AttentionName(home="elm", name="Attention", outputs=2),)
    assert decoders("oak", oak=ELM.replace("get_moe_impl_class", "Dense")) == []


def test_a_draft_stacks_another_files_layer(decoders):
    draft = "from sglang.srt.models.elm import Layer\n" + STACK.format(layer="Layer")
    (layer,) = decoders("elm_draft", elm=ELM, elm_draft=draft)
    assert (layer.model, layer.home, layer.cls) == ("elm_draft", "elm", "Layer")
    assert layer.attention == (AttentionName(home="elm", name="Attention", outputs=2),)


def test_a_layer_inherits_what_it_builds(decoders):
    heir = "from sglang.srt.models.elm import Layer\n\nclass Heir(Layer):\n    pass\n"
    (layer,) = decoders("heir", elm=ELM, heir=heir + STACK.format(layer="Heir"))
    assert (layer.home, layer.cls) == ("heir", "Heir")
    assert layer.attention == (AttentionName(home="elm", name="Attention", outputs=2),)


def test_a_model_in_a_folder_is_found(decoders):
    (layer,) = decoders("big.elm", big__elm=ELM)
    assert layer.file == "sglang/srt/models/big/elm.py"


def test_a_layer_may_be_chosen_by_a_function(decoders):
    chosen = "\ndef layer_class(index):\n    return Layer\n" + STACK.format(layer="layer_class(0)")
    (layer,) = decoders("elm", elm=BLOCK + LAYER + chosen)
    assert layer.stacks == ("Model",)


def test_a_layer_that_decides_by_the_model_type_is_built_as_each(decoders):
    deciding = LAYER.replace(
        "        self.mlp = Block(config)\n",
        '        if config.model_type == "elm_dense":\n            self.mlp = Dense(config)\n'
        '        elif config.model_type in ("elm_moe",):\n            self.mlp = Block(config)\n',
    )
    stack = STACK.format(layer="Layer")
    found = decoders("elm", elm=BLOCK + deciding + stack)
    assert [layer.model_type for layer in found] == [None, "elm_dense", "elm_moe"]
    refusing = deciding.replace(
        "        self.attn_norm",
        "        else:\n            raise ValueError(config.model_type)\n        self.attn_norm",
    )
    found = decoders("elm", elm=BLOCK + refusing + stack)
    assert [layer.model_type for layer in found] == ["elm_dense", "elm_moe"]


def test_a_layer_that_is_its_own_attention_keeps_it(decoders):
    (layer,) = decoders("elm", elm=ELM.replace("Attention(", "RadixAttention("))
    assert layer.attention == ()


def test_a_class_that_is_also_built_elsewhere_is_no_attention(decoders):
    twice = ELM.replace(
        "self.attn_norm = Norm(config)",
        "self.attn_streams = Streams(config)\n        self.mlp_streams = Streams(config)",
    )
    (layer,) = decoders("elm", elm=twice)
    assert [attention.name for attention in layer.attention] == ["Attention"]


def test_who_only_asks_the_boundary_has_none(decoders):
    asks = "from sglang.srt.layers.layer_boundary import is_dense_ffn_fully_dp, declare_ffn\n"
    for used, expected in (("is_dense_ffn_fully_dp", False), ("declare_ffn", True)):
        text = asks + ELM.replace("self.mlp = Block(config)", f"self.mlp = Block({used}())")
        (layer,) = decoders("elm", elm=text)
        assert layer.boundary is expected


def test_a_model_without_experts_is_only_executed_when_asked_for(tmp_path):
    file = tmp_path / "sglang" / "srt" / "models" / "ash.py"
    file.parent.mkdir(parents=True)
    file.write_text(ELM.replace("get_moe_impl_class", "Dense"))
    models = Models(SourceFiles(open_source(str(tmp_path))))
    assert [*models.decoders("ash")] == []
    assert [layer.cls for layer in models.asked_for("ash")] == ["Layer"]


def test_imports_and_bases_that_go_in_circles_end(decoders):
    loop = "\nclass First(Second):\n    pass\n\n\nclass Second(First):\n    pass\n"
    elm = "from sglang.srt.models.oak import Block\n" + LAYER + STACK.format(layer="Layer")
    oak = "from sglang.srt.models.elm import Block\n"
    assert decoders("elm", elm=elm, oak=oak) == []
    round_about = ELM.replace(
        "self.mlp = Block", "self.first = First(config)\n        self.mlp = Block"
    )
    (decoder,) = decoders("elm", elm=loop + round_about, oak=oak)
    assert decoder.cls == "Layer"
