"""A runner takes what a dispatcher hands on, or the forward ends: read from registrations."""

from collections.abc import Callable, Mapping

import pytest

from verify.checks.scan.server.runners import Runners
from verify.engines.sglang.library import LIBRARY
from verify.interpreter.index import Index
from verify.source.source import SourceTree

DISPATCHER = """
class AlderDispatchOutput:
    @property
    def format(self):
        return DispatchOutputFormat.ALDER_LL


class AlderDispatcher:
    def dispatch(self, x):
        return AlderDispatchOutput(x)
"""
ALIAS = """
from sglang.srt.layers.moe.token_dispatcher.alder import AlderDispatchOutput

BirchOutput = AlderDispatchOutput
"""
OAK = """
class OakRunnerCore:
    def __init__(self, config):
        self.config = config
        assert self.config.is_gated


@register_pre_permute("alder_ll", "oak")
def alder_to_oak(x):
    return x
"""
UNQUANTISED = """
class UnquantizedFusedMoEMethod:
    def create_moe_runner(self, layer, config):
        if self.use_oak:
            backend = MoeRunnerBackend.OAK
        else:
            backend = MoeRunnerBackend.PINE
        self.runner = MoeRunner(backend, config)
"""
BASE = """
def get_pre_permute(takes, runner):
    pre_permute_func = methods.get((takes, runner))
    assert pre_permute_func is not None, "not registered"
    return pre_permute_func
"""
LAYERS = {
    "layers/moe/token_dispatcher/alder.py": DISPATCHER,
    "layers/moe/token_dispatcher/birchep.py": ALIAS,
    "layers/moe/moe_runner/oak.py": OAK,
    "layers/moe/moe_runner/base.py": BASE,
    "layers/quantization/unquant.py": UNQUANTISED,
}
Source = Callable[..., SourceTree]


def runners(source: Source, changed: Mapping[str, str] | None = None, block: str = "") -> Runners:
    tree = source(block, library={**LAYERS, **(changed or {})})
    return Runners(Index(tree, LIBRARY))


@pytest.mark.parametrize("backend", ["alder", "birch"])
def test_unquantised_experts_need_another_runner(source: Source, backend: str) -> None:
    read = runners(source)
    assert read.known(backend)
    assert read.instead(backend, {}) == ("oak",)
    assert read.instead(backend, {"moe_runner_backend": "oak"}) is None
    assert read.runs("oak")
    assert not read.runs("elm")
    assert read.ends == "sglang/srt/layers/moe/moe_runner/base.py:4"


@pytest.mark.parametrize(
    "changed",
    [
        # registered for the runner that they get
        {"layers/moe/moe_runner/oak.py": OAK.replace('"alder_ll", "oak"', '"alder_ll", "pine"')},
        {"layers/moe/moe_runner/pine.py": '@register_fused_func("alder", "pine")\n'},
        # which one they get is not known
        {"layers/quantization/unquant.py": ""},
        # what is handed on is not known
        {"layers/moe/token_dispatcher/alder.py": ""},
    ],
)
def test_nothing_is_needed(source: Source, changed: Mapping[str, str]) -> None:
    assert runners(source, changed).instead("alder", {}) is None


def test_a_runner_insists_on_what_the_experts_are(source: Source) -> None:
    read = runners(source, {"models/oak.py": "experts = FusedMoE(is_gated=False)\n"})
    assert read.fit(("oak",), ["sglang/srt/models/oak.py"]) == ()
    assert read.fit(("oak",), ["sglang/srt/layers/moe/moe_runner/base.py"]) == ("oak",)


@pytest.mark.parametrize("asserts", ['== "silu"', 'in ("silu", "situ")'])
@pytest.mark.parametrize(
    ("given", "fits"),
    [('activation="gelu"', False), ('activation="silu"', True), ("activation=config.act", True)],
)
def test_a_runner_insists_on_one_of_some_words(
    source: Source, asserts: str, given: str, *, fits: bool
) -> None:
    path = "layers/moe/moe_runner/oak.py"
    insists = "        assert self.config.is_gated\n"
    assert insists in OAK
    changed = OAK.replace(insists, f"{insists}        assert self.config.activation {asserts}\n")
    model = {"models/oak.py": f"experts = FusedMoE({given})\n"}
    expected = ("oak",) if fits else ()
    assert (
        runners(source, {**model, path: changed}).fit(("oak",), ["sglang/srt/models/oak.py"])
        == expected
    )
    # nobody asserts it
    assert runners(source, model).fit(("oak",), ["sglang/srt/models/oak.py"]) == ("oak",)
