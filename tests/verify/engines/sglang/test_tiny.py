"""Tiny configurations: which models have experts, and what their files read."""

import importlib.util
import json
import pickle
import sys
import types

import pytest

from verify.engines.sglang.serving.inside import gpu, tiny
from verify.engines.sglang.serving.inside.tiny_families import ENTRIES

DENSE = """
class Mlp: pass
class DenseForCausalLM:
    def __init__(self, config): self.mlp = Mlp(config.hidden_size)
"""
MIXED = """
class Block:
    def __init__(self, config):
        self.experts = get_moe_impl_class(config)(config.num_experts, config.strange_key)
        self.scale = config.emb_scale if hasattr(config, "emb_scale") else 1
class Layer:
    def __init__(self, config, layer):
        self.sliding = config.layer_types[layer] == "sliding_attention"
        self.block = Block(config)
class MixedForCausalLM:
    def __init__(self, config: "MixedConfig"): self.layer = Layer(config, 0)
class MixedForCausalLMNextN(MixedForCausalLM): pass
"""


class PretrainedConfig:
    model_type = ""

    def __init__(self, **values):
        self.__dict__.update(values)

    def to_dict(self):
        return dict(vars(self))


class ComputedConfig(PretrainedConfig):
    model_type = "mixed"

    def __init__(self, **values):
        for name, value in ({"num_hidden_layers": 12} | values).items():
            setattr(self, name, value)

    @property
    def layer_types(self):
        return ["full_attention"] * self.num_hidden_layers

    def to_dict(self):
        return dict(vars(self)) | {"layer_types": self.layer_types}


class MixedConfig(PretrainedConfig):
    model_type = "mixed"

    def __init__(self, **values):
        kinds = ["full_attention"] * 12
        default = {"num_hidden_layers": 12, "layer_types": kinds, "sliding_window": 99, "odd": 3}
        super().__init__(**(default | values))
        if len(self.layer_types) != self.num_hidden_layers:
            raise ValueError("a kind for every layer")


def load(name, text, folder):
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(f"sglang.srt.models.{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def engine(monkeypatch, tmp_path):
    """A registry with a dense model and a mixture; a transformers with one configuration."""
    kept = dict(sys.modules)
    models = [load("dense", DENSE, tmp_path), load("mixed", MIXED, tmp_path)]
    registry = {n: c for m in models for n, c in vars(m).items() if "ForCausalLM" in n}
    known = types.SimpleNamespace(models=registry, get_supported_archs=lambda: registry)
    registered = []
    mapping = type("Mapping", (dict,), {"_extra_content": {}})({"mixed": MixedConfig})
    auto = {
        "configuration_auto": {"CONFIG_MAPPING": mapping, "CONFIG_MAPPING_NAMES": {"mixed": ""}},
        "modeling_auto": {
            "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": {"mixed": "MixedForCausalLM"},
            "MODEL_MAPPING_NAMES": {},
        },
    }
    fakes = {f"transformers.models.auto.{name}": values for name, values in auto.items()}
    fakes["sglang.srt.models.registry"] = {"ModelRegistry": known}
    fakes["sglang.srt.utils.hf_transformers_utils"] = {"_CONFIG_REGISTRY": {}}
    fakes["transformers"] = {
        "PretrainedConfig": PretrainedConfig,
        "AutoConfig": types.SimpleNamespace(register=lambda *a, **k: registered.append(a)),
    }
    for name, values in fakes.items():
        module = types.ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(tiny, "_REACHED", {})
    monkeypatch.setattr(tiny, "_TREES", {})
    yield types.SimpleNamespace(known=mapping, registered=registered)
    for name in set(sys.modules) - set(kept):
        if name.startswith("sglang.srt.models."):
            del sys.modules[name]


def test_a_mixture_is_told_by_what_it_builds(engine):
    assert tiny.architectures() == {
        "MixedForCausalLM": "mixed",
        "MixedForCausalLMNextN": "mixed",
    }


def test_a_configuration_from_its_class(engine, tmp_path):
    tiny.write("mixed", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["MixedForCausalLM"]
    assert config["model_type"] == "mixed"
    assert (config["hidden_size"], config["vocab_size"], config["num_experts"]) == (128, 256, 8)
    assert config["layer_types"] == ["sliding_attention", "full_attention"] * 2
    assert 0 < config["sliding_window"] < 10, "shorter than the prompts, or it is not active"
    assert config["odd"] == 3
    assert config["tiny_absent"] == ["strange_key"]
    assert config["tiny_attention"] == "torch_native"
    assert "emb_scale" not in config, "what is asked for with hasattr must not appear"
    assert engine.registered == []


@pytest.mark.parametrize(("sizes", "dtype"), [({}, "float32"), (gpu.SIZES, "bfloat16")])
def test_a_configuration_says_the_dtype_of_its_device(engine, tmp_path, monkeypatch, sizes, dtype):
    """GPT-OSS makes its router in the configuration's dtype, whatever the server's."""
    monkeypatch.setattr(tiny, "SIZES", tiny.SIZES | sizes)
    tiny.write("mixed", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["dtype"], config["torch_dtype"]) == (dtype, dtype)


def test_a_configuration_from_what_the_file_reads(engine, tmp_path):
    engine.known.clear()
    sys.modules["transformers.models.auto.configuration_auto"].CONFIG_MAPPING_NAMES = {}
    tiny.write("MixedForCausalLM", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["hidden_size"], config["num_experts"]) == (128, 8)
    assert "strange_key" in config["tiny_absent"]
    ((kind, generic),) = engine.registered
    assert kind == "mixed"
    assert pickle.loads(pickle.dumps(generic)) is generic, "rank 0 hands it to the others"


def test_what_a_class_computes_it_is_not_told(engine, tmp_path):
    engine.known["mixed"] = ComputedConfig
    tiny.write("mixed", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["layer_types"] == ["full_attention"] * 4


def test_a_class_that_refuses_is_named(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "_per_layer", lambda default, cls: {})
    with pytest.raises(ValueError, match="MixedForCausalLM: MixedConfig refused: a kind for every"):
        tiny.write("mixed", tmp_path)


def test_a_file_s_mixture_comes_before_its_dense_class(monkeypatch):
    names = ["HuForCausalLM", "HuMoeForCausalLM", "HuMoeForCausalLMNextN", "HuMoeModel"]
    monkeypatch.setattr(tiny, "_registry", lambda: {name: type(name, (), {}) for name in names})
    monkeypatch.setattr(tiny, "_file", lambda _: "hu")
    monkeypatch.setattr(tiny, "_builds_experts", lambda _: True)
    assert tiny._architecture("hu") == "HuMoeForCausalLM"


def test_a_model_without_experts_is_named(engine, tmp_path):
    with pytest.raises(LookupError, match="dense: no architecture that builds experts"):
        tiny.write("dense", tmp_path)


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_every_entry_has_its_reason(name):
    assert len(ENTRIES[name].why.split()) > 5
