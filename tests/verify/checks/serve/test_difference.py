"""`serve --diff`: what became of each case, from saved results and from two sources."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from verify.checks.serve.case import Case, Result
from verify.checks.serve.difference import difference, side
from verify.checks.serve.layout import parse
from verify.cli import command_line
from verify.errors import VerifyError
from verify.report.render import RENDERERS, render

SAMPLES = Path(__file__).parent / "samples"


def result(outcome, *, release="toy 2", module=None, layout="tp2"):
    far = 3.0 if outcome == "diverged" else None
    return Result(
        release=release,
        case=Case(model="m", layout=parse(layout)),
        launch=("--tp-size", "2"),
        outcome=outcome,
        dlogprob=far,
        steps={"prefill": far} if far else {},
        module=module,
        reason="a kernel" if outcome in ("cannot-run", "refused") else None,
    )


def report(old, new, *, named=False):
    before = side("A", [result("exact", layout="tp4"), *old], builders=["b"])
    after = side("B", [result("exact", layout="tp4"), *new], builders=["b"])
    return difference(before, after, named=named)


@pytest.mark.parametrize(
    ("old", "new", "change", "rule"),
    [
        ("exact", "exact", "same", None),
        ("exact", "diverged", "broken", "serve-diverged"),
        ("refused", "sizes-differ", "broken", "serve-sizes-differ"),
        ("cannot-run", "diverged", "broken", "serve-diverged"),
        ("diverged", "exact", "fixed", None),
        ("diverged", "diverged", "same", None),
        ("diverged", "sizes-differ", "elsewhere", "serve-sizes-differ"),
        ("diverged", "refused", "other", None),
        ("exact", "refused", "other", None),
        ("exact", "cannot-run", "other", "not-analysed"),
        ("diverged", "ill-conditioned", "other", "not-analysed"),
        ("cannot-run", "exact", "other", None),
        ("cannot-run", "cannot-run", "same", None),
    ],
)
def test_what_became_of_a_case(old, new, change, rule):
    made = report([result(old)], [result(new)])
    assert [case["change"] for case in made.payload["cases"]] == ["same", change]
    assert [finding.rule for finding in made.findings] == ([rule] if rule else [])


def test_a_divergence_that_begins_in_another_module_is_another_one():
    made = report([result("diverged", module="a")], [result("diverged", module="b")])
    assert made.payload["cases"][1]["change"] == "elsewhere"
    assert [finding.rule for finding in made.findings] == ["serve-diverged"]


def test_a_case_that_one_side_lacks_was_not_compared():
    for old, new in (([result("exact")], []), ([], [result("exact")])):
        made = report(old, new)
        assert made.payload["cases"][1]["change"] == "one side"
        assert [finding.rule for finding in made.findings] == ["not-analysed"]


def test_a_case_asked_for_by_name_that_neither_can_run_is_a_finding():
    sides = [result("cannot-run")], [result("cannot-run")]
    assert not report(*sides).findings
    assert [finding.rule for finding in report(*sides, named=True).findings] == ["not-analysed"]


def test_nothing_judged_on_either_side_is_no_comparison():
    nothing = side("A", [result("cannot-run")], builders=["b"])
    with pytest.raises(VerifyError, match="no case was judged on either side: a kernel"):
        difference(nothing, nothing, named=False)


@pytest.mark.parametrize("name", list(RENDERERS))
def test_it_is_told_in_every_format(name):
    made = report([result("exact")], [result("diverged", release="toy 3")])
    text = render(made, format_name=name, terminal=False)
    assert "tp2" in text
    assert "diverged" in text


@pytest.fixture
def diff(tmp_path):
    """Runs `serve --diff`; `diff.save(name, results...)` writes saved ones."""

    def run(*words):
        output = tmp_path / "diff.json"
        words = ["serve", "--diff", *words, "--format", "json", "--output", output, "-q"]
        code = command_line.main([str(word) for word in words])
        run.report = json.loads(output.read_text()) if code < 2 else None
        return code

    def save(name, *results, builder="b", **more):
        rows = [
            {
                **each.as_json(),
                "source": each.release,
                "builder": builder,
                "arguments": [],
                "patch_digest": None,
                "thorough": False,
                **more,
            }
            for each in results
        ]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / name

    run.save = save
    return run


def test_saved_results_are_compared_without_serving(diff, capsys):
    old = diff.save("old.jsonl", result("exact"), result("diverged", layout="tp4"))
    new = diff.save("new.jsonl", result("exact"), result("exact", layout="tp4"))
    assert diff(old, new) == 0
    assert [case["change"] for case in diff.report["cases"]] == ["same", "fixed"]
    assert diff(new, old) == 1
    assert diff.report["findings"][0]["subject"] == "m:tp4"
    assert command_line.main(["serve", "--diff", str(old), str(new)]) == 0
    assert "A was wrong and B is exact" in capsys.readouterr().out


def test_the_last_row_of_a_case_counts_and_other_tools_are_said(diff, capsys):
    old = diff.save("old.jsonl", result("diverged"), result("exact"))
    new = diff.save("new.jsonl", result("diverged"), builder="another")
    assert diff(old, new) == 1
    assert diff.report["cases"][0]["old"]["outcome"] == "exact"
    assert command_line.main(["serve", "--diff", str(old), str(new)]) == 1
    assert "not made by one version of this tool" in " ".join(capsys.readouterr().out.split())


def test_with_and_without_a_patch_are_two_sides(diff):
    old = diff.save("old.jsonl", result("diverged"))
    new = diff.save("new.jsonl", result("exact"), patch="/repair.py")
    assert diff(old, new) == 0
    assert diff.report["cases"][0]["change"] == "fixed"


def test_a_file_of_two_sources_is_no_side(diff, capsys):
    old = diff.save("old.jsonl", result("exact"), result("exact", release="toy 3"))
    assert diff(old, old) == 2
    assert "want the results of one source" in capsys.readouterr().err


def test_two_engines_do_not_compare(diff, capsys):
    old = diff.save("old.jsonl", result("exact"))
    new = diff.save("new.jsonl", result("exact", release="other 2"))
    assert diff(old, new) == 2
    assert "is toy 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", "no", '{"command": "scan"}', '{"release": "x", "outcome": "well"}\n', ""],
)
def test_a_file_that_holds_no_results_is_one_line(diff, tmp_path, capsys, text):
    (tmp_path / "scan.json").write_text(text)
    assert diff(tmp_path / "scan.json", tmp_path / "scan.json") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "scan.json" in said


def test_a_file_that_is_not_there_is_one_line(diff, tmp_path, capsys):
    assert diff(tmp_path / "no.json", tmp_path / "no.json") == 2
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["serve"],
        ["serve", "SOURCE", "--diff", "a.json", "b.json"],
        ["serve", "--diff", "here", "there"],
        ["serve", "--diff", "a.json", "there", "--model", "m"],
        ["serve", "--diff", "a.json", "b.json", "--model", "m"],
        ["serve", "--diff", "a.json", "b.json", "--corruptions"],
    ],
)
def test_what_makes_no_sense_is_said(words, capsys):
    assert command_line.main(words) == 2
    assert capsys.readouterr().err.startswith("verify: ")


def test_two_sources_are_served_and_a_report_is_a_side(serve, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(SAMPLES, other)
    server = other / "toyserver.py"
    server.write_text(server.read_text().replace('startswith("wrong")', 'startswith("good")'))
    words = ["--python", sys.executable, "--format", "json", "--quiet"]
    cases = ["--model", "good", "--model", "wrong", "--layout", "tp2"]

    def changes(old, new, *more):
        output = tmp_path / "diff.json"
        command = ["serve", "--diff", old, new, *words, "--output", output, *more]
        code = command_line.main([str(word) for word in command])
        report = json.loads(output.read_text())
        return code, [case["change"] for case in report["cases"]]

    assert changes(SAMPLES, SAMPLES, *cases) == (0, ["same", "same"])
    assert changes(SAMPLES, other, *cases) == (1, ["broken", "fixed"])
    assert serve(*cases) == 1
    assert changes(tmp_path / "report.json", other, *cases) == (1, ["broken", "fixed"])


@pytest.mark.engine
@pytest.mark.ranks
@pytest.mark.timeout(600)
def test_23734_is_fixed_from_0_5_10_to_0_5_11(diff):
    python = os.environ.get("SERVE_PYTHON") or pytest.skip("SERVE_PYTHON is not set")
    words = ["--python", python, "--model", "qwen3_moe"]
    words += ["--layout", "tp2.dp2.ep2", "--layout", "tp2"]
    assert diff("sglang==0.5.10.post1", "sglang==0.5.11", *words) == 0
    assert [case["change"] for case in diff.report["cases"]] == ["fixed", "same"]
