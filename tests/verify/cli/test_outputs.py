"""One run, several outputs, and files named as the repository around the source names them."""

import json
from xml.etree import ElementTree as ET

import pytest

from verify.cli.command_line import main
from verify.report import progress
from verify.report.report import Report
from verify.source.repository import file_prefix


def test_also_writes_every_format_it_is_asked_for(tmp_path, capsys):
    also = [f"--also={name}={tmp_path / name}" for name in ("json", "html", "sarif", "junit")]
    assert main(["report", "--model", "llama4", *also]) == 0
    assert capsys.readouterr().out.startswith("sgl-project/sglang#23748")
    assert json.loads((tmp_path / "json").read_text("utf-8"))["schema_version"] == 2
    assert json.loads((tmp_path / "sarif").read_text("utf-8"))["version"] == "2.1.0"
    assert ET.parse(tmp_path / "junit").getroot().get("failures") == "0"
    assert (tmp_path / "html").read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("text", ["json", "json=", "=x", "pdf=x"])
def test_also_refuses_what_is_no_format_and_file(text, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["report", "--also", text])
    assert "is not FORMAT=FILE; formats are table" in capsys.readouterr().err


def test_also_refuses_a_folder_that_is_not_there(tmp_path, capsys):
    assert main(["report", "--also", f"json={tmp_path / 'none' / 'x.json'}"]) == 2
    assert "No such file or directory" in capsys.readouterr().err


MODEL = "sglang/srt/models/amber.py"


@pytest.fixture
def checkout(tmp_path):
    file = tmp_path / "checkout" / "python" / MODEL
    file.parent.mkdir(parents=True)
    file.touch()
    (tmp_path / "checkout" / ".git").mkdir()
    return tmp_path / "checkout"


@pytest.mark.parametrize("source", [".", "python", "python/sglang"])
def test_prefix_leads_from_the_repository_to_the_file(checkout, source):
    assert file_prefix(checkout / source, [MODEL]) == "python/"


def test_prefix_is_empty_where_the_repository_holds_sglang_itself(checkout):
    (checkout / "python" / ".git").mkdir()
    assert file_prefix(checkout, [MODEL]) == ""


def test_prefix_is_empty_outside_a_repository(checkout, monkeypatch):
    (checkout / ".git").rmdir()
    assert file_prefix(checkout, [MODEL]) == ""


def test_prefix_is_empty_without_files(checkout):
    assert file_prefix(checkout, []) == ""


def test_quiet_reaches_the_command(monkeypatch, capsys):
    """Progress inside a command is silent under -q, whatever standard error is."""
    seen = []

    class Fake:
        @staticmethod
        def add_arguments(parser):
            pass

        @staticmethod
        def run(_arguments):
            seen.append(progress._QUIET.get())
            return Report(
                command="scan", title="t", summary="s", payload={}, sections=(), findings=()
            )

    monkeypatch.setattr("verify.cli.command_line.import_module", lambda _name: Fake)
    assert main(["scan"]) == main(["scan", "-q"]) == 0
    assert seen == [False, True]
    assert capsys.readouterr().err == "s\n"
