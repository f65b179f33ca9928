"""The drawing of a finding's counts."""

import pytest

from verify.report.render.counts_text import counts_lines
from verify.report.render.page import Page
from verify.report.report import Finding


def drawn(counts):
    finding = Finding(rule="ranks-disagree", message="m", counts=counts)
    return [line.plain for line in counts_lines(finding, Page(width=80), indent="")]


def test_a_column_a_rank_and_a_line_a_partial_sum():
    head, *partials, said = drawn(((1, 2), (0, 1)))
    assert head.split() == ["in", "rank", "0", "1"]
    assert [line.split()[3:] for line in partials] == [["1", "-"], ["2", "1"]]
    assert said == "1 is right; 1 of 4 missing (-), 1 of 4 too often"


@pytest.mark.parametrize("counts", [((), (1, 1)), ((), ())])
def test_a_rank_without_tokens_counts_nothing_and_lacks_nothing(counts):
    *_, said = drawn(counts)
    assert said == "each once"
