"""`report --source`: the migrated calls in a source, and every way they can be wrong."""

import json
from pathlib import Path

import pytest

from oracles import SITES
from verify.checks.pull_request.readings import compare
from verify.checks.pull_request.release import Release, read_release
from verify.cli.command_line import main
from verify.engines.sources import open_source

MODELS = "sglang/srt/models"


def read(folder: Path) -> Release:
    with open_source(str(folder)) as tree:
        return read_release(tree, compare(SITES))


def edit(folder: Path, model: str, old: str, new: str, *, count: int = 1) -> None:
    file = folder / MODELS / f"{model}.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, count))


def against(release: Release) -> dict[str, str]:
    return {found.comparison.site.id: release.against(found) for found in release.found}


def test_a_source_written_from_the_oracles_is_as_stated(source: Path) -> None:
    release = read(source)
    assert set(against(release).values()) == {"as stated"}
    assert len(release.found) == 22
    assert release.findings() == ()
    assert release.summary == (
        "sglang unknown (helper-arguments): 22 of 22 sites as the oracles state"
    )


def test_a_renamed_file_is_found_all_the_same(source: Path) -> None:
    (source / MODELS / "mimo_v2_flash.py").rename(source / MODELS / "mimo_v2.py")
    assert read(source).findings() == ()


def test_a_second_file_of_the_same_names_is_a_stray(source: Path) -> None:
    """The model's own file is the one compared; sorted by name the copy would come first."""
    text = (source / MODELS / "llama4.py").read_text()
    (source / MODELS / "a_copy.py").write_text(
        text.replace("is_tp_path=True, ", "is_tp_path=True, x=1, ")
    )
    release = read(source)
    assert set(against(release).values()) == {"as stated"}
    assert [stray.file for stray in release.strays] == [f"{MODELS}/a_copy.py"]


CORRUPTIONS = {
    "a keyword dropped": (
        "llada2",
        ", use_reduce_scatter=use_reduce_scatter)",
        ")",
        "passes nothing, stated are use_reduce_scatter; "
        "the guard differs from the helper in rows 0100 1100",
    ),
    "a keyword given another value": (
        "llama4",
        "use_reduce_scatter=use_reduce_scatter",
        "use_reduce_scatter=False",
        "passes use_reduce_scatter=False; the guard differs from the helper in rows 0100 1100",
    ),
    "two keywords crossed": (
        "step3p5",
        "use_reduce_scatter=use_reduce_scatter, should_allreduce_fusion=should_allreduce_fusion",
        "use_reduce_scatter=should_allreduce_fusion, should_allreduce_fusion=use_reduce_scatter",
        "passes use_reduce_scatter=should_allreduce_fusion; "
        "passes should_allreduce_fusion=use_reduce_scatter",
    ),
    "a parameter renamed": (
        "exaone_moe",
        "hidden_states, use_reduce_scatter=False",
        "hidden_states, scatter=False",
        "receives nothing, stated are RS; the guard differs from the helper in rows 0100 1100",
    ),
    "another collective": (
        "qwen2_moe",
        "= tensor_model_parallel_all_reduce",
        "= moe_tensor_model_parallel_all_reduce",
        "reduces by moe_tensor_model_parallel_all_reduce, "
        "stated is tensor_model_parallel_all_reduce",
    ),
    "a condition that matters": (
        "bailing_moe",
        "> 1 and not should_skip",
        "> 1 or not should_skip",
        "the guard differs from the helper in rows 0001 0010 0011 0100 0101 0110 0111 1000 1001 "
        "1010 1011 1100 1101 1110 1111",
    ),
}


@pytest.mark.parametrize(("model", "old", "new", "message"), CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_call_that_differs_is_a_finding_with_its_place(
    model: str, old: str, new: str, message: str, source: Path
) -> None:
    edit(source, model, old, new)
    (finding,) = read(source).findings()
    lines = (source / MODELS / f"{model}.py").read_text().splitlines()
    assert finding.file == f"{MODELS}/{model}.py"
    assert finding.line is not None
    assert "should_skip_post_experts_all_reduce" in lines[finding.line - 1]
    assert (finding.rule, finding.message) == ("migrated-call-differs", message)


def test_a_condition_that_the_helper_implies_changes_nothing(source: Path) -> None:
    edit(source, "minimax_m2", "> 1 and not", "> 1 and not use_reduce_scatter and not")
    assert read(source).findings() == ()


def test_a_call_on_the_wrong_path_is_missing_on_its_own(source: Path) -> None:
    edit(source, "sdar_moe", "is_tp_path=True", "is_tp_path=False")
    missing, stray = read(source).findings()
    assert missing.rule == "migrated-call-missing"
    assert missing.message == "no call to the helper on the TP path"
    assert missing.line is not None
    assert stray.rule == "migrated-call-unstated"
    assert stray.subject == "SDARMoeSparseMoeBlock.forward_normal/EP"


def test_a_guard_written_out_again_is_missing_and_open_coded(source: Path) -> None:
    call = next(site for site in SITES if site.model == "llada2")
    edit(
        source,
        "llada2",
        "not should_skip_post_experts_all_reduce(is_tp_path=True, "
        "use_reduce_scatter=use_reduce_scatter)",
        "not use_reduce_scatter",
    )
    release = read(source)
    (finding,) = release.findings()
    assert (finding.rule, finding.subject) == ("migrated-call-missing", call.id)
    assert [site.id for site in release.open_coded] == [call.id]


def test_a_model_that_is_gone_is_missing_without_a_line(source: Path) -> None:
    (source / MODELS / "llama4.py").unlink()
    (finding,) = read(source).findings()
    assert (finding.rule, finding.file, finding.line) == (
        "migrated-call-missing",
        f"{MODELS}/llama4.py",
        None,
    )


def test_a_file_that_is_no_python_is_named(source: Path) -> None:
    edit(source, "llama4", "class Llama4MoE:", "class Llama4MoE")
    release = read(source)
    rules = [finding.rule for finding in release.findings()]
    assert rules == ["not-analysed", "migrated-call-missing"]
    assert len(release.unread) == 1
    assert f"{MODELS}/llama4.py" in release.unread[0]


def test_a_call_nobody_states_is_a_finding(source: Path) -> None:
    (source / MODELS / "newest.py").write_text(
        "class Newest:\n"
        "    def forward(self, x):\n"
        "        if not should_skip_post_experts_all_reduce(is_tp_path=True):\n"
        "            x = tensor_model_parallel_all_reduce(x)\n"
        "        return x\n"
    )
    (finding,) = read(source).findings()
    assert finding.rule == "migrated-call-unstated"
    assert (finding.file, finding.line) == (f"{MODELS}/newest.py", 3)


def test_a_call_outside_a_class_is_seen_too(source: Path) -> None:
    (source / MODELS / "plain.py").write_text(
        "def reduced(x, is_tp):\n"
        "    skip = moe.should_skip_post_experts_all_reduce(is_tp_path=is_tp)\n"
        "    return x if skip else tensor_model_parallel_all_reduce(x)\n"
    )
    (finding,) = read(source).findings()
    assert (finding.cls, finding.method, finding.line) == (None, "reduced", 2)
    assert finding.subject == "reduced/?"


def test_a_flag_defined_otherwise_is_a_finding(source: Path) -> None:
    utils = source / "sglang/srt/layers/moe/utils.py"
    utils.write_text(utils.read_text().replace("get_attention_dp_size() > 1", "True"))
    assert read(source).findings() == ()  # FI aside, equal sizes above 1 imply it
    utils.write_text(utils.read_text().replace("and is_dp_attention_enabled()", "", 1))
    (finding,) = (f for f in read(source).findings() if f.subject == "FI")
    assert finding.rule == "flag-redefined"
    assert "differs with moe_runner_backend=flashinfer_cutlass" in finding.message


def test_an_atom_that_no_configuration_answers_is_said(source: Path) -> None:
    utils = source / "sglang/srt/layers/moe/utils.py"
    utils.write_text(utils.read_text().replace("and is_dp_attention_enabled()", "and is_monday()"))
    verdicts = {d.flag: d.verdict for d in read(source).definitions}
    assert "is_monday() is not part of a configuration here" in verdicts["FI"]


def test_a_definition_that_adds_sizes_up_is_said(source: Path) -> None:
    utils = source / "sglang/srt/layers/moe/utils.py"
    old, new = "and is_dp_attention_enabled()", "and get_attention_dp_size() + 1 > SOME"
    utils.write_text(utils.read_text().replace(old, new))
    verdicts = {d.flag: d.verdict for d in read(source).definitions}
    assert "+ 1 > SOME is not part of a configuration here" in verdicts["FI"]


def test_a_definition_that_cannot_be_followed_is_said(source: Path) -> None:
    utils = source / "sglang/srt/layers/moe/utils.py"
    loop = "\n\ndef loop():\n    return loop()\n"
    utils.write_text(
        utils.read_text().replace("and is_dp_attention_enabled()", "and loop()") + loop
    )
    release = read(source)
    verdicts = {d.flag: d.verdict for d in release.definitions}
    name = "should_use_flashinfer_cutlass_moe_fp4_allgather()"
    assert f"{name} is not part of a configuration here" in verdicts["FI"]
    assert any("cannot be followed: calls nested deeper" in line for line in release.unread)


def test_original_guards_before_the_helper(original_source: Path) -> None:
    release = read(original_source)
    assert release.generation == "open-coded"
    assert set(against(release).values()) == {"as the original"}
    assert release.findings() == ()


def test_original_guards_that_differ_say_in_what(original_source: Path) -> None:
    edit(original_source, "sdar_moe", " and not use_reduce_scatter", "")
    edit(original_source, "step3p5", "not should_allreduce_fusion", "should_allreduce_fusion")
    edit(
        original_source,
        "hunyuan_v3",
        "> 1 and not should_use",
        "> 1 and not should_use_flashinfer_cutlass_moe_fp4_allgather() and not should_use",
    )
    words = [word for word in against(read(original_source)).values() if word != "as the original"]
    assert words == [
        "knows FI besides",
        "lacks RS",
        "differs in rows 0000 1000",
    ]


def test_a_flag_that_the_source_lacks_is_left_out_of_the_comparison(
    original_source: Path,
) -> None:
    utils = original_source / "sglang/srt/layers/moe/utils.py"
    text = utils.read_text()
    utils.write_text(text[: text.index("def should_use_dp_reduce_scatterv")])
    for site in SITES:
        file = original_source / MODELS / f"{site.model}.py"
        file.write_text(file.read_text().replace("not should_use_dp_reduce_scatterv()", "True"))
    release = read(original_source)
    assert {d.flag: d.verdict for d in release.definitions}["DP"] == "not in this source"
    assert set(against(release).values()) == {"as the original"}
    assert release.sections()[0].notes[-1] == "There is no DP here: compared where it is False."


def test_what_a_reader_sees(source: Path) -> None:
    (source / MODELS / "exaone_moe.py").unlink()
    edit(source, "llama4", "class Llama4MoE:", "class Llama4MoE")
    sites, flags, unread = read(source).sections()
    assert sites.title == ("sglang unknown: the migrated calls, against what the oracles state")
    assert sites.rows[0] == ("bailing_moe.py:9", "forward_normal TP", "as stated")
    assert ("exaone_moe", "forward TP", "no call to the helper on the TP path") in sites.rows
    assert sites.notes == ()
    assert flags.rows == (
        ("DP", "the same in 296 configurations"),
        ("FI", "the same in 296 configurations"),
    )
    assert [row[0].partition(":")[0] for row in unread.rows] == [f"{MODELS}/llama4.py"]


def test_other_shapes_are_said_not_to_be_judged(original_source: Path) -> None:
    sites = read(original_source).sections()[0]
    assert sites.title == (
        "sglang unknown: the helper is not there yet; the guards that are, "
        "against the original ones"
    )
    assert sites.notes == ("Laid side by side, not judged: `scan` judges.",)


def test_the_command_with_a_source(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--source", str(source), "--format", "json"]) == 0
    captured = capsys.readouterr()
    payload = json.loads(captured.out)
    assert payload["source"] == {
        "name": "sglang",
        "version": "unknown",
        "generation": "helper-arguments",
    }
    assert len(payload["calls"]) == 22
    assert payload["calls"][0] == {
        "id": "bailing_moe/BailingMoESparseMoeBlock.forward_normal/TP",
        "call": {
            "file": f"{MODELS}/bailing_moe.py",
            "line": 9,
            "cls": "BailingMoESparseMoeBlock",
            "method": "forward_normal",
            "path": "TP",
            "passes": {
                "use_reduce_scatter": "use_reduce_scatter",
                "should_allreduce_fusion": "should_allreduce_fusion",
            },
        },
        "guard": {
            "file": f"{MODELS}/bailing_moe.py",
            "line": 10,
            "guard": "not AF and not RS and not DP and not FI and "
            "BailingMoESparseMoeBlock.tp_size > 1",
            "skips_on": ["AF", "RS", "DP", "FI"],
        },
        "against": "as stated",
    }
    (claim,) = (c for c in payload["claims"] if c["id"] == "all-migrated")
    assert claim["verdict"] == "holds"
    assert captured.err.endswith("22 of 22 sites as the oracles state\n")


def test_a_finding_in_the_source_exits_with_1(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(source, "llada2", ", use_reduce_scatter=use_reduce_scatter)", ")")
    assert main(["report", "--source", str(source)]) == 1
    assert "migrated-call-differs" in capsys.readouterr().out


def test_a_guard_that_reads_a_flag_without_the_helper_breaks_the_claim(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / MODELS / "newest.py").write_text(
        "class Newest:\n"
        "    def forward(self, x, should_allreduce_fusion=False):\n"
        "        if self.tp_size > 1 and not should_allreduce_fusion:\n"
        "            x = tensor_model_parallel_all_reduce(x)\n"
        "        return x\n"
    )
    assert main(["report", "--source", str(source), "--format", "json"]) == 0
    verdicts = {c["id"]: c["verdict"] for c in json.loads(capsys.readouterr().out)["claims"]}
    assert verdicts["all-migrated"] == "fails"


def test_a_folder_that_is_no_source_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--source", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


@pytest.mark.network
def test_release_0_5_11_holds_the_22_calls(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--source", "sglang==0.5.11", "--format", "json"]) == 0
    payload = json.loads(capsys.readouterr().out)
    assert [call["against"] for call in payload["calls"]] == ["as stated"] * 22
    assert payload["strays"] == []
    assert {d["against"] for d in payload["definitions"]} == {"the same in 296 configurations"}


@pytest.mark.network
def test_release_0_5_10_post1_has_no_helper_yet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--source", "sglang==0.5.10.post1", "--format", "json"]) == 0
    payload = json.loads(capsys.readouterr().out)
    assert payload["source"]["generation"] == "open-coded"
    others = {
        call["id"]: call["against"]
        for call in payload["calls"]
        if call["against"] != "as the original"
    }
    gone = "not in this source"
    assert others == {
        "hunyuan_v3/HYV3MoEFused._forward_single_stream/EP": gone,
        "hunyuan_v3/HYV3MoEFused._forward_single_stream/TP": gone,
        "hunyuan_v3/HYV3MoEFused._forward_dual_stream/EP": gone,
        "hunyuan_v3/HYV3MoEFused._forward_dual_stream/TP": gone,
        "minimax_m2/MiniMaxM2MoE.forward_normal/TP": "lacks AF RS FI",
        "qwen3_moe/Qwen3MoeSparseMoeBlock.forward_normal/EP": "lacks RS",
    }
