"""What one repair ends is one cause, whatever the models, options and releases are called."""

import json
from dataclasses import replace

import pytest

from verify.report import causes
from verify.report.render import render
from verify.report.report import Finding, Report
from verify.report.saved import finding_from

REPORT = Report(command="scan", title="t", summary="s", payload={}, sections=(), findings=())


def finding(model, *, takes=(), reach="option", **changes):
    values = {
        "rule": "lost-addend",
        "message": "m",
        "kind": "lost",
        "file": f"sglang/srt/models/{model}.py",
        "line": 10,
        "cls": "Block",
        "method": "forward",
    }
    return Finding(takes=takes, reach=reach, **{**values, **changes})


def shape(findings):
    return [cause.indices for cause in causes.causes_of(findings)]


def test_one_setting_that_many_layers_do_not_know_is_one_cause():
    several = [finding("oak", takes=("x > 1",)), finding("elm", takes=("x > 1",), line=99)]
    assert shape(several) == [(0, 1)]


def test_the_settings_tell_causes_apart_also_on_one_line():
    assert shape([finding("oak", takes=("x > 1",)), finding("oak", takes=("y > 1",))]) == [
        (0,),
        (1,),
    ]


def test_rules_tell_causes_apart_under_one_setting():
    wide = finding("oak", takes=("x > 1",), rule="group-too-wide")
    assert len(shape([finding("oak", takes=("x > 1",)), wide])) == 2


def test_without_a_setting_a_method_is_a_cause():
    same = [finding("oak", row="0010"), finding("oak", row="0100", line=20)]
    other = finding("oak", method="forward_normal")
    assert shape([*same, other, finding("elm")]) == [(0, 1), (2,), (3,)]


def test_without_a_file_only_equal_findings_are_one_cause():
    same = [finding("", file=None, subject="a", message=text) for text in ("one", "two")]
    other = finding("", file=None, subject="a", deployment={"tp": 4})
    assert shape([*same, finding("", file=None, subject="b"), other]) == [(0, 1), (2,), (3,)]


def test_worst_reach_first_then_the_most_models():
    many = [finding(f"m{n}", takes=("x > 1",)) for n in range(3)]
    few = [finding("m0", takes=("y > 1",), line=n) for n in range(5)]
    alone = finding("m0", reach="default")
    hard = [finding(f"m{n}", takes=("z",), reach="conditional") for n in range(9)]
    unread = finding("m0", reach=None, method="other")
    found = causes.causes_of([unread, *hard, *few, *many, alone])
    assert [(cause.reach, len(cause.models)) for cause in found] == [
        ("default", 1),
        (None, 1),
        ("option", 3),
        ("option", 1),
        ("conditional", 9),
    ]


def test_a_cause_has_the_worst_reach_of_its_findings_and_shows_them_first():
    hard = finding("oak", takes=("x",), reach="conditional", launch=("--tp", "4", "--x"))
    easy = finding("elm", takes=("x",), reach="default", launch=("--tp", "2"), needs=("a GPU",))
    (cause,) = causes.causes_of([hard, easy])
    assert (cause.reach, cause.launch, cause.needs) == ("default", ("--tp", "2"), ("a GPU",))
    assert cause.shown == easy
    assert cause.findings == (easy, hard)
    assert cause.indices == (1, 0)


def test_an_id_stays_when_places_come_and_move():
    (before,) = causes.causes_of([finding("oak", takes=("x > 1",))])
    moved = finding("oak", takes=("x > 1",), line=77, message="in other words")
    (after,) = causes.causes_of([finding("ash", takes=("x > 1",)), moved])
    assert before.id == after.id
    assert before.id != causes.causes_of([finding("oak", takes=("y > 1",))])[0].id


def test_ids_are_unique():
    several = [finding(f"m{n}", method=f"f{k}") for n in range(20) for k in range(20)]
    assert len({cause.id for cause in causes.causes_of(several)}) == 400


@pytest.mark.parametrize("name", ["sample_report", "hostile_report"])
def test_every_finding_is_in_one_cause(request, name):
    findings = request.getfixturevalue(name).findings
    found = causes.causes_of(findings)
    assert sorted(index for cause in found for index in cause.indices) == list(range(len(findings)))


def test_json_keeps_the_findings_and_names_their_causes():
    found = (finding("oak", takes=("x > 1",)), finding("elm", reach="default"))
    saved = json.loads(render(replace(REPORT, findings=found), format_name="json"))
    plain = json.loads(json.dumps([one.as_json() for one in found]))
    named = [{key: one[key] for key in one if key != "cause"} for one in saved["findings"]]
    assert named == plain
    for number, cause in enumerate(saved["causes"]):
        assert [saved["findings"][i]["cause"] for i in cause["findings"]] == [cause["id"]]
        assert cause["reach"] == ("default", "option")[number]


def test_a_saved_finding_is_read_back_whole():
    one = finding(
        "oak",
        takes=("x > 1",),
        sums="nobody",
        rows=("0001",),
        conditions=("config.x",),
        launch=("--tp", "2"),
        needs=("a GPU",),
    )
    saved = json.loads(render(replace(REPORT, findings=(one,)), format_name="json"))
    assert finding_from(saved["findings"][0], path=None) == one


@pytest.mark.parametrize(
    "wrong",
    [{"reach": "often"}, {"launch": [1]}, {"related": [1]}, {"related": [{"file": "a.py"}]}],
)
def test_a_saved_finding_of_another_kind_is_refused(wrong):
    with pytest.raises(Exception, match="not a saved report"):
        finding_from({"rule": "a-b", "message": "", **wrong}, path="x.json")
