"""The pull request's checkable sentences, each judged by computation.

A claim is one function from the evidence to a verdict: `holds` as written, `conditional` where it
holds only under a reading or cannot be decided from predicates alone, `fails` otherwise.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from helper import PATHS, should_skip_post_experts_all_reduce, use_config
from verify.checks.pull_request.categories import CATEGORIES
from verify.checks.pull_request.reachable import Reach, configurations, in_words
from verify.checks.pull_request.readings import READINGS, Comparison
from verify.logic import truth
from verify.logic.flags import (
    alone,
    argument_flags,
    flag_names,
    flag_tables,
    helper_skips,
    skip_reasons,
)

if TYPE_CHECKING:  # only `--source` and `--judge` should pay for what these import
    from verify.checks.pull_request.release import Release
    from verify.checks.pull_request.verdicts import Judged

Verdict = Literal["holds", "conditional", "fails"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence of the pull request and what became of it."""

    id: str
    claim: str
    verdict: Verdict
    evidence: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What claims are judged by: every site compared and every configuration tried; a source
    where one was read, and every deployment where the ledger was asked.
    """

    comparisons: tuple[Comparison, ...]
    reach: Reach
    release: "Release | None" = None
    judged: "Judged | None" = None


def judge(evidence: Evidence) -> tuple[Claim, ...]:
    """Every claim, in the order of the pull request's text."""
    return tuple(
        Claim(id=name, claim=sentence, verdict=verdict, evidence=because)
        for name, sentence, check in CLAIMS
        for verdict, because in (check(evidence),)
    )


def _in_category(evidence: Evidence, *names: str) -> list[Comparison]:
    return [c for c in evidence.comparisons if c.category.id in names]


def _by_reading(tables: Mapping[str, Iterable[int]]) -> tuple[dict[str, int], str]:
    """Diff rows summed over the sites, by reading, and the same in words."""
    counts = {name: sum(table.bit_count() for table in each) for name, each in tables.items()}
    return counts, ", ".join(f"{count} under {name}" for name, count in counts.items())


def _under_which(counts: Mapping[str, int]) -> Verdict:
    """No diff under any reading holds, none under `signature` is conditional."""
    if counts["signature"]:
        return "fails"
    return "conditional" if any(counts.values()) else "holds"


def _no_diff(comparisons: Collection[Comparison]) -> tuple[Verdict, str]:
    counts, words = _by_reading({name: [c.diffs[name] for c in comparisons] for name in READINGS})
    return _under_which(counts), f"{len(comparisons)} sites, diff rows: {words}"


def _identical(evidence: Evidence) -> tuple[Verdict, str]:
    return _no_diff(_in_category(evidence, "A"))


def _hunyuan_ep(evidence: Evidence) -> tuple[Verdict, str]:
    return _no_diff(_in_category(evidence, "D-EP"))


def _covers_all_flags(evidence: Evidence) -> tuple[Verdict, str]:
    names = flag_names()
    sites = _in_category(evidence, "A")
    ignored = {
        c.site.id: [
            flag
            for index, flag in enumerate(names)
            if not truth.depends_on(c.original, index, len(names))
        ]
        for c in sites
    }
    lacking = [f"{site} does not depend on {', '.join(f)}" for site, f in ignored.items() if f]
    covering = len(sites) - len(lacking)
    because = f"{covering} of {len(sites)} guards depend on {', '.join(names)}"
    verdict: Verdict = "conditional" if covering and lacking else "fails" if lacking else "holds"
    return verdict, "; ".join([because, *lacking])


def _only_latent(evidence: Evidence) -> tuple[Verdict, str]:
    sites = [c for c in evidence.comparisons if c.category.latent]
    counts, words = _by_reading(
        {name: [c.diffs[name] & ~c.category.latent_rows() for c in sites] for name in READINGS}
    )
    return _under_which(counts), f"{len(sites)} sites, diff rows other than FI alone: {words}"


def _defaults(evidence: Evidence) -> tuple[Verdict, str]:
    changed = 0
    for config in configurations():
        with use_config(config):
            changed += sum(
                should_skip_post_experts_all_reduce(is_tp_path=is_tp_path)
                != should_skip_post_experts_all_reduce(
                    is_tp_path=is_tp_path, use_reduce_scatter=False, should_allreduce_fusion=False
                )
                for is_tp_path in (False, True)
            )
    tables = flag_tables()
    leaking = [
        flag
        for path in PATHS
        for index, flag in enumerate(tables)
        if flag in argument_flags()
        and truth.depends_on(helper_skips(path=path, handed=()), index, len(tables))
    ]
    because = (
        f"{len(configurations())} configurations x {len(PATHS)} paths, answers changed by "
        f"leaving the keywords out: {changed}; flags that matter though left out: {len(leaking)}"
    )
    return ("fails" if changed or leaking else "holds"), because


def _all_migrated(evidence: Evidence) -> tuple[Verdict, str]:
    release = evidence.release
    if release is None or not release.migrated:
        models = len({c.site.model for c in evidence.comparisons})
        return "conditional", (
            f"{models} models with {len(evidence.comparisons)} sites are known here; "
            "`report --source` decides it for a release that has the helper"
        )
    places = [f"{site.id} reads {', '.join(site.skips_on)}" for site in release.open_coded]
    because = (
        f"{release.name} {release.version}: {len(places)} reductions read a flag and do not ask "
        "the helper"
    )
    return ("fails" if places else "holds"), "; ".join([because, *places])


def _drift(evidence: Evidence) -> tuple[Verdict, str]:
    tables = flag_tables()
    arguments = argument_flags()
    apart = helper_skips(path="EP", handed=arguments) ^ helper_skips(path="TP", handed=arguments)
    one_path = [reason.flag for reason in skip_reasons() if len(reason.paths) < len(PATHS)]
    covered = 0
    for flag in one_path:
        covered |= tables[flag]
    rows = " ".join(truth.table_bits(apart, len(tables))) or "none"
    because = f"rows in which the paths differ: {rows}; reasons of one path: {', '.join(one_path)}"
    return ("fails" if apart & ~covered else "holds"), because


def _latent_fixes(evidence: Evidence) -> tuple[Verdict, str]:
    changed = [c for c in evidence.comparisons if c.expected]
    if evidence.judged is None:
        return "conditional", (
            f"{len(changed)} sites change in a row; whose answer is right there is decided by "
            "`report --judge`"
        )
    count = len(flag_names())
    meanings = {(row.block, row.row): row.meaning for row in evidence.judged.rows}
    found = {
        f"{c.site.id} in {truth.row_bits(row, count)}": meanings.get(
            (c.site.block, row), "in no deployment"
        )
        for c in changed
        for row in truth.rows(c.expected)
    }
    fixes = sum(meaning == "latent fix" for meaning in found.values())
    others = [f"{place}: {word}" for place, word in found.items() if word != "latent fix"]
    because = f"{fixes} of {len(found)} changed rows are fixes"
    verdict: Verdict = "conditional" if fixes and others else "fails" if others else "holds"
    return verdict, "; ".join([because, *others])


def _fi_and_ep(evidence: Evidence) -> tuple[Verdict, str]:
    if evidence.judged is not None:
        return _fi_counted(evidence.judged)
    witnesses = [
        config
        for values, config in evidence.reach.witness.items()
        if dict(zip(evidence.reach.flags, values, strict=True)).get("FI") and config.ep_size > 1
    ]
    sites = [c for c in evidence.comparisons if c.site.path == "EP"]
    reducing = [c for c in sites if not c.helper >> alone("FI") & 1]
    if not witnesses or not reducing:
        return "holds", f"{len(sites)} EP sites, none reduces where FI is true and ep_size > 1"
    return "fails", (
        f"with {in_words(witnesses[0])} FI is true and ep_size > 1, so {len(reducing)} of "
        f"{len(sites)} EP sites reduce what the dispatcher's combine has summed over the whole TP "
        "group; `report --judge` counts it"
    )


def _fi_counted(judged: "Judged") -> tuple[Verdict, str]:
    rows = judged.skip_reason_matters("FI", "EP")
    because = f"with FI alone, skipping EP too is exact more often at {len(rows)} blocks"
    counts = [
        f"{row.block}: in {row.exact[row.helper.with_skip('EP')]} instead of "
        f"{row.exact[row.helper]} of {row.deployments} deployments"
        for row in rows
    ]
    return ("fails" if rows else "holds"), "; ".join([because, *counts])


def _counters(evidence: Evidence) -> tuple[Verdict, str]:
    counters = {
        category.counter: sum(c.unexpected.bit_count() for c in _in_category(evidence, category.id))
        for category in CATEGORIES
    }
    printed = ", ".join(f"{name}: {count}" for name, count in counters.items())
    return ("fails" if any(counters.values()) else "holds"), f"under signature, {printed}"


CLAIMS: tuple[tuple[str, str, Callable[[Evidence], tuple[Verdict, str]]], ...] = (
    ("byte-identical", "the listed models are refactored byte-identically", _identical),
    ("covers-all-flags", "they already covered all four flags", _covers_all_flags),
    ("only-diff-is-fi", "in the other models the only diff is FI alone", _only_latent),
    ("latent-fixes", "FI alone was a latent bug there, and is fixed", _latent_fixes),
    ("hunyuan-ep", "hunyuan_v3's EP path is byte-identical", _hunyuan_ep),
    ("defaults-are-no-ops", "the helper's defaults are no-ops", _defaults),
    ("all-migrated", "every other MoE model is migrated", _all_migrated),
    ("paths-cannot-drift", "EP and TP differ only by the TP path's FI guard", _drift),
    ("fi-and-ep", "FI is not relevant to the EP all-reduce", _fi_and_ep),
    ("counters-are-zero", "no unexpected diff in any of the five categories", _counters),
)
