"""Ratios for `prove`. They print and never fail on speed; in CPU time, as neighbours share it."""

import importlib.util
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from helper import MoeConfig, reasons
from verify.checks.prove.judge import judge
from verify.checks.prove.lattice import prove
from verify.checks.prove.subject import Subject, helper_guards, helper_subjects, oracle_subjects
from verify.engines.ledger import LayerTraits
from verify.engines.sglang.layer import RELEASE_0_5_11, plan
from verify.parallel.deployment import Deployment, deployments

pytestmark = pytest.mark.bench

SAMPLE = 40


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def say(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        print(f"\nbench: {line}", end="")


@pytest.mark.slow
def test_the_whole_lattice(capsys):
    subjects = (*helper_subjects(), *oracle_subjects())
    tallies = []
    took = cpu_seconds(lambda: tallies.append(prove(subjects, max_world_size=64)))
    (tally,) = tallies
    say(
        capsys,
        f"22 sites and the helper, 1 to 64 ranks: {took:.1f} CPU s for {tally.deployments} "
        f"deployments, {tally.cases} cases, {tally.programs} programs; reach 10 CPU s "
        "(5 s on two cores)",
    )


def test_a_case_costs_the_same_whatever_the_flags(capsys, monkeypatch):
    """Guards are truth tables: twelve flags make 256 times the rows of four, and no more cases."""

    def ranks_8() -> float:
        subjects = (*helper_subjects(), *oracle_subjects())
        tallies = []
        took = min(
            cpu_seconds(lambda: tallies.append(prove(subjects, max_world_size=8))) for _ in range(3)
        )
        return took / tallies[0].cases

    four = ranks_8()
    more = tuple(
        replace(reasons.SKIP_REASONS[0], flag=f"X{index}", name=f"x{index}") for index in range(8)
    )
    monkeypatch.setattr(reasons, "SKIP_REASONS", (*reasons.SKIP_REASONS, *more))
    twelve = ranks_8()
    say(capsys, f"a case with 12 flags takes {twelve / four:.2f}x one with 4; reach 2x")


def test_against_real_tensors(capsys):
    path = Path(__file__).parents[1] / "verify" / "checks" / "prove" / "real_tensors.py"
    spec = importlib.util.spec_from_file_location("ledger_real_tensors", path)
    real_tensors = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(real_tensors)
    guards = helper_guards("two-site")
    traits = LayerTraits.of(guards)
    some = random.Random(0).sample(
        [each.deployment for each in deployments(max_world_size=8, min_world_size=8)], SAMPLE
    )

    def on_ranks() -> None:
        for deployment in some:
            mode = plan(deployment, traits, RELEASE_0_5_11).mode
            real_tensors.kind(deployment, mode, judge(deployment, guards).steps)

    ranks = cpu_seconds(on_ranks) / SAMPLE
    tallies = []
    subject = (Subject(name="helper", guards=guards),)
    lattice = cpu_seconds(lambda: tallies.append(prove(subject, max_world_size=8)))
    one_by_one = cpu_seconds(lambda: [judge(d, guards) for d in some]) / SAMPLE
    distinct = sum(1 for _ in deployments(max_world_size=8))
    say(
        capsys,
        f"a case of 8 ranks: {ranks * 1e3:.1f} ms on torch ranks, {one_by_one * 1e6:.0f} us judged "
        f"by itself ({ranks / one_by_one:.0f}x), {lattice / distinct * 1e6:.1f} us in the lattice "
        f"({ranks / (lattice / distinct):.0f}x); reach 100x",
    )


def test_one_large_deployment(capsys):
    config = MoeConfig(tp_size=64, ep_size=64, attn_dp_size=64, enable_dp_attention=True)
    guards = helper_guards("two-site")
    took = cpu_seconds(lambda: judge(Deployment(config=config), guards))
    say(capsys, f"tp=64 ep=64 dp=64: {took * 1e3:.1f} ms")
