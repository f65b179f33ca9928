"""`verify diff`: what appeared, vanished, moved, changed; which findings are new or fixed."""

import json
import random

import pytest

from verify.cli.command_line import main
from verify.cli.diff import build, match_sites, side_of
from verify.report.render import RENDERERS
from verify.report.report import Finding, Report


def site(name, **changes):
    return {
        "file": f"sglang/srt/models/{name}.py",
        "line": 10,
        "cls": f"{name.title()}Block",
        "method": "forward",
        "collective": "all_reduce",
        "path": "TP",
        "guard": "not AF",
        "skips_on": ["AF"],
        "verdict": "covered",
        "why": "",
        **changes,
    }


def finding(name, **changes):
    values = {
        "rule": "missing-skip",
        "message": "reduces twice",
        "file": f"sglang/srt/models/{name}.py",
        "line": 10,
        "cls": f"{name.title()}Block",
        "method": "forward",
        "row": "0010",
    }
    return Finding(**{**values, **changes}).as_json()


def saved(sites=(), findings=(), **more):
    return {
        "schema_version": 2,
        "command": "scan",
        "sites": list(sites),
        "findings": list(findings),
        **more,
    }


def compare(old, new):
    old, new = (json.loads(json.dumps(report)) for report in (old, new))
    return build(side_of(old, name="old.json"), side_of(new, name="new.json"))


def test_nothing_changed_but_the_lines():
    before = saved([site("amber")], [finding("amber")])
    after = saved([site("amber", line=99)], [finding("amber", line=99, message="reworded")])
    report = compare(before, after)
    assert report.findings == ()
    assert report.sections == ()
    assert report.summary == (
        "0 sites appeared, 0 vanished, 0 moved, 0 changed; "
        "0 new findings of 0 causes, 0 fixed, 1 as before"
    )


def test_appeared_and_vanished():
    report = compare(saved([site("amber")]), saved([site("birch")]))
    assert [entry["cls"] for entry in report.payload["appeared"]] == ["BirchBlock"]
    assert [entry["cls"] for entry in report.payload["vanished"]] == ["AmberBlock"]


def test_a_guard_that_changed_is_shown_old_and_new():
    new = site("amber", guard="not (AF or RS)", skips_on=["AF", "RS"], line=12)
    report = compare(saved([site("amber")]), saved([new]))
    (section,) = report.sections
    place = "models/amber.py:12 AmberBlock.forward TP"
    assert section.rows == (("changed guard", place, "not AF", "not (AF or RS)"),)
    assert report.payload["changed"][0]["keys"] == ["guard", "skips_on"]


def test_a_renamed_file_is_followed_with_its_findings():
    old = site("amber")
    new = site("amber", file="sglang/srt/models/amber_v2.py")
    report = compare(
        saved([old], [finding("amber")]), saved([new], [finding("amber", file=new["file"])])
    )
    assert [pair["to"]["file"] for pair in report.payload["moved"]] == [new["file"]]
    assert report.payload["appeared"] == report.payload["vanished"] == ()
    assert report.findings == ()
    assert report.payload["fixed"] == ()


def test_two_of_one_name_are_not_guessed_apart():
    old = [site("amber"), site("amber", file="b.py")]
    new = [site("amber", file="c.py"), site("amber", file="d.py")]
    matched = match_sites(old, new)
    assert matched.moved == ()
    assert len(matched.appeared) == len(matched.vanished) == 2


def test_new_findings_fail_and_fixed_ones_do_not():
    report = compare(
        saved([site("amber")], [finding("amber")]),
        saved([site("amber")], [finding("amber", row="0100")]),
    )
    (new,) = report.findings
    assert (new.rule, new.row, new.line) == ("missing-skip", "0100", 10)
    assert [entry["row"] for entry in report.payload["fixed"]] == ["0010"]
    assert report.sections[0].rows == (
        ("new", "missing-skip", "models/amber.py:10 AmberBlock.forward", "0100"),
        ("fixed", "missing-skip", "models/amber.py:10 AmberBlock.forward", "0010"),
    )


def test_one_finding_more_of_the_same_kind_is_new():
    report = compare(saved([], [finding("amber")]), saved([], [finding("amber")] * 2))
    assert len(report.findings) == 1


def test_what_neither_side_could_read_may_have_changed():
    unread = saved([], [finding("amber", rule="not-analysed", row=None), finding("birch")])
    report = compare(unread, unread)
    assert [(one.rule, one.file) for one in report.findings] == [
        ("not-analysed", "sglang/srt/models/amber.py")
    ]
    assert "1 new finding of 1 cause, 0 fixed, 1 as before" in report.summary


def test_releases_are_named_by_what_they_are():
    source = {"name": "sglang", "version": "0.5.11"}
    report = compare(saved(source={"name": "sglang", "version": "unknown"}), saved(source=source))
    assert report.title == "sglang 0.5.11 compared with old.json"


def test_counts_and_deployments_come_back():
    entry = finding(
        "amber", counts=((2, 2), (2, 2)), deployment={"tp": 2}, groups={"EP": ((0, 1),)}
    )
    (new,) = compare(saved(), saved([], [entry])).findings
    assert new.counts == ((2, 2), (2, 2))
    assert new.groups == {"EP": ((0, 1),)}
    assert new.deployment == {"tp": 2}


@pytest.fixture
def on_disk(tmp_path):
    def write(name, report):
        file = tmp_path / name
        file.write_text(json.dumps(report), encoding="utf-8")
        return str(file)

    return write


def test_command_line(on_disk, capsys):
    old, new = on_disk("old.json", saved()), on_disk("new.json", saved([], [finding("amber")]))
    assert main(["diff", old, new]) == 1
    assert main(["diff", new, old]) == 0
    assert main(["diff", old, old, "--format", "json"]) == 0
    captured = capsys.readouterr()
    assert "1 new finding of 1 cause, 0 fixed" in captured.err
    assert "0 new findings of 0 causes, 1 fixed" in captured.err


def test_a_source_is_scanned(on_disk, monkeypatch):
    scan = Report(
        command="scan",
        title="",
        summary="",
        payload={"sites": (site("amber"),)},
        sections=(),
        findings=(),
    )
    asked = []
    monkeypatch.setattr("verify.cli.diff.scanned", lambda source: asked.append(source) or scan)
    assert main(["diff", on_disk("old.json", saved([site("amber")])), "sglang==0.5.11"]) == 0
    assert asked == ["sglang==0.5.11"]


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ({"command": "report", "findings": []}, "compare reports of one command"),
        ({"findings": [{"rule": 1}]}, "'rule' is int, not str"),
        ({"findings": [{"rule": "x", "line": "1"}]}, "'line' is str, not int"),
        ({"findings": [{"rule": "x", "counts": [["a"]]}]}, "holds something that is no number"),
        ({"findings": [{"rule": "x", "counts": [1]}]}, "is not iterable"),
        ({"findings": [{"rule": "x", "counts": [[1], [1, 2]]}]}, "a count for every two ranks"),
        ({"findings": [{"rule": "x", "groups": {"EP": [["a"]]}}]}, "something that is no number"),
        ({"sites": [1], "findings": []}, "'sites' is not a list of objects"),
        ({"sites": []}, "'findings' is not a list of objects"),
        ([], "holds no JSON object"),
    ],
)
def test_what_is_no_report_is_refused_in_a_line(on_disk, capsys, report, message):
    assert main(["diff", on_disk("old.json", saved()), on_disk("new.json", report)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_what_is_no_report_is_refused_on_both_sides(on_disk, capsys):
    same = on_disk("same.json", {"findings": [{"rule": 5}]})
    assert main(["diff", same, same]) == 2
    assert "'rule' is int, not str" in capsys.readouterr().err


DAMAGE = (None, 1, -1, "", [], {}, "\x1b[0m", True, [[1]], {"a": 1}, 1e999, "\ud800")


def places(value, place=()):
    """Where something can be replaced, at any depth."""
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    for key, part in inner:
        yield (*place, key)
        yield from places(part, (*place, key))


@pytest.mark.parametrize("seed", range(4))
def test_damaged_reports_never_raise(on_disk, tmp_path, capsys, seed):
    draw = random.Random(seed)
    whole = json.loads(
        json.dumps(
            saved(
                [site("amber"), site("birch")],
                [finding("amber", counts=((2, 0), (1, 1)), groups={"EP": ((0, 1),)})] * 2,
                source={"name": "sglang", "version": "1"},
            )
        )
    )
    old = on_disk("old.json", whole)
    codes = set()
    for _ in range(80):
        damaged = json.loads(json.dumps(whole))
        *parents, last = draw.choice(list(places(damaged)))
        part = damaged
        for key in parents:
            part = part[key]
        part[last] = draw.choice(DAMAGE)
        also = [f"--also={name}={tmp_path / name}" for name in RENDERERS]
        codes.add(main(["diff", old, on_disk("new.json", damaged), *also]))
        assert capsys.readouterr().err.count("\n") == 1
    assert codes == {0, 1, 2}
