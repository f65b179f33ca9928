"""Which findings count, by option, by project, and by comment."""

import json
import os
import shutil

import pytest

from verify.cli import configuration
from verify.cli.command_line import main
from verify.errors import VerifyError
from verify.report import choices
from verify.report.report import Finding
from verify.report.rules import RULES

CEDAR = "sglang/srt/models/cedar.py"
LINE = 22


class Reaching(Finding):
    """A finding that says how far it reaches, as JSON has it."""

    def as_json(self):
        return {**super().as_json(), "reach": self.subject or None}


def wrong(rule="missing-skip", reach=""):
    return Reaching(rule=rule, message="", subject=reach)


@pytest.fixture
def source(tmp_path, mini_sglang, monkeypatch):
    """The small source in a repository of its own, which is the working directory."""
    folder = tmp_path / "project"
    shutil.copytree(mini_sglang, folder)
    (folder / ".git").mkdir()
    monkeypatch.chdir(folder)
    return folder


def commented(source, comment, *, line=LINE):
    """The comment at the end of the line."""
    file = source / CEDAR
    lines = file.read_text().splitlines()
    lines[line - 1] += f"  {comment}"
    file.write_text("\n".join(lines) + "\n")


def scanned(capsys, *words):
    """Exit code and JSON."""
    code = main(["scan", ".", "--format", "json", *words])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("reach", "fail_on", "expected"),
    [
        ("default", "default", True),
        ("option", "default", False),
        ("conditional", "default", False),
        ("option", "option", True),
        ("conditional", "option", False),
        ("conditional", "conditional", True),
        ("conditional", "finding", True),
        ("default", "never", False),
        ("", "default", True),
    ],
)
def test_fail_on_counts_what_reaches_that_far(reach, fail_on, expected):
    assert choices.fails([wrong(reach=reach)], fail_on) is expected


@pytest.mark.parametrize("rule", sorted(choices.ALWAYS))
def test_what_was_not_looked_at_fails_under_every_choice(rule):
    for fail_on in choices.FAIL_ON:
        assert choices.fails([wrong(rule, reach="conditional")], fail_on) is (fail_on != "never")


def test_nothing_wrong_never_fails():
    assert not any(choices.fails([], fail_on) for fail_on in choices.FAIL_ON)


def test_select_and_ignore_choose_rules(source, capsys):
    assert scanned(capsys)[0] == 1
    assert scanned(capsys, "--select", "missing-skip,lost-sum")[0] == 1
    code, report = scanned(capsys, "--select", "lost-sum")
    assert (code, report["findings"]) == (0, [])
    code, report = scanned(capsys, "--ignore", "missing-skip")
    assert (code, report["findings"]) == (0, [])


def test_what_is_left_out_is_said(source, capsys):
    main(["scan", ".", "--ignore", "missing-skip"])
    assert "1 of other rules left out by --select and --ignore" in capsys.readouterr().err


def test_a_baseline_of_rules_left_out_is_not_stale(source, capsys):
    assert main(["scan", ".", "--write-expect", "reviewed.json"]) == 0
    assert main(["scan", ".", "--expect", "reviewed.json", "--select", "lost-sum"]) == 0


def test_statistics_are_counts_and_the_exit_code_stays(source, capsys):
    assert main(["scan", ".", "--statistics"]) == 1
    out = capsys.readouterr().out
    assert "missing-skip" in out
    assert CEDAR not in out
    assert scanned(capsys, "--statistics")[1]["statistics"] == [
        {"rule": "missing-skip", "findings": 1}
    ]


# a project's choices --------------------------------------------------------------------------


def configure(source, text):
    (source / "pyproject.toml").write_text(f"[tool.moe-allreduce-verify]\n{text}\n")


def test_a_project_chooses_and_an_option_overrides(source, capsys):
    configure(source, 'ignore = ["missing-skip"]')
    assert scanned(capsys)[0] == 0
    configure(source, 'fail-on = "never"')
    assert scanned(capsys)[0] == 0
    assert scanned(capsys, "--fail-on", "finding")[0] == 1
    configure(source, 'format = "digest"')
    main(["scan", "."])
    assert "missing-skip" in capsys.readouterr().out


def test_a_project_s_baseline_is_found_from_its_folders(source, capsys, monkeypatch):
    assert main(["scan", ".", "--write-expect", "reviewed.json"]) == 0
    configure(source, 'expect = "reviewed.json"')
    monkeypatch.chdir(source / "sglang")
    assert main(["scan", ".."]) == 0
    assert "1 accepted by reviewed.json" in capsys.readouterr().err


def test_a_scan_s_baseline_is_not_another_command_s(source, capsys):
    configure(source, 'expect = "not-there.json"')
    assert main(["prove", "--max-ranks", "1", "--fail-on", "never"]) == 0


def test_outside_the_repository_nothing_is_looked_for(source, capsys, monkeypatch):
    (source.parent / "pyproject.toml").write_text("[tool.moe-allreduce-verify]\nnope = 1\n")
    assert configuration.defaults(source) == {}
    (source / ".git").rmdir()
    with pytest.raises(VerifyError, match="nope"):
        configuration.defaults(source)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('ignroe = ["a"]', "has no 'ignroe'; did you mean ignore?"),
        ('colour = "red"', "has no 'colour'; there are select"),
        ('select = "missing-skip"', "select = 'missing-skip': want a list of rules"),
        ('select = ["missing-skp"]', "did you mean missing-skip"),
        ('ignore = ["not-analysed"]', "cannot be ignored"),
        ('fail-on = "error"', "want one of finding"),
        ("offline = 1", "want true or false"),
        ("select = [", "cannot read"),
    ],
)
def test_a_wrong_choice_is_one_line_with_the_file(source, capsys, text, says):
    configure(source, text)
    assert main(["scan", "."]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert "pyproject.toml" in err
    assert err.count("\n") == 1


# comments -------------------------------------------------------------------------------------


def test_a_comment_with_a_reason_answers_for_its_line(source, capsys):
    commented(source, "# moe-verify: ignore[missing-skip] DP is refused for this model")
    code, report = scanned(capsys)
    assert (code, report["findings"]) == (0, [])
    main(["scan", "."])
    out, err = capsys.readouterr()
    assert "DP is refused for this model" in " ".join(out.split())
    assert "1 ignored in the source" in err


def test_a_comment_behind_another_answers_too(source, capsys):
    commented(source, "# see the issue  # moe-verify: ignore[missing-skip] DP is refused")
    assert scanned(capsys)[0] == 0


def test_a_comment_alone_on_a_line_answers_for_the_next(source, capsys):
    file = source / CEDAR
    lines = file.read_text().splitlines()
    lines.insert(LINE - 1, "# moe-verify: ignore[missing-skip] DP is refused")
    file.write_text("\n".join(lines) + "\n")
    assert scanned(capsys)[0] == 0


@pytest.mark.parametrize(
    ("comment", "says"),
    [
        ("# moe-verify: ignore[missing-skip]", "is ignored without a reason"),
        ("# moe-verify: ignore[missing-skp] because", "there is no rule 'missing-skp'"),
        ("# moe-verify: ignore because", "names no rule"),
        ("# moe-verify: ignore[not-analysed] because", "cannot be ignored"),
        ("# moe-verify: ignore[lost-sum] because", "no finding of lost-sum is on this line"),
        ("# moe-verify: nothing", "names no rule"),
    ],
)
def test_a_comment_that_answers_for_nothing_is_a_finding(source, capsys, comment, says):
    commented(source, comment)
    code, report = scanned(capsys)
    assert code == 1
    messages = {one["rule"]: one["message"] for one in report["findings"]}
    assert set(messages) == {"missing-skip", "unused-ignore"}
    assert says in messages["unused-ignore"]


def test_a_comment_on_a_line_that_is_right_is_a_finding(source, capsys):
    commented(source, "# moe-verify: ignore[missing-skip] because", line=1)
    report = scanned(capsys)[1]
    idle = next(one for one in report["findings"] if one["rule"] == "unused-ignore")
    assert (idle["file"], idle["line"]) == (CEDAR, 1)
    assert scanned(capsys, "--ignore", "missing-skip", "--fail-on", "default")[0] == 1


def test_a_string_is_no_comment(source, capsys):
    file = source / CEDAR
    file.write_text(file.read_text() + 'TEXT = "# moe-verify: ignore[missing-skip] x"\n')
    assert [one["rule"] for one in scanned(capsys)[1]["findings"]] == ["missing-skip"]


# the baseline that is written -----------------------------------------------------------------


def test_what_is_written_accepts_and_keeps_its_reasons(source, capsys):
    assert main(["scan", ".", "--write-expect", "reviewed.json"]) == 0
    saved = json.loads((source / "reviewed.json").read_text())
    (entry,) = saved["findings"]
    assert (saved["command"], entry["rule"], entry["reason"]) == ("scan", "missing-skip", "")
    assert "line" not in entry
    assert "none given" in capsys.readouterr().out
    entry["reason"] = "DP is refused"
    (source / "reviewed.json").write_text(json.dumps(saved))
    assert main(["scan", ".", "--write-expect", "reviewed.json"]) == 0
    assert json.loads((source / "reviewed.json").read_text())["findings"][0]["reason"] == (
        "DP is refused"
    )
    assert "DP is refused" in capsys.readouterr().out
    assert main(["scan", ".", "--expect", "reviewed.json"]) == 0


def test_what_was_not_read_is_not_written_off(source, capsys):
    with (source / CEDAR).open("a") as file:
        file.write(")(\n")
    assert main(["scan", ".", "--write-expect", "reviewed.json"]) == 1
    entries = json.loads((source / "reviewed.json").read_text())["findings"]
    assert [one["reason"] for one in entries if one["rule"] == "not-analysed"] == [""]
    assert main(["scan", ".", "--expect", "reviewed.json"]) == 1


def test_an_entry_that_is_fixed_leaves_when_it_is_written_again(source, capsys):
    main(["scan", ".", "--write-expect", "reviewed.json"])
    oak = (source / CEDAR).with_name("oak.py").read_text()
    (source / CEDAR).write_text(oak.replace("Oak", "Cedar"))
    assert main(["scan", ".", "--expect", "reviewed.json"]) == 1
    assert main(["scan", ".", "--write-expect", "reviewed.json"]) == 0
    assert json.loads((source / "reviewed.json").read_text())["findings"] == []


# what rules mean ------------------------------------------------------------------------------


def test_rule_lists_all_and_explains_one(capsys):
    assert main(["rule", "--format", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)["rules"]
    assert [one["id"] for one in listed] == list(RULES)
    assert main(["rule", "missing-skip"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "gpt_oss.py" in text
    assert "should_skip_post_experts_all_reduce" in text


@pytest.mark.parametrize("rule", [rule for rule in RULES if RULES[rule].example])
def test_an_example_is_python_of_a_known_rule(rule):
    example = RULES[rule].example
    for line in (example.wrong, example.right):
        compile(line, rule, "exec")
        assert len(line) < 100
    assert example.wrong != example.right


def test_a_pipe_of_the_settings_name_is_not_waited_for(tmp_path, monkeypatch, capsys):
    os.mkfifo(tmp_path / "pyproject.toml")
    monkeypatch.chdir(tmp_path)
    assert main(["scan", "."]) == 2
    assert capsys.readouterr().err == (
        f"verify: cannot read {tmp_path / 'pyproject.toml'}: not a file\n"
    )
