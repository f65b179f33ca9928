"""Which cases there are: nothing reachable is left out, and each agrees with the ledger's row."""

from dataclasses import replace
from functools import cache
from itertools import product

import pytest
import torch

from gpu_tests.blocks import ALL_SITES, DENSE, subjects
from gpu_tests.cases import DTYPES, Case
from gpu_tests.expect import expected
from gpu_tests.job import check_world
from gpu_tests.plan import cases, check_guard, runnable
from gpu_tests.tokens import PADDING, token_plan
from verify.errors import VerifyError

WORLDS = (1, 2, 3, 4, 6, 8)


@cache
def every_case(world_size, guard="helper"):
    return tuple(cases(world_size=world_size, guard=guard, dtypes=("float32",)))


def test_every_site_is_in_every_world():
    for world_size in WORLDS:
        found = {site.id for case in every_case(world_size) for site in case.sites}
        assert found == {site.id for site in ALL_SITES}


@pytest.mark.parametrize("guard", ["helper", "oracle", "not AF"])
@pytest.mark.parametrize("world_size", WORLDS)
def test_rows_are_the_ledgers(world_size, guard):
    for case in every_case(world_size, guard):
        assert expected(case).row == case.row, case.title


def test_every_row_a_deployment_reaches_is_run():
    rows = {case.row for case in every_case(4) if not case.dense}
    possible = {"".join(bits) for bits in product("01", repeat=4)} - {
        "0011",
        "0111",
        "1011",
        "1111",
    }
    # RS needs tokens scattered after the block, which FI has already done inside it
    assert rows == possible - {"0101", "1101"}
    # a dense layer of the same server has no dispatcher
    assert {case.row for case in every_case(4) if case.dense} == possible


def test_every_kind_of_layout_is_run():
    configs = {deployment.config for deployment in runnable(4)}
    assert {(c.ep_size, c.moe_tp_size, c.moe_dp_size) for c in configs} == {
        (1, 4, 1), (2, 2, 1), (4, 1, 1), (1, 2, 2), (2, 1, 2), (1, 1, 4)
    }  # fmt: skip
    assert {c.attn_dp_size for c in configs} == {1, 2, 4}


@pytest.mark.parametrize("subject", [DENSE.block, "mimo_v2_flash/MiMoV2MoE.forward_normal"])
def test_no_legal_deployment_is_left_out(subject):
    """What does not become a case of its own is a duplicate of one that does."""
    run = {(case.subject, case.communication) for case in every_case(4)}
    for deployment in runnable(4):
        # a shared expert fused into the routed ones communicates as none does
        if deployment.shared in ("none", "fused"):
            case = Case(
                subject=subject,
                deployment=replace(deployment, shared="none"),
                guard="helper",
                dtype="float32",
            )
            assert (case.subject, case.communication) in run


def test_every_producer_mode_and_layout_meet():
    met = {
        (case.producer, case.mode, case.deployment.context_parallel_extend)
        for case in every_case(4)
    }
    assert met == {
        ("experts", "full", False),
        ("experts", "full", True),
        ("experts", "moe_full", False),
        ("experts", "moe_full", True),
        ("FP4 all-gather", "scattered", False),
        ("all-to-all", "scattered", False),
        ("all-to-all", "scattered", True),
        ("dense MLP", "full", False),
        ("dense MLP", "full", True),
        ("whole dense MLP", "scattered", False),
        ("whole dense MLP", "scattered", True),
    }


def test_no_case_comes_twice_and_order_is_stable():
    first = every_case(4)
    assert first == every_case.__wrapped__(4)
    keys = [(case.subject, case.communication) for case in first]
    assert len(keys) == len(set(keys))


def test_one_model_is_a_part_of_all():
    some = list(cases(world_size=2, dtypes=DTYPES, models=("qwen3_moe",)))
    assert {case.subject for case in some} == set(subjects(("qwen3_moe",)))
    assert {case.dtype for case in some} == set(DTYPES)


def test_tokens_are_numbered_once_and_padded_evenly():
    for deployment in runnable(4):
        plan = token_plan(deployment)
        ids = [token for group in plan.ids for token in group if token != PADDING]
        assert set(ids) == set(range(1, plan.total + 1))
        ranks = deployment.config.attn_tp_size
        for own in plan.ids:
            # scattered, every rank's first row is a token, unless the group has none at all
            shares = range(0, len(own), max(1, len(own) // ranks))
            assert PADDING not in {own[first] for first in shares}
        if deployment.config.attn_dp_size > 1:
            assert len(ids) == plan.total
            assert all(rows % deployment.config.attn_tp_size == 0 for rows in plan.rows)
            if deployment.padding == "max_len":
                assert len(set(plan.rows)) == 1
                assert PADDING in {token for group in plan.ids for token in group}


def test_zero_tokens_leave_a_group_empty():
    empty = [d for d in runnable(4) if d.tokens == "zero"]
    assert empty
    assert all(min(token_plan(deployment).rows) == 0 for deployment in empty)


@pytest.mark.parametrize("world_size", [0, -1, 17])
def test_a_world_that_fits_no_layout_is_refused(world_size):
    with pytest.raises(
        VerifyError, match=f"--world-size {world_size} fits no layout: give 1 to 16"
    ):
        check_world(world_size, "gloo", local_ranks=world_size)


def test_gpus_that_are_not_there_are_missed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(VerifyError, match="torch finds no GPU here"):
        check_world(2, "nccl", local_ranks=2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    with pytest.raises(VerifyError, match="built without NCCL"):
        check_world(2, "nccl", local_ranks=2)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(VerifyError, match="2 ranks need 2 GPUs, this machine has 1: NCCL"):
        check_world(2, "nccl", local_ranks=2)
    check_world(1, "nccl", local_ranks=1)


@pytest.mark.parametrize("guard", ["import os", "XY", "AF +", ""])
def test_guards_that_are_no_guards_are_refused(guard):
    with pytest.raises(VerifyError):
        check_guard(guard)
