"""Helper against oracle at one site, under the three readings of the pull request's sentence.

`signature`: flags that forward() does not receive are fixed to False; `called`: every row, the
helper called with the keywords that the migrated code passes; `passed`: every row, the helper
handed every flag.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property

from helper import Path
from oracles import Site
from verify.checks.pull_request.categories import Category, category
from verify.logic import truth
from verify.logic.flags import argument_flags, flag_names, flag_tables, helper_skips, skip_reasons

READINGS = ("signature", "called", "passed")


def compare(sites: Iterable[Site]) -> tuple["Comparison", ...]:
    """Compare helper and oracle at every site; equal guards and equal calls are tabulated once."""
    names, tables, arguments = flag_names(), flag_tables(), argument_flags()
    ones = truth.full(len(tables))

    @cache
    def original(guard: str) -> int:
        return ones ^ truth.evaluate(guard, tables, len(tables))

    @cache
    def helper(path: Path, handed: frozenset[str]) -> int:
        return helper_skips(path=path, handed=handed)

    def compare_one(site: Site) -> Comparison:
        before = seen = original(site.guard)
        called = before ^ helper(site.path, frozenset(site.passes.values()))
        received = ones
        for flag in arguments.difference(site.accepts):
            received &= ones ^ tables[flag]
            seen = truth.where_false(seen, names.index(flag), len(names))
        return Comparison(
            site=site,
            category=category(site.category),
            original=before,
            seen=seen,
            helper=before ^ called,
            received=received,
            diffs={
                "signature": called & received,
                "called": called,
                "passed": before ^ helper(site.path, arguments),
            },
        )

    return tuple(compare_one(site) for site in sites)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Truth tables of one site, bit i for row i.

    `original` and `helper` are the rows in which the oracle and the migrated call skip; `seen`
    is `original` with the flags that forward() does not receive read as False; `received` are
    the rows in which those are False; `diffs` the rows in which the two disagree, by reading.
    """

    site: Site
    category: Category
    original: int
    seen: int
    helper: int
    received: int
    diffs: Mapping[str, int]

    @cached_property
    def expected(self) -> int:
        """Rows that differ under `signature` as the category says, which it does of TP paths."""
        latent = self.category.latent_rows() if self.site.path == "TP" else 0
        return self.diffs["signature"] & latent

    @cached_property
    def unexpected(self) -> int:
        """Rows in which the oracle is not what its category says.

        They differ under `signature` where the category allows no diff, or they do not differ
        where it says that a flag was missing, or the guard depends on a flag that forward()
        does not receive, which no guard could.
        """
        return (
            self.diffs["signature"] ^ self.expected
            | self.category.latent_rows() & ~self.expected
            | self.original ^ self.seen
        )

    def unknown(self) -> tuple[str, ...]:
        """The flags of reasons that apply to the path and that the original guard ignored."""
        count = len(flag_names())
        return tuple(
            reason.flag
            for index, reason in enumerate(skip_reasons())
            if self.site.path in reason.paths and not truth.depends_on(self.original, index, count)
        )
