"""A model's configuration is written again where a case that failed has left its folder behind."""

import types

import pytest

pytest.importorskip("torch")
from verify.engines.sglang.serving.inside import drive as sglang
from verify.engines.vllm.serving.inside import drive as vllm


@pytest.mark.parametrize("drive", [sglang, vllm], ids=["sglang", "vllm"])
def test_the_second_case_is_told_its_own_reason(tmp_path, monkeypatch, drive):
    reasons = iter(("no experts", "no norm"))

    def write(model, into):
        raise ValueError(next(reasons))

    tiny = types.SimpleNamespace(write=write)
    monkeypatch.setattr(drive.importlib, "import_module", lambda name: tiny)
    case = {"write": "oak", "into": str(tmp_path / "oak-0"), "seed": 0}
    for reason in ("no experts", "no norm"):
        with pytest.raises(ValueError, match=reason):
            drive.prepare(case, tmp_path)
