"""Every oracle corrupted in every way a literal can be: each must show as an unexpected diff."""

import ast
from collections.abc import Iterator
from dataclasses import replace

import pytest

from helper import SKIP_REASONS
from oracles import SITES, Site
from verify.checks.pull_request.readings import compare

FLAGS = [reason.flag for reason in SKIP_REASONS]


def literals(guard: str) -> list[str]:
    tree = ast.parse(guard, mode="eval").body
    parts = tree.values if isinstance(tree, ast.BoolOp) else [tree]
    return [ast.unparse(part) for part in parts]


def corruptions(site: Site) -> Iterator[tuple[str, Site]]:
    kept = literals(site.guard)
    for index, literal in enumerate(kept):
        others = kept[:index] + kept[index + 1 :]
        flag = literal.removeprefix("not ")
        yield f"{flag} dropped", replace(site, guard=" and ".join(others) or "True")
        yield f"{flag} negated", replace(site, guard=" and ".join([*others, flag]))
        for other in FLAGS:
            if f"not {other}" not in kept:
                swapped = " and ".join([*others, f"not {other}"])
                yield f"{flag} mistaken for {other}", replace(site, guard=swapped)
    for flag in FLAGS:
        if f"not {flag}" not in kept:
            yield f"{flag} added", replace(site, guard=f"{site.guard} and not {flag}")
    yield "whole guard negated", replace(site, guard=f"not ({site.guard})")
    yield "always reduces", replace(site, guard="True")
    yield "never reduces", replace(site, guard="False")
    if len(kept) > 1:
        yield "and mistaken for or", replace(site, guard=" or ".join(kept))
    yield "path swapped", replace(site, path="EP" if site.path == "TP" else "TP")


def survivors(site: Site) -> tuple[list[str], int]:
    """The corruptions that stay unnoticed, and how many were tried."""
    tried = dict(corruptions(site))
    compared = zip(tried, compare(tried.values()), strict=True)
    return [how for how, comparison in compared if not comparison.unexpected], len(tried)


@pytest.mark.parametrize(
    "site", [pytest.param(s, id=f"{s.id}-{len(dict(corruptions(s)))}-tried") for s in SITES]
)
def test_every_corruption_is_an_unexpected_diff(site: Site) -> None:
    alive, tried = survivors(site)
    assert not alive, f"{tried - len(alive)} of {tried} killed; alive: {alive}"


def test_corruptions_killed_in_all(capsys: pytest.CaptureFixture[str]) -> None:
    results = [survivors(site) for site in SITES]
    tried = sum(count for _, count in results)
    killed = tried - sum(len(alive) for alive, _ in results)
    with capsys.disabled():
        print(f"\noracle corruptions killed: {killed} of {tried}")
    assert killed == tried


def test_the_untouched_oracles_have_no_unexpected_diff() -> None:
    assert [c.site.id for c in compare(SITES) if c.unexpected] == []


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.id)
def test_a_keyword_that_the_call_forgets_is_an_unexpected_diff(site: Site) -> None:
    for keyword in site.passes:
        rest = {name: flag for name, flag in site.passes.items() if name != keyword}
        (comparison,) = compare([replace(site, passes=rest)])
        assert comparison.unexpected
