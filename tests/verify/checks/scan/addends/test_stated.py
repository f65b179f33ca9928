"""What a server settles for a model before its layers are built, and the option that settles it."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from verify.checks.scan.server.stated import Stated
from verify.engines.sglang.library import LIBRARY
from verify.interpreter.index import Class, Index
from verify.source.source import SourceTree

UTILS = """
class MergedConfig:
    apart: bool
    number: int


def get_exec():
    return _running.exec


def get_num_merged():
    return get_model().merged.number


def resolve_merged(model_class, hf_config, quant_config):
    apart = get_exec().moe.keep_apart
    gate = getattr(model_class, "why_apart", None)
    if not apart:
        reason = gate(hf_config, quant_config) if gate is not None else None
        if reason:
            apart = True
    if apart or gate is None:
        number = 0
    else:
        number = model_class.count(hf_config)
    return MergedConfig(apart=apart, number=number)
"""
MODEL = """
from sglang.srt.layers.merged import get_num_merged
from sglang.srt.utils import is_cuda

_is_cuda = is_cuda()


class OakForCausalLM:
    @classmethod
    def why_apart(cls, hf_config, quant_config):
        if not _is_cuda or torch.cuda.get_device_capability("cuda") < (8, 0):
            return "not here"
        if get_parallel().moe_ep_size > 1:
            return "not split"
        if quant_config and quant_config.get_name() == "fp8":
            return "not so"
        return None

    @classmethod
    def count(cls, hf_config):
        return hf_config.n or 0
"""
CONDITIONS = ("get_num_merged() == 0",)
OPTIONS = {"keep_apart": False, "tp_size": 4, "ep_size": 1}
Source = Callable[..., SourceTree]


def needs(
    source: Source,
    options: dict[str, Any],
    *,
    changed: tuple[str, str] | None = None,
    names: Callable[[str], str] = str,
) -> dict[str, Any]:
    model, utils = MODEL, UTILS
    if changed:
        old, new = changed
        assert old in model + utils
        model, utils = model.replace(old, new), utils.replace(old, new)
    files = {"models/oak.py": names(model), names("layers/merged.py"): names(utils)}
    index = Index(source("", library=files), LIBRARY)
    module = index.module("sglang/srt/models/oak.py")
    assert module is not None
    cls = module.lookup(names("OakForCausalLM"))
    assert isinstance(cls, Class)
    told = {names(name): value for name, value in options.items()}
    stated = Stated(index, {names(name): value for name, value in OPTIONS.items()})
    return dict(stated.needs(cls, [module], map(names, CONDITIONS), told))


def test_what_is_merged_by_itself_is_kept_apart_by_an_option(source: Source) -> None:
    assert needs(source, OPTIONS) == {"keep_apart": True}


@pytest.mark.parametrize(
    "options", [{**OPTIONS, "keep_apart": True}, {**OPTIONS, "ep_size": 4}], ids=["given", "split"]
)
def test_what_is_apart_by_itself_needs_nothing(source: Source, options: dict[str, Any]) -> None:
    assert needs(source, options) == {}


@pytest.mark.parametrize(
    "changed",
    [
        # the model has no gate
        ("def why_apart", "def why"),
        # it never merges them
        ("return None", 'return "never"'),
        # nobody says who settles it
        ("number=number", "**fields"),
        # no option sees to it
        ("if apart or gate", "if gate"),
    ],
)
def test_without_the_gate_nothing_is_needed(source: Source, changed: tuple[str, str]) -> None:
    assert needs(source, OPTIONS, changed=changed) == {}


def test_other_names_change_names_only(source: Source) -> None:
    def other(text: str) -> str:
        return re.sub("(?<=erg)ed|(?<=a)part|Oak", lambda one: f"{one[0]}x", text)

    assert needs(source, OPTIONS, names=other) == {"keep_apartx": True}
