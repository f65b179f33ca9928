"""`verify report` and `verify explain` as typed, and what they answer to mistakes."""

import json
from pathlib import Path

import pytest

from verify.cli.command_line import main


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_report_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "report")
    assert code == 0
    assert out.startswith("sgl-project/sglang#23748: the helper against every original guard\n")
    assert err == (
        "22 sites, 6 differ, 0 unexpected diffs; 10 claims, 4 hold, 5 conditional, 1 fails\n"
    )


def test_quiet_leaves_standard_error_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "report", "--quiet")[2] == ""


FILTERS = {
    ("--model", "deepseek_v2"): 2,
    ("--category", "C"): 3,
    ("--category", "d-ep"): 2,
    ("--model", "hunyuan_v3", "--category", "D-TP"): 2,
}


@pytest.mark.parametrize(("words", "count"), FILTERS.items(), ids=map("".join, FILTERS))
def test_filters(words: tuple[str, ...], count: int, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "report", "--format", "json", *words)
    assert code == 0
    assert len(json.loads(out)["sites"]) == count


MISTAKES = {
    ("report", "--model", "qwen3"): "no model 'qwen3'; did you mean qwen3_moe?",
    ("report", "--model", "qwen4_moe"): "no model 'qwen4_moe'; "
    "did you mean qwen3_moe or qwen2_moe or exaone_moe?",
    ("report", "--model", ""): "no model ''; there are bailing_moe, bailing_moe_linear, "
    "deepseek_v2, exaone_moe, glm4_moe, hunyuan_v3, llada2, llama4, mimo_v2_flash, minimax_m2, "
    "qwen2_moe, qwen3_moe, sarvam_moe, sdar_moe, step3p5",
    ("report", "--category", "E"): "no category 'E'; there are A, B, C, D-EP, D-TP",
    ("report", "--model", "llama4", "--category", "A"): "model llama4 has no site in category A",
    ("explain", "llama4"): "no site 'llama4'; did you mean llama4/Llama4MoE.forward/TP?",
    ("explain", "llama4/Llama4MoE.froward/TP"): "no site 'llama4/Llama4MoE.froward/TP'; "
    "did you mean llama4/Llama4MoE.forward/TP?",
    ("explain", "gpt_oss"): "no site 'gpt_oss'; `python -m verify report` lists them",
    ("report", "--output", "no/such/folder/x"): "cannot write no/such/folder/x: "
    "No such file or directory",
    ("report", "--output", "/"): "cannot write /: Is a directory",
}


@pytest.mark.parametrize(("words", "message"), MISTAKES.items(), ids=range(len(MISTAKES)))
def test_a_mistake_is_one_line_and_2(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out, err) == (2, "", f"verify: {message}\n")


def test_judging_adds_whose_answer_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "report", "--judge", "--format", "json")
    assert code == 0
    payload = json.loads(out)
    assert payload["judged"]["max_ranks"] == 8
    verdicts = {claim["id"]: claim["verdict"] for claim in payload["claims"]}
    assert (verdicts["latent-fixes"], verdicts["fi-and-ep"]) == ("conditional", "fails")


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "explain", "llama4/Llama4MoE.forward/TP")
    assert code == 0
    assert out.startswith("llama4/Llama4MoE.forward/TP, row by row\n")
    assert err == "16 rows, 1 expected and 0 unexpected diffs\n"


def test_output_goes_to_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "report.json"
    target.write_text("what was here before")
    code, out, _ = run(capsys, "report", "--format", "json", "--output", str(target))
    assert (code, out) == (0, "")
    assert json.loads(target.read_text(encoding="utf-8"))["schema_version"] == 2
    assert list(tmp_path.iterdir()) == [target]
