"""`python -m verify prove`: what it prints, writes and exits with."""

import json
import re

import pytest

from verify.cli.command_line import main


def prove(capsys, *words):
    code = main(["prove", "--max-ranks", "4", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_findings_exit_with_1_and_the_coverage_is_printed(capsys):
    code, out, err = prove(capsys)
    assert code == 1
    assert len(out.splitlines()) <= 300
    assert "legal deployments" in out
    assert "Not covered: attention data parallelism together with context parallelism" in out
    assert re.search(
        r"^41 subjects, [\d,]+ deployments, [\d,]+ cases: 38 causes, \d+ in a block, ", err
    )


def test_all_of_it_is_there_when_asked_for(capsys):
    _, short, _ = prove(capsys)
    _, out, _ = prove(capsys, "--all")
    causes = [line for line in out.splitlines() if re.match(r"\d+\. ", line)]
    assert causes[0].startswith("1. ")
    assert f"{len(causes)} causes, " in out
    assert len(causes) > sum(bool(re.match(r"\d+\. ", line)) for line in short.splitlines())
    table = "What is not counted exactly once, by cause"
    assert (table in out, table in short) == (True, False)


def test_json_keeps_the_contract(capsys):
    _, out, _ = prove(capsys, "--format", "json")
    report = json.loads(out)
    assert report["schema_version"] == 2
    assert report["deployments"] > 10_000
    assert report["cases"] == sum(sum(s["cases"].values()) for s in report["subjects"])
    for finding in report["findings"]:
        assert finding["kind"] in {"double", "missing", "mixed", "crash"}
        assert finding["deployment"]["tp_size"] <= 4
        assert finding["message"]
        assert set(finding["row"]) <= set("01")
        assert (finding["kind"] == "crash") == (not finding["counts"])


def test_output_does_not_change(capsys):
    assert prove(capsys, "--format", "json")[1] == prove(capsys, "--format", "json")[1]


def test_only_some_subjects(capsys):
    _, out, _ = prove(capsys, "--format", "json", "--subject", "hunyuan")
    names = [subject["name"] for subject in json.loads(out)["subjects"]]
    assert names
    assert all("hunyuan" in name for name in names)


def test_one_of_a_kind_is_said_as_one(capsys):
    _, _, err = prove(capsys, "--subject", "helper (EP and TP sites)")
    assert err.startswith("1 subject, ")


def test_nobody_to_judge(capsys):
    code, _, err = prove(capsys, "--subject", "nobody")
    assert code == 2
    assert err.startswith("verify: --subject nobody: no such subject; known: ")
    assert len(err) < 400


@pytest.mark.parametrize("ranks", ["0", "-3", "257"])
def test_a_world_that_cannot_be(capsys, ranks):
    code = main(["prove", "--max-ranks", ranks])
    assert code == 2
    assert capsys.readouterr().err == f"verify: --max-ranks {ranks}: choose from 1 to 256\n"


def test_one_rank_holds(capsys):
    assert main(["prove", "--max-ranks", "1"]) == 0
    assert "0 causes" in capsys.readouterr().err


def test_a_reviewed_list_holds_the_line(capsys, tmp_path):
    _, saved, _ = prove(capsys, "--format", "json")
    expected = tmp_path / "expected.json"
    expected.write_text(saved)
    assert prove(capsys, "--expect", str(expected))[0] == 0
    report = json.loads(saved)
    news = report["findings"].pop()
    expected.write_text(json.dumps(report))
    code, out, _ = prove(capsys, "--expect", str(expected))
    assert code == 1
    assert news["message"].split(": ")[-1] in " ".join(out.split())
