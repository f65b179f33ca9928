"""Layouts: one spelling each, and only those that the engine's servers may have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verify.checks.serve.layout import ONE, chosen, parse
from verify.engines.sglang.serving import ENGINE
from verify.errors import VerifyError


@given(st.sampled_from([ONE, *ENGINE.layouts()]))
def test_what_is_written_is_read_back(layout):
    assert parse(str(layout)) == layout


@pytest.mark.parametrize("text", ["", "tp3x", "ep2.tp2", "tp1.ep1", "tp2.tp2", "tp0", "xp2"])
def test_any_other_text_is_refused_in_a_line(text):
    with pytest.raises(VerifyError, match="--layout"):
        parse(text)


@pytest.mark.parametrize("text", ["tp8", "tp2.dp4", "tp2.ep4", "tp2.dense2", "pp2"])
def test_what_no_server_can_have_is_refused_in_a_line(text):
    with pytest.raises(VerifyError, match=f"--layout {text}"):
        chosen(ENGINE, [text], everything=False)


def test_the_enumeration_holds_what_matters_once():
    named = [str(layout) for layout in chosen(ENGINE, ["tp4", "tp4"], everything=True)]
    assert named[0] == "tp4"
    assert {"tp2", "tp2.ep2", "tp2.dp2.ep2", "tp4.dp2.ep2", "tp2.cp2.moe_dp2"} <= set(named)
    assert len(named) == len(set(named))
    assert not any(map(ENGINE.illegal, ENGINE.layouts()))


def test_a_launch_is_the_servers_own_arguments():
    assert " ".join(ENGINE.launch(parse("tp2.dp2.ep2"))) == (
        "--tp-size 2 --dp-size 2 --enable-dp-attention --ep-size 2"
    )
    assert ENGINE.launch(ONE) == ()
    assert ENGINE.ranks(parse("tp2.dp2.ep2")) == 2


def test_the_gate_has_attention_groups_and_experts_of_their_own():
    named = chosen(ENGINE, ["gate", "tp2.ep2"], everything=False)
    assert list(map(str, named)) == ["tp2.ep2", "tp2.dp2.ep2"]
    assert not any(map(ENGINE.illegal, named))
