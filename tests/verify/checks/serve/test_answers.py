"""`--findings`: each finding gets the engine's own answer, and says where there can be none."""

import json

import pytest


@pytest.fixture
def findings(tmp_path):
    def write(*entries):
        file = tmp_path / "scan.json"
        file.write_text(json.dumps({"command": "scan", "findings": list(entries)}))
        return file

    return write


def finding(model, row="0010", **more):
    file = f"sglang/srt/models/{model}.py"
    return {"rule": "lost-sum", "message": "m", "file": file, "line": 1, "row": row, **more}


def said(report):
    return [entry["serve"]["said"] for entry in report["findings"]]


def test_each_answer(serve, findings):
    file = findings(
        finding("wrong"),
        finding("good"),
        finding("refused"),
        finding("missing"),
        finding("wrong", row="1000"),
    )
    assert serve("--findings", file) == 1
    assert said(serve.report) == ["confirmed", "refuted", "refused", "cannot run", "cannot run"]
    confirmed, refuted, refused, missing, nowhere = (
        entry["serve"] for entry in serve.report["findings"]
    )
    assert confirmed["command"].endswith("--model wrong --layout tp2.dp2.ep2")
    assert confirmed["why"] == "1 nats in prefill"
    assert "no such launch" in refused["why"]
    assert "a kernel" in missing["why"]
    assert refuted["command"]
    assert nowhere == {
        "command": None,
        "said": "cannot run",
        "why": "the fused all-reduce and norm is a CUDA kernel (row AF)",
    }


def test_a_finding_keeps_what_it_was(serve, findings):
    entry = finding("wrong", kind="lost", subject="Oak", cls="Oak", fix="sum it")
    assert serve("--findings", findings(entry)) == 1
    (back,) = serve.report["findings"]
    assert {key: back[key] for key in entry} == entry


def test_the_first_layout_that_confirms_is_enough_and_all_must_be_exact_to_refute(serve, findings):
    assert serve("--findings", findings(finding("wrong"), finding("good"))) == 1
    layouts = [(case["model"], case["layout"]) for case in serve.report["cases"]]
    assert layouts == [("wrong", "tp2.dp2.ep2"), ("good", "tp2.dp2.ep2"), ("good", "tp4.dp2.ep2")]


def test_two_findings_of_one_launch_run_it_once(serve, findings):
    assert serve("--findings", findings(finding("wrong"))) == 1
    once = len(serve.ran())
    assert serve("--findings", findings(finding("wrong"), finding("wrong"))) == 1
    assert len(serve.ran()) == 2 * once
    assert said(serve.report) == ["confirmed", "confirmed"]


def test_a_model_chooses_among_findings(serve, findings):
    file = findings(finding("wrong"), finding("good"))
    assert serve("--findings", file, "--model", "good") == 1
    assert said(serve.report) == ["refuted"]
    assert serve("--findings", file, "--model", "other") == 2


@pytest.mark.parametrize("words", [["--layout", "tp2"], ["--all-layouts"], ["--", "--x"]])
def test_a_finding_says_its_own_launch(serve, findings, words):
    assert serve("--findings", findings(finding("wrong")), *words) == 2


def test_a_file_that_is_no_report_is_one_line(serve, tmp_path, capsys):
    file = tmp_path / "scan.json"
    file.write_text("[]")
    assert serve("--findings", file) == 2
    assert "scan.json" in capsys.readouterr().err
