"""What is executed by default, and how it is chosen."""

import pytest

from verify.checks.replay.command import chosen
from verify.checks.replay.deployments import ALL_TO_ALL, Execution, executable, row_of

SCATTERV = "dp_size=4,ep_size=4,moe_a2a_backend=none,dwdp_size=1,quantization=None"


def test_all_kinds_of_deployments_of_four_ranks_are_executed():
    everything = chosen(4, [])
    assert {d.all_to_all for d in everything} == {"", *ALL_TO_ALL}
    assert {d.stages for d in everything} == {1, 2}
    assert {d.world_size for d in everything} == {4}
    assert any(d.dwdp for d in everything)


@pytest.mark.parametrize(
    ("text", "row"),
    [
        (f"{SCATTERV},padding=sum_len", "0010"),
        (f"{SCATTERV},padding=max_len,dense_fully_dp=False", "0110"),
        ("attn_cp_size=4,moe_dp_size=1,fusion=flashinfer", "0000"),
        ("moe_a2a_backend=pplx", "0000"),
        ("dwdp_size=4", "0010"),
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


@pytest.mark.parametrize("ranks", range(1, 9))
def test_a_deployments_row_is_what_the_communicator_computes(ranks):
    for deployment in executable(ranks):
        assert row_of(deployment) == communicator_row(deployment), deployment.as_json()


def test_what_the_release_answered_itself_holds():
    (deployment, *_) = chosen(4, [f"{SCATTERV},padding=sum_len"])
    assert row_of(deployment, {"DP": False, "FI": False}) == "0000"
    assert row_of(deployment, {"DP": False, "FI": True}) == "0001"
    assert row_of(deployment, None) == "0010"


def communicator_row(deployment: Execution) -> str:
    """0.5.11, layers/communicator.py:697-720: RS does not ask about DP; no AF where CP gathers.

    0.5.23, layers/moe/utils.py:721-750: with `dwdp` tokens are scattered, and DP does not ask.
    """
    config = deployment.config
    fuses = deployment.fusion != "off" and config.attn_cp_size <= config.moe_dp_size
    pads = config.attn_dp_size > 1 and deployment.padding == "max_len"
    own_tokens = config.moe_a2a_backend != "none" or deployment.fp4_allgather or deployment.dwdp
    scatters = pads and not own_tokens
    flags = (fuses, scatters, deployment.sums_by_scatterv, deployment.fp4_allgather)
    return "".join(str(int(flag)) for flag in flags)
