"""The gate is never green by accident: what was not looked at fails, in every format."""

import json
import shutil
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from verify import _cli

SAMPLE = Path(__file__).parents[2] / "samples" / "mini_sglang"


def _syntax_error(file):
    file.write_text(f"{file.read_text()}\n )(\n")


def _merge_marker(file):
    lines = file.read_text().splitlines(keepends=True)
    place = next(
        n for n, line in enumerate(lines) if "all_reduce(" in line and "import" not in line
    )
    file.write_text("".join([*lines[:place], "<<<<<<< HEAD\n", *lines[place:]]))


def _bad_bytes(file):
    file.write_bytes(file.read_bytes() + b'\n# caf\xe9\nx = "\xe9"\n')


def _too_large(file):
    file.write_text(file.read_text() + "#" * (5 << 20))


DAMAGE = [_syntax_error, _merge_marker, _bad_bytes, _too_large]


@pytest.fixture
def source(tmp_path):
    return Path(shutil.copytree(SAMPLE, tmp_path / "copy"))


def _model(source):
    (file,) = source.rglob("cedar.py")
    return file


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["table", "html", "markdown", "json", "github", "digest"])
def test_a_file_that_was_not_read_fails_and_is_named(source, tmp_path, damage, name):
    damage(_model(source))
    output = tmp_path / "out"
    code = _cli.main(["scan", str(source), "-q", "--format", name, "--output", str(output)])
    assert code == 1
    text = output.read_text()
    assert "cedar.py" in text
    assert "not-analysed" in text or "not analysed" in text


@pytest.mark.parametrize("damage", DAMAGE)
def test_sarif_says_that_the_run_was_not_whole(source, tmp_path, damage):
    damage(_model(source))
    output = tmp_path / "out.sarif"
    assert _cli.main(["scan", str(source), "-q", "--format", "sarif", "--output", str(output)]) == 1
    (run,) = json.loads(output.read_text())["runs"]
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is False
    assert "cedar.py" in invocation["toolExecutionNotifications"][0]["message"]["text"]


@pytest.mark.parametrize("damage", DAMAGE)
def test_junit_has_an_error(source, tmp_path, damage):
    damage(_model(source))
    output = tmp_path / "out.xml"
    assert _cli.main(["scan", str(source), "-q", "--format", "junit", "--output", str(output)]) == 1
    root = ElementTree.parse(output).getroot()
    assert int(root.get("errors")) >= 1
    assert root.find(".//testcase/error") is not None


def test_a_whole_run_says_so(tmp_path):
    output = tmp_path / "out.sarif"
    _cli.main(["scan", str(SAMPLE), "-q", "--format", "sarif", "--output", str(output)])
    (run,) = json.loads(output.read_text())["runs"]
    assert run["invocations"] == [{"executionSuccessful": True, "toolExecutionNotifications": []}]


def test_accepted_only_by_a_baseline(source, tmp_path):
    _merge_marker(_model(source))
    baseline = tmp_path / "accepted.json"
    words = ["scan", str(source), "-q"]
    _cli.main([*words, "--format", "json", "--output", str(baseline)])
    assert _cli.main([*words, "--expect", str(baseline), "--output", str(tmp_path / "x")]) == 0


def _empty(folder):
    (folder / "sglang" / "srt").mkdir(parents=True)
    return folder


def _without_layers(folder):
    wheel = folder / "sglang-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("sglang/srt/models/a.py", "x = 1\n")
    return wheel


@pytest.mark.parametrize("nothing", [_empty, _without_layers])
def test_nothing_to_look_at_cannot_run(tmp_path, capsys, nothing):
    assert _cli.main(["scan", str(nothing(tmp_path))]) == 2
    assert "nothing to look at" in capsys.readouterr().err
