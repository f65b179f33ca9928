"""The experts' layer is built with its backend's dispatcher, and runs what that hands on."""

import re
from collections.abc import Callable, Mapping

import pytest

from verify.checks.scan.server.experts import Experts
from verify.checks.scan.server.runners import Runners
from verify.engines.sglang.library import LIBRARY
from verify.interpreter.index import Index
from verify.source.source import SourceTree

UTILS = """
from enum import Enum


class OakMode(Enum):
    WIDE = "wide"
    NARROW = "narrow"
    BOTH = "both"

    def wide(self):
        return self in [OakMode.WIDE, OakMode.BOTH]


def get_oak_mode() -> OakMode:
    return get_flags().oak_mode
"""
DISPATCHER = """
class AlderDispatchOutput:
    @property
    def format(self):
        return DispatchOutputFormat.ALDER


class AlderDispatcher:
    def __init__(self, mode):
        self.mode = mode
        if self.mode.wide():
            raise NotImplementedError("not yet")

    def dispatch(self, x):
        return AlderDispatchOutput(x)
"""
LAYER = """
from sglang.srt.layers.moe.token_dispatcher.alder import AlderDispatcher
from sglang.srt.layers.moe.utils import get_oak_mode


class Experts:
    def __init__(self, quant_config=None):
        self.quant_config = quant_config
        if get_moe_a2a_backend().is_alder():
            self.dispatchers = [AlderDispatcher(mode=get_oak_mode()) for _ in range(copies())]


class DeepEPMoE(Experts):
    def __init__(self, quant_config=None):
        super().__init__(quant_config=quant_config)
        backend = self.quant_method.get_moe_runner_backend(self)
        self.old = quant_config is None and not backend.is_oak()

    def run_moe_core(self, dispatch_output):
        if self.old:
            assert False, "gone"
        return dispatch_output


def get_moe_impl_class(quant_config):
    return DeepEPMoE
"""
FILES = {
    "layers/moe/utils.py": UTILS,
    "layers/moe/token_dispatcher/alder.py": DISPATCHER,
    "layers/moe/ep_moe/layer.py": LAYER,
}
REFUSAL = 'raise NotImplementedError("not yet")'
Source = Callable[..., SourceTree]
LAUNCH = {"moe_a2a_backend": "alder", "moe_runner_backend": "auto", "oak_mode": "both"}
ALDER = "sglang/srt/layers/moe/token_dispatcher/alder.py"


def read(source: Source, files: Mapping[str, str]) -> tuple[Experts, Runners]:
    index = Index(source("", library=files), LIBRARY)
    return Experts(index), Runners(index)


def renamed(text: str) -> str:
    return re.sub("(?i)(?<=o)ak", "ld", re.sub("wide", "broad", text))


def test_a_dispatcher_that_has_no_answer_ends_the_launch_and_another_option_starts_it(
    source: Source,
) -> None:
    experts, _ = read(source, FILES)
    assert str(experts.ends(LAUNCH)) == f"{ALDER}:12"
    assert experts.others(LAUNCH) == ({"oak_mode": "narrow"},)
    assert experts.ends({**LAUNCH, "oak_mode": "narrow"}) is None
    # the backend does not have it
    assert experts.ends({**LAUNCH, "moe_a2a_backend": "none"}) is None


@pytest.mark.parametrize(
    ("old", "new"), [(REFUSAL, "pass"), ("if self.mode.wide():", "if elsewhere():")]
)
def test_what_does_not_surely_end_is_taken(source: Source, old: str, new: str) -> None:
    assert old in DISPATCHER
    experts, _ = read(source, {**FILES, ALDER[11:]: DISPATCHER.replace(old, new)})
    assert experts.ends(LAUNCH) is None
    assert experts.others(LAUNCH) == ()


def test_other_names_change_names_only(source: Source) -> None:
    experts, _ = read(source, {path: renamed(text) for path, text in FILES.items()})
    launch = {renamed(name): value for name, value in LAUNCH.items()}
    assert str(experts.ends(launch)) == f"{ALDER}:12"
    assert experts.others(launch) == ({"old_mode": "narrow"},)


def test_experts_that_are_not_quantised_end_in_their_forward(source: Source) -> None:
    experts, runners = read(source, FILES)
    launch = {**LAUNCH, "oak_mode": "narrow"}
    handed = runners.handed("alder")
    assert len(handed) == 1
    ends = experts.unquantised(launch, "pine", handed)
    assert str(ends) == "sglang/srt/layers/moe/ep_moe/layer.py:21"
    # this runner's are another matter
    assert experts.unquantised(launch, "oak", handed) is None
    gone = {**FILES, "layers/moe/ep_moe/layer.py": LAYER.replace("assert False", "assert True")}
    experts, runners = read(source, gone)
    assert experts.unquantised(launch, "pine", runners.handed("alder")) is None
