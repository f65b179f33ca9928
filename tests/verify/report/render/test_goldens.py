"""What a person or a program reads is pinned: one file a format, looked at when it changes.

To accept a change, write what the test shows into the file and read the difference.
"""

from pathlib import Path

import pytest

from verify.report.render import render

GOLDEN = Path(__file__).parent / "golden"
PINNED = {
    "table": "table.txt",
    "markdown": "markdown.md",
    "digest": "digest.md",
    "github": "github.txt",
    "junit": "junit.xml",
}


@pytest.mark.parametrize(("format_name", "name"), PINNED.items())
def test_output_is_what_was_reviewed(sample_report, format_name, name):
    assert render(sample_report, format_name=format_name) == (GOLDEN / name).read_text("utf-8")


@pytest.mark.parametrize("format_name", [*PINNED, "html", "sarif", "json"])
def test_output_is_the_same_every_time(sample_report, format_name):
    first = render(sample_report, format_name=format_name)
    assert first == render(sample_report, format_name=format_name)
    assert first.endswith("\n")
