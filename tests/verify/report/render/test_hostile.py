"""Nothing in a report can break out of the format it is rendered in."""

import json
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from verify.report.render import RENDERERS, render
from verify.report.render.html import _digest
from verify.report.render.words import one_line, printable

TERMINAL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("format_name", [name for name in RENDERERS if name != "json"])
def test_no_control_character_reaches_a_terminal(hostile_report, format_name):
    text = render(hostile_report, format_name=format_name)
    text.encode("utf-8")
    assert not TERMINAL.findall(text)


def test_plain_text_keeps_rich_markup_as_text(hostile_report):
    assert "[bold red]rich markup[/]" in render(hostile_report, format_name="table")


def test_workflow_commands_stay_one_line_each(hostile_report):
    lines = render(hostile_report, format_name="github").splitlines()
    assert len(lines) == 11
    for line in lines:
        command = re.fullmatch(r"::(error|warning|notice) ([^:]*)::(.*)", line)
        assert command, line
        assert "\r" not in line
        # a comma or colon inside a property would start another property
        properties = [part.partition("=")[0] for part in command[2].split(",")]
        assert properties in (["title"], ["file", "line", "title"])


def test_junit_is_one_document_with_nothing_injected(hostile_report):
    root = ET.fromstring(render(hostile_report, format_name="junit"))
    assert {element.tag for element in root.iter()} == {
        "testsuites",
        "testsuite",
        "testcase",
        "failure",
    }


@pytest.mark.parametrize("format_name", ["markdown", "digest"])
def test_markdown_holds_no_html_and_no_mention(hostile_report, format_name):
    text = render(hostile_report, format_name=format_name).replace(
        "<!-- moe-allreduce-verify -->", ""
    )
    outside_code = re.sub(r"```text.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    assert set(re.findall(r"<[^>]*>", outside_code)) <= {"<br>"}
    assert "@everyone" not in outside_code
    assert not re.search(r"(?<!\\)\[[^\]\\]*(?<!\\)\]\(", outside_code)


def test_markdown_tables_keep_their_columns(hostile_report):
    for line in render(hostile_report, format_name="digest").splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 5, line


def test_digest_fits_a_comment(hostile_report):
    many = replace(hostile_report, findings=hostile_report.findings * 50)
    assert len(render(many, format_name="digest")) < 40_000


def test_sarif_and_json_are_json(hostile_report):
    for format_name in ("sarif", "json"):
        json.loads(render(hostile_report, format_name=format_name))


def test_html_has_one_script_and_one_style_and_names_both(hostile_report):
    page = render(hostile_report, format_name="html")
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    policy = page.partition('http-equiv="Content-Security-Policy" content="')[2].partition('"')[0]
    for asset in (script, style):
        assert _digest(asset).replace("'", "&#39;") in policy
    assert "default-src &#39;none&#39;" in policy
    assert "unsafe" not in policy
    assert "<img" not in page
    assert "<h1>injected" not in page
    assert " style=" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("\x00", "\\x00"),
        ("a\u202eb", "a\\u202eb"),
        ("\ud800", "\\ud800"),
        ("Größe → 1", "Größe → 1"),
        ("a\nb", "a\nb"),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown


def test_one_line():
    assert one_line(" a\n\tb\r\n c ") == "a b c"
