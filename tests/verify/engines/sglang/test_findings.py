"""A finding's launch: what the finding says first, and a reason wherever there is none."""

import pytest

from verify.engines.sglang.serving.findings import asked
from verify.engines.sglang.serving.layouts import every, illegal

MODEL = {"file": "sglang/srt/models/oak.py", "row": "0000"}


def layouts(**finding):
    found = asked({**MODEL, **finding})
    assert not found.why_not
    return [str(layout) for layout in found.layouts]


def why_not(**finding):
    found = asked({**MODEL, **finding})
    assert found.why_not
    assert not found.layouts or all(map(illegal, found.layouts))
    return found.why_not


def test_its_own_launch_comes_first():
    words = ["--model-path", "m", "--tp", "4", "--dp-size=2", "--enable-dp-attention", "--ep", "4"]
    found = asked({**MODEL, "launch": [*words, "--x", "1"], "deployment": {"tp_size": 2}})
    assert ([str(layout) for layout in found.layouts], found.arguments) == (
        ["tp4.dp2.ep4"],
        ("--x", "1"),
    )


def test_a_launch_of_more_ranks_than_fit_says_so():
    assert "tp8" in why_not(launch=["--tp-size", "8"])
    assert "one rank" in why_not(launch=["--x"])


def test_then_its_deployment():
    sizes = {"tp_size": 4, "ep_size": 2, "moe_dp_size": 1, "dp_size": 2, "attn_cp_size": 1}
    assert layouts(deployment={**sizes, "padding": "sum_len", "tokens": "uneven"}) == [
        "tp4.dp2.ep2"
    ]
    assert layouts(deployment={"tp_size": 2, "dense_fully_dp": True}) == ["tp2.dense1"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fusion", "flashinfer"),
        ("moe_a2a_backend", "deepep"),
        ("quantization", "modelopt_fp4"),
        ("position", "stage-end"),
        ("shared", "fused"),
        ("a_new_axis", "x"),
    ],
)
def test_what_a_cpu_has_not_is_named(name, value):
    assert f"{name}={value}" in why_not(deployment={"tp_size": 2, name: value})


@pytest.mark.parametrize(
    ("row", "first"),
    [("0000", "tp2"), ("0100", "tp2.dp2"), ("0010", "tp2.dp2.ep2"), ("0110", "tp2.dp2.ep2")],
)
def test_then_its_row(row, first):
    assert layouts(row=row)[0] == first


@pytest.mark.parametrize("row", ["1000", "0001", "0101", "1111"])
def test_rows_of_kernels_are_nowhere(row):
    assert "CUDA" in why_not(row=row)


@pytest.mark.parametrize(
    ("setting", "layout"),
    [("(moe_dp_size > 1)", "tp2.cp2.moe_dp2"), ("with moe_dense_tp_size 1", "tp2.dense1")],
)
def test_settings_are_read_from_takes_or_the_message(setting, layout):
    assert layouts(message=f"{setting}, the boundary (sglang/srt/x.py:1) is wrong") == [layout]
    assert layouts(takes=[setting], message="with the all-to-all backend x") == [layout]


@pytest.mark.parametrize(
    "setting",
    ["(dwdp_size > 1)", "with the all-to-all backend x", "(several pipeline stages)"],
)
def test_settings_without_a_cpu_form_are_nowhere(setting):
    assert why_not(message=setting)


def test_models_are_files_named_anywhere():
    finding = {"file": "sglang/srt/layers/c.py", "message": "x (sglang/srt/models/elm.py:4) y"}
    assert asked({**finding, "subject": "fir/Fir.forward, yew/Yew.forward"}).models == (
        "elm",
        "fir",
        "yew",
    )
    assert "no model" in asked({"file": "sglang/srt/layers/c.py"}).why_not


def test_every_layout_that_is_asked_for_is_one_the_enumeration_has():
    known = {str(layout) for layout in every()}
    rows = [f"{number:04b}" for number in range(16)]
    for row in rows:
        assert {str(layout) for layout in asked({**MODEL, "row": row}).layouts} <= known


def test_a_part_that_models_import_is_named():
    found = asked({"file": "sglang/srt/models/oak_common/moe.py", "launch": ["--tp-size", "2"]})
    assert found.why_not == "models/oak_common/moe.py is what models import, none itself"
    assert asked({"file": "sglang/srt/layers/moe.py"}).why_not == "it names no model file"
