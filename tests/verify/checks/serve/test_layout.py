"""Layouts: one spelling each, and only legal ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verify.checks.serve.layout import ONE, every, illegal, parse
from verify.engines.sglang.serving import tables
from verify.errors import VerifyError


@given(st.sampled_from([ONE, *every()]))
def test_what_is_written_is_read_back(layout):
    assert parse(str(layout)) == layout


@pytest.mark.parametrize(
    "text", ["", "tp3x", "ep2.tp2", "tp1.ep1", "tp2.tp2", "tp8", "tp2.dp4", "tp2.dense2", "pp2"]
)
def test_any_other_text_is_refused_in_a_line(text):
    with pytest.raises(VerifyError, match="--layout"):
        parse(text)


def test_the_enumeration_holds_what_matters():
    named = {str(layout) for layout in every()}
    assert {"tp2", "tp2.ep2", "tp4", "tp2.dp2.ep2", "tp4.dp2.ep2", "tp2.cp2.moe_dp2"} <= named
    assert len(named) == len(list(every()))
    assert not any(illegal(layout) for layout in every())


def test_a_launch_is_the_servers_own_arguments():
    assert " ".join(tables.launch(parse("tp2.dp2.ep2"))) == (
        "--tp-size 2 --dp-size 2 --enable-dp-attention --ep-size 2"
    )
    assert tables.launch(ONE) == ()
