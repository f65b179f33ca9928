"""What is executed by default, and how it is chosen."""

import pytest

from verify.replay.command import chosen
from verify.replay.deployments import ALL_TO_ALL, row_of


def test_all_kinds_of_deployments_of_four_ranks_are_executed():
    everything = chosen(4, [])
    assert {d.all_to_all for d in everything} == {"", *ALL_TO_ALL}
    assert {d.stages for d in everything} == {1, 2}
    assert {d.world_size for d in everything} == {4}
    assert any(d.dwdp for d in everything)


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("dp_size=4,ep_size=4,moe_a2a_backend=none,dwdp_size=1,quantization=None", "0010"),
        ("moe_a2a_backend=pplx", "0000"),
        ("dwdp_size=4", "0000"),
        ("pp_size=2,fusion=flashinfer", "1000"),
    ],
)
def test_a_filter_names_values_as_the_report_does(text, row):
    assert {row_of(deployment) for deployment in chosen(4, [text])} == {row}


def test_what_prove_does_not_know_is_not_compared():
    assert not any(
        d.is_proved for d in chosen(4, ["pp_size=2", "dwdp_size=4", "dp_size=4"]) if d.all_to_all
    )
    assert all(d.is_proved for d in chosen(4, ["pp_size=1,dwdp_size=1,moe_a2a_backend=none"]))
