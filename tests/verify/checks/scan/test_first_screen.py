"""The newest release's default output: its causes on the first screen, all of it short."""

import re

import pytest

from verify.checks.scan import command
from verify.cli.command_line import main


@pytest.mark.network
def test_a_release_is_short_and_its_first_screen_says_it(released, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    # what is scanned is scanned elsewhere; how it is shown is asked here
    monkeypatch.setattr(command, "scan", lambda tree: released(f"sglang=={tree.version}"))
    assert main(["scan", "sglang==0.5.23", "-q"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 300
    assert max(map(len, lines)) <= 80
    first = "\n".join(lines[:24])
    assert re.fullmatch(
        r"\d+ causes, \d+ findings, \d+ models; some with server options that show it", lines[1]
    )
    assert lines[2] == " 1 default  1 place  --tp-size 4"
    assert "longcat_flash.py:335" in first
    assert "python -m verify replay sglang==0.5.23 --model longcat_flash" in first
    assert "--format html" in lines[23]
