"""The tables of docs/results: which models are covered, and by which corruptions."""

import importlib.util
import json
from pathlib import Path

import pytest

import verify

RESULTS = Path(verify.__file__).parents[1] / "docs" / "results"
SCRIPT = RESULTS / "serve_tables.py"
SPEC = importlib.util.spec_from_file_location("serve_tables", SCRIPT)
tables = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tables)


def corruption(seen="diverged", nats=2.0, how="doubled"):
    return {"where": "a.py:1 mlp all_reduce of 2", "how": how, "nats": nats, "seen": seen}


def row(layout="tp2", outcome="exact", **more):
    return {
        "release": "toy 1",
        "model": "good",
        "layout": layout,
        "launch": [layout],
        "outcome": outcome,
        "dlogprob": 1e-6,
        "tolerance": 1e-4,
        "step": "prefill",
        "module": None,
        "accused": {},
        "reason": None,
        "corruptions": [corruption()],
        "seed": 0,
        "arguments": [],
        "patch_digest": None,
        "thorough": False,
        "source": "s",
        "builder": "b",
        "versions": {"torch": "2"},
        "seconds": 3.0,
        **more,
    }


PLAIN = [row("tp2"), row("tp2.ep2"), row("tp4")]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ([], ""),
        ([row("tp2.dp2.ep2")], ""),
        # the model does not know the layout, which is said in its row
        ([row("tp2.dp2.ep2", "sizes-differ", corruptions=[])], ""),
        ([row("tp2.dp2.ep2", "diverged")], "tp2.dp2.ep2 diverged"),
        ([row("tp2.dp2.ep2", "ill-conditioned")], "tp2.dp2.ep2 ill-conditioned"),
        ([row("tp2.dp2.ep2", corruptions=[])], "tp2.dp2.ep2: 0 corruptions not seen"),
        (
            [row("tp2.dp2.ep2", corruptions=[corruption("not-seen", 0.0)])],
            "tp2.dp2.ep2: 1 corruptions not seen",
        ),
        # what an argument of the launch does is another matter
        ([row("tp2.dp2.ep2", "diverged", arguments=["--x"])], ""),
        ([row("tp4.dense1", "diverged")], ""),
    ],
)
def test_a_model_is_covered_in_every_layout_with_every_corruption_seen(more, why):
    assert tables.covered([*PLAIN, *more], argued=False) == why


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_layout_that_was_not_run_is_not_covered(missing):
    rows = [each for each in PLAIN if each is not PLAIN[missing]]
    assert tables.covered(rows, argued=False) == f"{PLAIN[missing]['layout']} not run"


def test_each_way_in_which_rows_were_made_is_said_with_how_many():
    later = row("tp4", versions={"torch": "3", "python": "3.12", "version": "1"})
    lines = list(tables.section("toy 1", [*PLAIN[:2], later], argued=[]))
    assert "Made with python 3.12, torch 3 (1); torch 2 (2).\n" in lines


def test_all_layouts_of_a_control_and_of_the_same_repaired_stand_side_by_side():
    layouts = ["tp2", "tp4", *(f"tp4.dp{dp}.cp{cp}" for dp in (2, 3, 4) for cp in range(2, 9))]
    repaired = [row(layout, patch_digest="p", dlogprob=3e-6) for layout in layouts]
    rows = [row("tp2", "diverged", dlogprob=5.43), row("tp4"), *repaired, row(model="other")]
    lines = list(tables.section("toy 1", rows, argued=[]))
    assert "| layout | good | good repaired |" in lines
    assert "| tp2 | **diverged 5.4** | 3e-06 |" in lines
    assert "| tp4.dp4.cp8 | - | 3e-06 |" in lines
    assert "All layouts, seed 0:\n" not in tables.section("toy 1", rows[:12], argued=[])


def test_a_divergence_counts_only_where_it_is_argued():
    rows = [row(layout, "diverged", dlogprob=None) for layout in tables.NEEDED]
    assert tables.covered(rows, argued=False) == "tp2 diverged"
    assert tables.covered(rows, argued=True) == ""


def test_of_rows_of_one_case_the_last_counts_and_a_thorough_one_more():
    first, last = row(seconds=1.0), row(seconds=2.0)
    thorough = row(seconds=9.0, thorough=True)
    assert tables.latest([first, last]) == [last]
    assert tables.latest([thorough, last]) == [thorough]


def test_the_tables_say_what_was_seen_and_what_has_no_number(tmp_path, capsys):
    file = tmp_path / "results.jsonl"
    hidden = corruption("in-module", 1e-6)
    rows = [
        *PLAIN[:2],
        row("tp4", corruptions=[hidden, corruption("not-seen", 1e-6, "over moe_ep:0")]),
        row("tp2", "cannot-run", model="bad", dlogprob=None, reason="a kernel at a.py:7"),
        row("tp2", "diverged", model="lost", dlogprob=None, module="model.layers.0"),
    ]
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    assert tables.main([str(file)]) == 0
    said = capsys.readouterr().out
    assert "Seed 0: 0 of 3 models covered." in said
    assert "| good | 1e-06 | 1e-06 | 1e-06 | - | 1e-04 | 3 of 4 | tp4: 1 corruptions not" in said
    assert "| bad | tp2 | cannot run | a kernel at a.py:7 |" in said
    assert "| lost | `tp2` | 0 | not a number | prefill | model.layers.0 | None |" in said
    assert "| over another group | 0 | 0 | 0 | 0 | 0 | 1 |" in said
    assert "| doubled | 2 | 1 | 0 | 0 | 0 | 0 |" in said
    assert "| good | tp4 | a.py:1 mlp all_reduce of 2 | over moe_ep:0 | 1.0e-06 |" in said
    assert "2 ranks, without --corruptions: median 3.0 s of 3 cases" in said


def test_no_case_is_said(tmp_path, capsys):
    file = tmp_path / "results.jsonl"
    file.write_text("")
    assert tables.main([str(file)]) == 2
    assert "no case" in capsys.readouterr().err


def test_a_line_a_launch_says_what_was_set_and_how_its_corruptions_showed(tmp_path, capsys):
    file = tmp_path / "results.jsonl"
    hidden = corruption("in-module", 0.1)
    fusion = "--enable-flashinfer-allreduce-fusion"
    rows = [
        row(dlogprob=0.204, tolerance=0.9, corruptions=[corruption(nats=4.44), hidden]),
        row(
            dlogprob=5.0,
            tolerance=0.9,
            launch=["A=1", "tp2"],
            arguments=["--runner", "plain", fusion],
            seed=1,
        ),
        row("tp4", "cannot-run", dlogprob=None, tolerance=None, reason="at a.py:7", corruptions=[]),
        row("tp4", patch="fixed.py", patch_digest="p"),
        row("tp4", "diverged", patch="fixed.py HOW=badly", patch_digest="p"),
    ]
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    assert tables.main(["--launches", str(file)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[4:] == [
        "| good | tp2 | as released | exact | 0.20 | 0.90 "
        "| 2: 1 diverged by at least 4.4, 1 in their module |",
        "| good | tp2 | A=1, --runner plain, fusion on, seed 1 | exact | 5.00 | 0.90 "
        "| 1: 1 diverged by at least 2.0 |",
        "| good | tp4 | as released | cannot run |  |  | at a.py:7 |",
        "| good | tp4 | fixed.py | exact | 0.00 | 0.00 | 1: 1 diverged by at least 2.0 |",
        "| good | tp4 | fixed.py HOW=badly | diverged | 0.00 | 0.00 "
        "| 1: 1 diverged by at least 2.0 |",
        "",
    ]


@pytest.mark.parametrize("release", ["0.5.11", "0.5.17"])
def test_the_page_about_gpus_has_a_line_of_every_row_and_no_other(release, capsys):
    files = sorted(RESULTS.glob(f"serve-{release}-h200-x*.jsonl"))
    assert tables.main(["--launches", *map(str, files)]) == 0
    _, rest = (RESULTS / "serve-gpus.md").read_text().split(f"## {release}\n\n")
    shown = rest.split("\n\n")[0].splitlines()
    assert shown == capsys.readouterr().out.splitlines()[2:-1]
    assert len(shown) > 40
