"""Stand-ins for what the platform or a package lacks: nothing but the gap is filled."""

import sys
import types

import pytest

torch = pytest.importorskip("torch")
from verify.engines.sglang.serving.inside import standins  # noqa: E402


def test_an_operator_registered_for_cuda_is_there_on_cpu():
    """The engine's own alone; another library's stays where it is."""
    original = torch.library.Library.impl
    try:
        standins.register_custom_ops()
        with (
            torch.library._scoped_library("sglang", "FRAGMENT") as own,
            torch.library._scoped_library("another", "FRAGMENT") as other,
        ):
            for library in (own, other):
                library.define("twice_for_a_test(Tensor x) -> Tensor")
                library.impl("twice_for_a_test", lambda x: 2 * x, "CUDA")
            assert torch.ops.sglang.twice_for_a_test(torch.ones(1)).item() == 2
            with pytest.raises(NotImplementedError):
                torch.ops.another.twice_for_a_test(torch.ones(1))
    finally:
        torch.library.Library.impl = original


def test_the_release_s_own_configuration_replaces_its_namesake(monkeypatch):
    taken = {}

    class AutoConfig:
        @staticmethod
        def register(model_type, config, *, exist_ok=False):
            if model_type in taken and not exist_ok:
                raise ValueError(model_type)
            taken[model_type] = config

    fake = types.SimpleNamespace(AutoConfig=AutoConfig)
    monkeypatch.setitem(sys.modules, "transformers", fake)
    AutoConfig.register("a", "of transformers")
    with pytest.raises(ValueError, match="a"):
        AutoConfig.register("a", "the release's")
    standins.own_config_names()
    AutoConfig.register("a", "the release's")
    assert taken == {"a": "the release's"}


def test_only_the_type_of_an_override_is_left_out(monkeypatch):
    """What else the release says of such a model stays, and a release without the table."""
    table = {"A": {"dtype": "bfloat16", "window": 4}, "B": {"window": 2}}
    base = types.ModuleType("sglang.srt.arg_groups.model_override_base")
    base.MODEL_OVERRIDES = table
    for name in ("sglang", "sglang.srt", "sglang.srt.arg_groups"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    standins._float32()
    monkeypatch.setitem(sys.modules, base.__name__, base)
    standins._float32()
    assert table == {"A": {"window": 4}, "B": {"window": 2}}


def test_a_backend_s_own_fill_value_is_kept(monkeypatch):
    package = "sglang.srt.layers.attention"
    for name in ("sglang", "sglang.srt", "sglang.srt.layers", package):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))

    class TorchNativeAttnBackend:
        def get_cuda_graph_seq_len_fill_value(self):
            return 7

    class TritonAttnBackend:
        def get_cpu_graph_seq_len_fill_value(self):
            return 5

    class MiniMaxHybridAttnBackend:
        pass

    for name, backend in (
        ("torch_native_backend", TorchNativeAttnBackend),
        ("triton_backend", TritonAttnBackend),
        ("minimax_sparse_backend", MiniMaxHybridAttnBackend),
    ):
        module = types.ModuleType(f"{package}.{name}")
        setattr(module, backend.__name__, backend)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    standins._fill_values()
    native = TorchNativeAttnBackend()
    assert native.get_cuda_graph_seq_len_fill_value() == 7
    assert native.get_cpu_graph_seq_len_fill_value() == 1
    assert TritonAttnBackend().get_cpu_graph_seq_len_fill_value() == 5
    assert MiniMaxHybridAttnBackend().get_cpu_graph_seq_len_fill_value() == 1
