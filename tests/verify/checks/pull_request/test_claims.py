"""The pull request's sentences: the verdicts, their words, and that each can come out otherwise."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from oracles import SITES, Site
from verify.checks.pull_request.claims import Claim, Evidence, judge
from verify.checks.pull_request.reachable import reach
from verify.checks.pull_request.readings import compare
from verify.checks.pull_request.verdicts import Judged
from verify.checks.pull_request.verdicts import judged as decide
from verify.logic.flags import helper_skips


def judged(*sites: Site) -> dict[str, Claim]:
    claims = judge(Evidence(comparisons=compare(sites), reach=reach()))
    return {claim.id: claim for claim in claims}


def changed(change: Callable[[Site], Site]) -> dict[str, Claim]:
    return judged(*map(change, SITES))


VERDICTS = {
    "byte-identical": (
        "holds",
        "14 sites, diff rows: 0 under signature, 0 under called, 0 under passed",
    ),
    "covers-all-flags": (
        "conditional",
        "13 of 14 guards depend on AF, RS, DP, FI; "
        "qwen3_moe/Qwen3MoeSparseMoeBlock.forward_normal/EP does not depend on FI",
    ),
    "only-diff-is-fi": (
        "conditional",
        "6 sites, diff rows other than FI alone: "
        "0 under signature, 9 under called, 18 under passed",
    ),
    "latent-fixes": (
        "conditional",
        "6 sites change in a row; whose answer is right there is decided by `report --judge`",
    ),
    "hunyuan-ep": (
        "conditional",
        "2 sites, diff rows: 0 under signature, 0 under called, 12 under passed",
    ),
    "defaults-are-no-ops": (
        "holds",
        "296 configurations x 2 paths, answers changed by leaving the keywords out: 0; "
        "flags that matter though left out: 0",
    ),
    "all-migrated": (
        "conditional",
        "15 models with 22 sites are known here; "
        "`report --source` decides it for a release that has the helper",
    ),
    "paths-cannot-drift": (
        "holds",
        "rows in which the paths differ: 0001; reasons of one path: FI",
    ),
    "fi-and-ep": (
        "fails",
        "with tp_size=2 ep_size=2 attn_dp_size=2 enable_dp_attention=True "
        "moe_runner_backend=flashinfer_cutlass quantization=modelopt_fp4 FI is true and "
        "ep_size > 1, so 3 of 3 EP sites reduce what the dispatcher's combine has summed over "
        "the whole TP group; `report --judge` counts it",
    ),
    "counters-are-zero": (
        "holds",
        "under signature, Cat A: 0, Cat B: 0, Cat C: 0, Cat D EP: 0, Cat D TP: 0",
    ),
}


def test_every_claim_and_its_words() -> None:
    claims = judged(*SITES)
    assert {name: (c.verdict, c.evidence) for name, c in claims.items()} == VERDICTS


def without_fi(site: Site) -> Site:
    return replace(site, guard=site.guard.replace("not FI", "True"))


def forgetting_dp(site: Site) -> Site:
    return replace(site, guard=site.guard.replace("not DP", "True"))


@pytest.mark.parametrize(
    "claim", ["byte-identical", "only-diff-is-fi", "hunyuan-ep", "counters-are-zero"]
)
def test_guards_that_forget_dp_break_it(claim: str) -> None:
    assert changed(forgetting_dp)[claim].verdict == "fails"


def test_guards_that_forget_fi_cover_less() -> None:
    claim = changed(without_fi)["covers-all-flags"]
    assert claim.verdict == "fails"
    assert claim.evidence.startswith("0 of 14 guards depend on AF, RS, DP, FI; ")


def test_without_ep_sites_fi_is_irrelevant_to_them() -> None:
    tp_only = [site for site in SITES if site.path == "TP"]
    assert judged(*tp_only)["fi-and-ep"].verdict == "holds"


def test_ep_calls_that_skip_on_fi_would_make_it_irrelevant() -> None:
    skipping = tuple(replace(c, helper=c.helper | 1 << 0b0001) for c in compare(SITES))
    claims = judge(Evidence(comparisons=skipping, reach=reach()))
    (claim,) = (claim for claim in claims if claim.id == "fi-and-ep")
    assert claim.verdict == "holds"


def test_a_helper_whose_paths_differ_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "verify.checks.pull_request.claims.helper_skips",
        lambda *, path, handed: helper_skips(path=path, handed=handed) ^ (path == "EP"),
    )
    assert judged(*SITES)["paths-cannot-drift"].verdict == "fails"


def test_a_helper_whose_defaults_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    def corrupt(*, is_tp_path: bool, use_reduce_scatter: bool = True, **_: bool) -> bool:
        return use_reduce_scatter or is_tp_path

    monkeypatch.setattr(
        "verify.checks.pull_request.claims.should_skip_post_experts_all_reduce", corrupt
    )
    claim = judged(*SITES)["defaults-are-no-ops"]
    assert claim.verdict == "fails"
    assert "answers changed by leaving the keywords out: 296" in claim.evidence


@pytest.fixture(scope="module")
def judged_by_the_ledger() -> Judged:
    return decide(max_ranks=2)


def judged_with(ledger: Judged) -> dict[str, Claim]:
    claims = judge(Evidence(comparisons=compare(SITES), reach=reach(), judged=ledger))
    return {claim.id: claim for claim in claims}


def test_the_ledger_decides_what_predicates_cannot(judged_by_the_ledger: Judged) -> None:
    claims = judged_with(judged_by_the_ledger)
    assert claims["latent-fixes"].verdict == "conditional"
    assert claims["latent-fixes"].evidence == (
        "4 of 6 changed rows are fixes; "
        "hunyuan_v3/HYV3MoEFused._forward_single_stream/TP in 0001: both wrong; "
        "hunyuan_v3/HYV3MoEFused._forward_dual_stream/TP in 0001: both wrong"
    )
    assert claims["fi-and-ep"].verdict == "fails"
    assert claims["fi-and-ep"].evidence.startswith(
        "with FI alone, skipping EP too is exact more often at 3 blocks; "
        "hunyuan_v3/HYV3MoEFused._forward_dual_stream: in "
    )


def test_rows_that_no_deployment_reaches_are_no_fixes(judged_by_the_ledger: Judged) -> None:
    claims = judged_with(replace(judged_by_the_ledger, rows=()))
    assert claims["latent-fixes"].verdict == "fails"
    assert claims["latent-fixes"].evidence.startswith("0 of 6 changed rows are fixes; ")
    assert claims["fi-and-ep"].verdict == "holds"


def test_fixes_alone_hold(judged_by_the_ledger: Judged) -> None:
    sites = [site for site in SITES if site.model != "hunyuan_v3"]
    claims = judge(Evidence(comparisons=compare(sites), reach=reach(), judged=judged_by_the_ledger))
    (claim,) = (claim for claim in claims if claim.id == "latent-fixes")
    assert (claim.verdict, claim.evidence) == ("holds", "4 of 4 changed rows are fixes")
