"""What was read by hand about the newest release's findings, held against the scan."""

import ast
import json
import os
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from verify.checks.scan.command import report
from verify.engines.sources import open_source
from verify.errors import VerifyError

DATA = Path(__file__).parents[4] / "docs" / "findings" / "triage-0.5.23.json"
# undecided and unreachable are findings still: nothing was read that refuses them
FOUND = {"right", "undecided", "unreachable"}
VERDICTS = {*FOUND, "refused", "wrong"}
CAUSES = {
    "dwdp": "dwdp_size",
    "dense": "moe_dense_tp_size",
    "fp4": "FP4 dispatcher",
    "a2a": "all-to-all",
    "copies": "moe_dp_size",
    "gathered": "still owed",
}


def entries():
    return json.loads(DATA.read_text())["findings"]


def key(entry):
    return tuple(entry[name] for name in ("rule", "file", "line", "row", "cause"))


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: f"{entry['line']}-{entry['cause']}")
def test_every_verdict_has_its_evidence(entry):
    assert entry["verdict"] in VERDICTS
    assert entry["cause"] in CAUSES
    assert entry["evidence"][0] == f"{entry['file']}:{entry['line']}"
    # the place alone is no argument, nor said twice
    assert len(entry["evidence"]) > 1
    assert len(set(entry["evidence"])) == len(entry["evidence"])
    assert all(re.fullmatch(r"sglang/srt/[\w/]+\.py:\d+", place) for place in entry["evidence"])
    assert all(re.fullmatch(r"#\d+", reference) for reference in entry["upstream"])


ANSWERS = {"confirmed", "refuted", "refused", "cannot run", "not asked"}


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: f"{entry['line']}-{entry['cause']}")
def test_the_engine_was_asked_or_it_is_said_why_not(entry):
    if entry["verdict"] in FOUND:
        assert entry["reach"] in {"default", "option", "conditional"}
        assert entry["serve"]["said"] in ANSWERS
    if "serve" in entry:
        answer = entry["serve"]
        # what it said can be asked again; what it did not say has a reason
        assert answer["why"]
        assert "command" in answer or answer["said"] in {"cannot run", "not asked"}


def test_no_finding_is_left_that_the_engine_refuted_or_refused():
    said = Counter(
        (entry["serve"]["said"], entry["verdict"] in FOUND)
        for entry in entries()
        if "serve" in entry
    )
    assert said["confirmed", True] >= 22
    assert said["refuted", True] == said["refused", True] == said["confirmed", False] == 0


def test_nothing_is_said_twice():
    assert max(Counter(map(key, entries())).values()) == 1


@pytest.fixture(scope="module")
def release(released):
    source = os.environ.get("TRIAGED", "sglang==0.5.23")
    try:
        with open_source(source) as tree:
            yield tree, released(source)
    except VerifyError as error:
        pytest.skip(str(error))


def cause_of(message):
    return next(name for name, words in CAUSES.items() if words in message)


@pytest.mark.network
def test_the_scan_finds_what_was_read_and_nothing_else(release):
    found = {
        (one.rule, one.file, one.line, one.row, cause_of(one.message))
        for one in release[1].findings
    }
    said = {key(entry) for entry in entries() if entry["verdict"] in FOUND}
    assert found == said


@pytest.mark.network
def test_what_was_refuted_is_refused_by_the_source_where_it_says(release):
    refused = {
        (one.rule, one.file, one.line, one.row, cause_of(one.message)): {
            line.partition(": ")[0] for line in one.refused
        }
        for one in release[1].refused
    }
    said = {
        key(entry): set(entry["evidence"][1:])
        for entry in entries()
        if entry["verdict"] == "refused"
    }
    assert refused == said


@cache
def statements(source):
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)]


def innermost(source, line):
    """The innermost function around a line of code, None at the top; `LookupError` of no code."""
    around = [node for node in statements(source) if starts(node) <= line <= node.end_lineno]
    texts = (node.value for node in around if isinstance(node, ast.Expr))
    text = source.splitlines()[line - 1].strip() if around else ""
    if not text or text.startswith("#") or any(isinstance(one, ast.Constant) for one in texts):
        raise LookupError(line)
    functions = [node.lineno for node in around if isinstance(node, ast.FunctionDef)]
    return max(functions, default=None)


def starts(node):
    return min((one.lineno for one in getattr(node, "decorator_list", ())), default=node.lineno)


def argues(evidence, read):
    """Whether each place is code, and one is outside the function in which the finding is."""
    functions = []
    for place in evidence:
        file, _, line = place.partition(":")
        functions.append((file, innermost(read(file), int(line))))
    return any(one != functions[0] for one in functions)


@pytest.mark.network
def test_the_evidence_is_code_of_the_release_elsewhere_than_the_finding(release):
    tree, _ = release
    read = cache(tree.read)
    for entry in entries():
        assert argues(entry["evidence"], read), entry["evidence"]


@pytest.mark.parametrize(
    ("line", "argued"), [(6, False), (9, True), (2, None), (4, None), (5, None), (99, None)]
)
def test_what_is_no_evidence_is_seen(line, argued):
    """The finding is in line 7: its own function argues nothing, and a comment is no code."""
    text = "import a\n\ndef f():\n    '''Says.'''\n    # says\n    x = 1\n    y = 2\n\nz = f()\n"
    evidence = ["a.py:7", f"a.py:{line}"]
    if argued is None:
        with pytest.raises(LookupError):
            argues(evidence, lambda _: text)
    else:
        assert argues(evidence, lambda _: text) == argued


RELEASES = json.loads((DATA.parent / "triage-releases.json").read_text())


def covered(entry):
    """The releases of an entry, each of which the data names."""
    order = RELEASES["releases"]
    for span in entry["releases"]:
        first, _, last = span.partition(" .. ")
        yield from order[order.index(first) : order.index(last or first) + 1]


@pytest.mark.network
def test_what_was_not_analysed_is_known(release):
    """A reduction that nobody reaches is a finding; what it is was read by hand."""
    tree, result = release
    said = {
        (entry["file"], entry["at"]): entry["sites"]
        for entry in RELEASES["not_analysed"]
        if str(tree.version) in covered(entry)
    }
    found = [one for one in report(result).findings if one.rule == "not-analysed"]
    assert Counter((one.file, f"{one.cls}.{one.method}") for one in found) == said


def test_every_release_has_verdicts_with_an_argument():
    named = Counter(version for entry in RELEASES["findings"] for version in covered(entry))
    assert named.keys() == set(RELEASES["releases"])
    assert {entry["verdict"] for entry in RELEASES["findings"]} <= VERDICTS
    assert {entry["argument"] for entry in RELEASES["findings"]} == RELEASES["arguments"].keys()
    at = [
        (entry["rule"], entry["file"], entry["at"], row, entry["argument"], version)
        for entry in RELEASES["findings"]
        for version in covered(entry)
        for row in entry["rows"]
    ]
    assert max(Counter(at).values()) == 1


def test_what_the_newest_release_is_said_to_be_is_said_in_both():
    said = {(one["rule"], one["file"], one["verdict"]) for one in entries()}
    newest = [entry for entry in RELEASES["findings"] if RELEASES["releases"][-1] in covered(entry)]
    assert {(one["rule"], one["file"], one["verdict"]) for one in newest} == {
        one for one in said if one[2] in FOUND
    }


@pytest.mark.network
def test_every_finding_of_a_release_was_judged(release):
    """Of the newest, or with `TRIAGED=sglang==0.5.20` of another."""
    tree, result = release
    version = str(tree.version)
    said = {
        (entry["rule"], entry["file"], entry["at"], row)
        for entry in RELEASES["findings"]
        if version in covered(entry)
        for row in entry["rows"]
    }
    found = {(one.rule, one.file, f"{one.cls}.{one.method}", one.row) for one in result.findings}
    assert found <= said
    places = {(rule, file, at) for rule, file, at, _ in found}
    assert places == {(rule, file, at) for rule, file, at, _ in said}
