"""A package that is not there: imports go through, use does not."""

import importlib
import importlib.util
import sys

import pytest

from verify.engines.vllm.serving.inside import absent


@pytest.fixture
def nowhere(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    absent.stand_in("nowhere")
    yield importlib.import_module("nowhere.transforms.v2")
    for name in [name for name in sys.modules if name.partition(".")[0] == "nowhere"]:
        del sys.modules[name]


def test_names_are_imported_looked_up_and_inherited_from(nowhere):
    assert nowhere.functional.Mode.CUBIC.__name__ == "nowhere.transforms.v2.functional.Mode.CUBIC"
    base = nowhere.Normalize
    assert issubclass(type("Mine", (base,), {}), base)


def test_what_is_called_raises_and_says_what_it_was(nowhere):
    with pytest.raises(NotImplementedError, match=r"nowhere\.transforms\.v2\.Normalize: not inst"):
        nowhere.Normalize(0.5)
    mine = type("Mine", (nowhere.Normalize,), {})
    with pytest.raises(NotImplementedError, match=r"Mine: not installed"):
        mine()


def test_a_name_that_python_asks_for_is_not_there(nowhere):
    assert not hasattr(nowhere, "__wrapped__")
    assert not hasattr(nowhere.Normalize, "__wrapped__")


def test_an_installed_package_and_any_other_name_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    absent.stand_in("json")
    assert importlib.util.find_spec("json.decoder").origin.endswith("decoder.py")
    assert importlib.util.find_spec("nowhere") is None
