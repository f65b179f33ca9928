"""The tool against subjects that are made wrong: it may not call a change that is none wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation import judge, table
from tests.mutation.ask import Asker, compared
from tests.mutation.claimed import judged_there
from tests.mutation.draw import draw, mutant
from tests.mutation.engine import Answer, layout
from tests.mutation.operators import OPERATORS, mutated, mutations
from tests.mutation.reach import Reached, reach, reached_once
from tests.mutation.strata import STRATA, Stratum

SOURCE = """\
from x import attn_tp_all_reduce, tensor_model_parallel_all_reduce


class Block:
    def __init__(self, config):
        self.down = Row(reduce_results=False, tp_rank=rank, tp_size=self.tp_size)
        self.plain = config.width > 3

    def forward(self, hidden, shared_output, should_allreduce_fusion):
        if (
            self.tp_size > 1
            and not should_allreduce_fusion  # is left to the next norm
        ):
            hidden = tensor_model_parallel_all_reduce(hidden)
        hidden += shared_output
        if hidden is None:
            raise ValueError
        return hidden

    def load_weights(self, weights):
        if self.tp_size > 1:
            return weights
"""
FILE = "sglang/srt/models/oak.py"
OAK = Stratum(name="oak", quota=10, globs=(FILE,), judges=(("oak", ("tp2", "tp2.ep2")),))
ALL = frozenset(range(1, 40))


@pytest.fixture
def release(tmp_path):
    folder = tmp_path / "1.0"
    file = folder / FILE
    file.parent.mkdir(parents=True)
    file.write_text(SOURCE)
    (folder / "sglang/__init__.py").write_text("")
    return folder


def rows(lines=ALL, words=("tp2", "tp2.ep2")):
    return [
        Reached(
            model="oak", layout=word, outcome="exact", nats=0.0, reason=None, lines={FILE: lines}
        )
        for word in words
    ]


def test_every_mutation_parses_keeps_its_lines_and_changes_something():
    found = mutations(SOURCE)
    texts = [mutated(SOURCE, each) for each in found]
    assert {each.operator for each in found} == {
        "drop-term",
        "flip-reduce-results",
        "guard-false",
        "guard-true",
        "negate-guard",
        "move-addition",
        "remove-sum",
        "replicate",
        "sum-twice",
        "swap-group",
    }
    assert {each.operator for each in found} < set(OPERATORS)
    assert all(text and text.count("\n") == SOURCE.count("\n") for text in texts)
    # neither the width nor what loads weights is decision code
    assert not [each for each in found if each.line == 7 or each.name.endswith("load_weights")]


def test_a_change_that_is_none_is_no_mutation():
    one = mutations(SOURCE)[0]
    bracketed = SOURCE.index("hidden)\n")
    same = type(one)(**{**vars(one), "edits": ((bracketed, bracketed + 6, "(hidden)"),)})
    assert same.apply(SOURCE) != SOURCE
    assert mutated(SOURCE, same) is None


def test_a_draw_is_its_seeds_takes_operators_in_turn_and_only_lines_that_run(release):
    first = draw(release, OAK, seed=1, reached=rows())
    assert first == draw(release, OAK, seed=1, reached=rows())
    assert first != draw(release, OAK, seed=2, reached=rows())
    operators = [each.mutation.operator for each in first]
    kinds = len({each.operator for each in mutations(SOURCE)})
    assert len(first) == OAK.quota
    assert len(set(operators[:kinds])) == kinds
    assert [mutant(json.loads(json.dumps(each.as_json()))) for each in first] == first
    only = draw(release, OAK, seed=1, reached=rows(frozenset({6})))
    assert {each.mutation.line for each in only} == {6}
    assert draw(release, OAK, seed=1, reached=rows(frozenset())) == []


def test_what_ends_each_launch_alike_is_not_asked_six_times(release):
    (one, *_) = draw(release, OAK, seed=1, reached=rows())
    words = ("tp2", "tp2.ep2", "tp4", "tp4.dp2", "tp2.dp2")
    for outcome, count in (("cannot-run", 3), ("exact", 5)):
        says = Says(outcome)
        judge.verdict(says, release, one, rows(words=words))
        assert len(says.asked) == count


class Says:
    """A judge that gives each launch the next of its outcomes, the last one ever after."""

    def __init__(self, *outcomes, swapped=2, **files):
        self.outcomes, self.asked, self.swapped, self.files = list(outcomes), [], swapped, files

    def judge(self, model, layout, job):
        self.asked.append((model, str(layout)))
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        swap = {"changed": ["f"], "swapped": self.swapped, "missed": []}
        return Answer(
            outcome=outcome,
            reason=None if outcome in ("exact", "diverged") else "KeyError",
            files=self.files or {"swap.7.json": json.dumps(swap)},
        )


@pytest.mark.parametrize(
    ("outcomes", "truth"),
    [
        (("exact",), "exact"),
        (("exact", "cannot-run"), "exact-or-ends"),
        (("cannot-run",), "cannot-run"),
        (("refused",), "cannot-run"),
        (("diverged", "diverged", "exact"), "wrong"),
        (("exact", "diverged", "exact"), "wrong"),
        (("exact", "diverged", "diverged"), "one-rank"),
        (("diverged", "exact", "cannot-run"), "one-rank"),
    ],
)
def test_what_the_launches_say_of_a_mutant(release, outcomes, truth):
    (one, *_) = draw(release, OAK, seed=1, reached=rows())
    assert judge.verdict(Says(*outcomes), release, one, rows())["truth"] == truth


def test_code_that_was_not_swapped_is_never_called_right_or_wrong(release):
    (one, *_) = draw(release, OAK, seed=1, reached=rows())
    for outcomes in (("exact",), ("diverged", "diverged", "exact")):
        says = Says(*outcomes, swapped=0)
        assert judge.verdict(says, release, one, rows())["truth"] == "not-applied"


def test_a_launch_that_does_not_run_the_lines_is_not_asked(release):
    (one, *_) = draw(release, OAK, seed=1, reached=rows())
    some = [*rows(words=("tp2",)), *rows(frozenset({99}), words=("tp2.ep2",))]
    says = Says("exact")
    judge.verdict(says, release, one, some)
    assert says.asked == [("oak", "tp2")]


def test_a_check_is_asked_for_a_model_that_the_mutant_is_wrong_on():
    launch = {"layout": "tp2", "outcome": "exact"}
    row = {"launches": [{**launch, "model": "oak"}, {**launch, "model": "elm"}]}
    assert judge.models_of(row) == ["elm", "oak"]
    row["launches"][1]["outcome"] = "diverged"
    assert judge.models_of(row) == ["elm"]


def test_lines_of_a_launch_that_is_wrong_as_it_is_count_for_nothing(release):
    lines = {"lines.1": f"{FILE}:3\n{FILE}:4\n"}
    found = list(reach(Says("exact", "diverged", **lines), release, OAK))
    assert [row.lines for row in found] == [{FILE: {3, 4}}, {}]


def test_a_patch_swaps_the_code_that_runs_and_says_what_it_changed(release, tmp_path):
    """In a process of its own, as in a rank."""
    module = release / "sglang/place.py"
    module.write_text("def f(x):\n    return x + 1\n\n\ndef g(x):\n    return x\n")
    job = {"file": "sglang/place.py", "text": module.read_text().replace("+ 1", "+ 2")}
    inside = Path(judge.__file__).parent / "inside.py"
    script = (
        # the process that ranks are made from freezes what it has imported
        "import gc, json, sglang.place as p; g, f = p.g, p.f; gc.freeze()\n"
        f"JOB = json.loads({json.dumps({**job, 'out': str(tmp_path)})!r})\n"
        f"exec(compile(open({str(inside)!r}).read(), 'inside', 'exec'))\n"
        "print(f(1), g(1))\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=release, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "1"]
    (said,) = tmp_path.glob("swap.*.json")
    assert json.loads(said.read_text()) == {"changed": ["f"], "swapped": 1, "missed": []}


def test_a_patch_records_the_lines_that_run(release, tmp_path):
    module = release / "sglang/place.py"
    module.write_text("def f(x):\n    if x:\n        return 1\n    return 2\n")
    job = {"trace": ["sglang/place.py"], "out": str(tmp_path)}
    inside = Path(judge.__file__).parent / "inside.py"
    script = (
        "import json, sglang.place as p\n"
        f"JOB = json.loads({json.dumps(job)!r})\n"
        f"exec(compile(open({str(inside)!r}).read(), 'inside', 'exec'))\n"
        "p.f(0)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=release, check=True)
    (said,) = tmp_path.glob("lines.*")
    assert said.read_text().split() == ["sglang/place.py:2", "sglang/place.py:4"]


def test_the_release_is_never_written_to_whatever_a_check_does(release, tmp_path, monkeypatch):
    seen = []

    def run(self, tree, more):
        seen.append((tree / FILE).read_text())
        return {"findings": [], "sites": []}

    monkeypatch.setattr(Asker, "_run", run)
    asker = Asker(release=release, scratch=tmp_path / "scratch")
    one, two, *_ = draw(release, OAK, seed=1, reached=rows())
    asker.ask(one)
    asker.ask(two)
    assert seen == [SOURCE, one.mutation.apply(SOURCE), two.mutation.apply(SOURCE)]
    assert (release / FILE).read_text() == SOURCE


def finding(**other):
    return {"file": FILE, "line": 3, "rule": "lost-sum", "kind": "lost", "message": "m", **other}


def test_only_what_a_check_says_anew_is_its_answer():
    base = {"findings": [finding()], "sites": []}
    said = compared(base, {"findings": [finding(), finding(line=4)], "sites": []})
    assert [each["line"] for each in said["new"]] == [4]
    assert (said["lost"], said["changed"]) == ([], [])
    assert compared(base, {"findings": [], "sites": []})["lost"]
    assert compared(base, {"findings": [finding(message="n")], "sites": []})["changed"]
    assert compared(base, {"error": "cannot run"}) == {"error": "cannot run"}


def launched(outcome, layout="tp2.dp2"):
    return {"model": "oak", "layout": layout, "outcome": outcome}


def written(file, truths, *, control="diverged", scan=None):
    lines = [{"control": {"outcome": control}}]
    for number, truth in enumerate(truths):
        row = {"id": f"m{number}", "release": "1.0", "stratum": "oak", "file": FILE}
        row |= {"launches": [launched("diverged" if truth == "wrong" else "exact")]}
        row |= {"truth": truth, "mutation": {"operator": "guard-true", "line": number}}
        lines.append(row | ({"scan": scan[number]} if scan else {}))
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


NEW = {"new": [finding()], "lost": [], "changed": []}
NONE = {"new": [], "lost": [], "changed": []}


def test_recall_and_precision_have_their_denominators(tmp_path):
    truths = ["wrong", "wrong", "wrong", "exact", "exact", "cannot-run", "one-rank"]
    scan = [NEW, NEW, NONE, NEW, NONE, NEW, {"error": "no answer"}]
    text = table.tables(table.read([written(tmp_path / "a", truths, scan=scan)]))
    right = "2 of 3 (67 %)"
    assert f"| model | {right} | {right} | {right} | {right} |" in text
    gpu = [{**NEW, "new": [finding(needs=["a GPU"])]}] * 7
    text = table.tables(table.read([written(tmp_path / "b", truths, scan=gpu)]))
    assert "| model | 3 of 3 (100 %) | 0 of 3 (0 %) | 3 of 5 (60 %) | 0 of 0 |" in text


@pytest.mark.parametrize(
    ("said", "there"),
    [
        ({}, True),
        ({"launch": ["--tp-size", "4", "--dp-size", "4", "--enable-dp-attention"]}, True),
        ({"launch": ["--tp-size", "4", "--moe-dense-tp-size", "1"]}, False),
        ({"launch": ["--tp-size", "4", "--moe-a2a-backend", "deepep"]}, False),
        ({"launch": ["SGLANG_SHARED_EXPERT_TP1=1", "--tp-size", "4"]}, False),
        ({"takes": ["AF"]}, False),
        ({"conditions": ["get_is_capture_mode()"]}, False),
        ({"needs": ["a GPU"]}, False),
        ({"file": "sglang/srt/models/oak.py"}, True),
        ({"file": "sglang/srt/models/elm.py"}, False),
    ],
)
def test_a_finding_is_judged_where_the_engine_ran_what_it_speaks_of(said, there):
    row = {"launches": [launched("exact"), launched("cannot-run", "tp2.dp2.dense1")]}
    assert judged_there(row, finding(**said)) is there
    assert not judged_there(row, finding(**said), outcomes=("diverged",))


def test_a_finding_with_expert_parallelism_is_not_judged_without_it():
    said = finding(launch=["--tp-size", "4", "--dp-size", "4", "--ep-size", "2"])
    assert not judged_there({"launches": [launched("exact", "tp2.dp2")]}, said)
    assert judged_there({"launches": [launched("exact", "tp2.dp2.ep2")]}, said)


@pytest.mark.parametrize(
    ("deployment", "there"),
    [
        ({"tp_size": 2, "ep_size": 1, "dp_size": 2, "padding": "sum_len", "moe_dp_size": 1}, True),
        ({"tp_size": 2, "ep_size": 2, "dp_size": 2}, False),
        ({"tp_size": 2, "ep_size": 1, "dp_size": 2, "moe_a2a_backend": "deepep"}, False),
    ],
)
def test_a_deployment_is_judged_where_the_engine_ran_it(deployment, there):
    row = {"launches": [launched("diverged", "tp2.dp2")]}
    said = finding(file=None, subject="oak/Layer", deployment=deployment)
    assert judged_there(row, said) is there
    assert not judged_there(row, {**said, "subject": "elm/Layer"})


def test_findings_of_no_file_are_known_by_their_subject():
    base = {"findings": [finding(file=None, subject="oak/Layer")]}
    said = {"findings": [*base["findings"], finding(file=None, subject="elm/Layer")]}
    assert [each["subject"] for each in compared(base, said)["new"]] == ["elm/Layer"]


def test_parts_run_the_release_as_it_is_once(release, tmp_path):
    says = Says("exact")
    stratum = STRATA["qwen3_moe"]
    first = reached_once(says, release, stratum, tmp_path)
    asked = len(says.asked)
    assert asked == len(stratum.judges[0][1])
    assert reached_once(says, release, stratum, tmp_path) == first
    assert len(says.asked) == asked


def test_an_edit_that_two_parts_drew_counts_once(tmp_path):
    one = written(tmp_path / "a", ["wrong", "exact"])
    two = tmp_path / "b"
    two.write_text(one.read_text().replace('"m1"', '"m7"'))
    assert [row["id"] for row in table.read([one, two])] == ["m0", "m1"]


def test_a_judge_that_always_says_exact_is_noticed(tmp_path):
    with pytest.raises(table.TableError, match="control did not diverge"):
        table.read([written(tmp_path / "a", ["exact"], control="exact")])
    with pytest.raises(table.TableError, match="none of 2 mutants is wrong"):
        table.read([written(tmp_path / "b", ["exact", "exact"])])


def test_the_control_takes_the_sum_of_every_row_parallel_layer_away(release):
    file = release / judge.CONTROL
    file.parent.mkdir(parents=True)
    file.write_text(
        "def tensor_model_parallel_all_reduce(input_):\n    return group().all_reduce(input_)\n"
    )
    says = Says("diverged")
    assert judge.control(says, release, "oak")["outcome"] == "diverged"
    assert says.asked == [("oak", "tp2")]


def test_the_strata_are_said_and_their_launches_have_names():
    assert sum(each.quota for each in STRATA.values()) == 60 + 6 * 8
    for stratum in STRATA.values():
        for _, words in stratum.judges:
            assert [str(layout(word)) for word in words] == list(words)
