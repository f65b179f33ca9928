"""Three readings of a diff, against the plainest evaluation one can write."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles import SITES, Site
from verify.checks.pull_request.readings import Comparison, compare
from verify.errors import VerifyError
from verify.logic import truth

FLAGS = ("AF", "RS", "DP", "FI")
every_comparison = pytest.mark.parametrize(
    "comparison", compare(SITES), ids=lambda comparison: comparison.site.id
)


def helper_skips(path: str, row: dict[str, bool], handed: set[str]) -> bool:
    """#23748's predicate, once more, in one line."""
    seen = {flag: value and (flag in handed or flag in {"DP", "FI"}) for flag, value in row.items()}
    return seen["AF"] or seen["RS"] or seen["DP"] or (path == "TP" and seen["FI"])


def every_row() -> Iterator[tuple[str, dict[str, bool]]]:
    for values in product((False, True), repeat=4):
        yield "".join(str(int(value)) for value in values), dict(zip(FLAGS, values, strict=True))


def naive(site: Site) -> dict[str, list[str]]:
    diffs: dict[str, list[str]] = {"signature": [], "called": [], "passed": []}
    for bits, row in every_row():
        original = not eval(site.guard, {}, row)
        called = helper_skips(site.path, row, set(site.passes.values()))
        if called != original:
            diffs["called"].append(bits)
            if not any(row[flag] for flag in {"AF", "RS"} - set(site.accepts)):
                diffs["signature"].append(bits)
        if helper_skips(site.path, row, {"AF", "RS"}) != original:
            diffs["passed"].append(bits)
    return diffs


@every_comparison
def test_all_three_readings(comparison: Comparison) -> None:
    found = {name: truth.table_bits(table, 4) for name, table in comparison.diffs.items()}
    assert found == naive(comparison.site)


literals = st.sampled_from([f"{sign}{flag}" for flag in FLAGS for sign in ("", "not ")])
guards = st.recursive(
    literals,
    lambda inner: st.tuples(inner, st.sampled_from((" and ", " or ")), inner).map(
        lambda parts: f"({''.join(parts)})"
    ),
)
NAMES = {"AF": "should_allreduce_fusion", "RS": "use_reduce_scatter"}


@given(
    guards,
    st.sampled_from(("EP", "TP")),
    st.sets(st.sampled_from(sorted(NAMES))),
    st.sets(st.sampled_from(sorted(NAMES))),
)
def test_all_three_readings_of_any_site(
    guard: str, path: Literal["EP", "TP"], accepts: set[str], passes: set[str]
) -> None:
    site = replace(
        SITES[0],
        guard=guard,
        path=path,
        accepts=tuple(accepts),
        passes={NAMES[flag]: flag for flag in passes},
    )
    (comparison,) = compare([site])
    found = {name: truth.table_bits(table, 4) for name, table in comparison.diffs.items()}
    assert found == naive(site)


@every_comparison
def test_signature_leaves_a_row_for_every_setting_of_what_forward_receives(
    comparison: Comparison,
) -> None:
    assert comparison.received.bit_count() == 2 ** (len(comparison.site.accepts) + 2)


@every_comparison
def test_signature_is_called_where_the_flags_can_be(comparison: Comparison) -> None:
    assert comparison.diffs["signature"] == comparison.diffs["called"] & comparison.received


@every_comparison
def test_a_latent_fix_is_in_the_row_of_fi_alone(comparison: Comparison) -> None:
    assert truth.table_bits(comparison.expected, 4) in ([], ["0001"])
    assert bool(comparison.expected) == (comparison.site.category in {"B", "C", "D-TP"})


def test_on_the_ep_path_no_diff_is_expected() -> None:
    category_b = next(site for site in SITES if site.category == "B")
    (comparison,) = compare([replace(category_b, path="EP", guard="False")])
    assert comparison.expected == 0
    assert comparison.unexpected & comparison.diffs["signature"] == comparison.diffs["signature"]


def test_a_reason_of_the_other_path_is_not_missed() -> None:
    """FI is no reason on the EP path: a guard there that ignores it misses nothing."""
    unknown = {comparison.site.id: comparison.unknown() for comparison in compare(SITES)}
    assert unknown["qwen3_moe/Qwen3MoeSparseMoeBlock.forward_normal/EP"] == ()
    assert unknown["hunyuan_v3/HYV3MoEFused._forward_dual_stream/EP"] == ("AF", "RS")
    assert unknown["hunyuan_v3/HYV3MoEFused._forward_dual_stream/TP"] == ("AF", "RS", "FI")


def test_a_guard_that_is_no_expression_of_flags_is_refused() -> None:
    with pytest.raises(VerifyError) as caught:
        compare([replace(SITES[0], guard="not XX")])
    assert str(caught.value) == "guard 'not XX': 'XX' is not a flag; flags are AF, RS, DP, FI"
