"""The report on the pull request: what was compared, as one value for every renderer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from oracles import SITES, Site
from verify.checks.pull_request.categories import CATEGORIES, Category
from verify.checks.pull_request.claims import Claim, Evidence, judge
from verify.checks.pull_request.reachable import Reach, in_words, reach
from verify.checks.pull_request.readings import READINGS, Comparison, compare
from verify.checks.pull_request.site import facts_table, finding, row_table, site_payload
from verify.logic import truth
from verify.logic.flags import flag_names, skip_reasons
from verify.report.render.words import counted
from verify.report.report import Cell, GridLine, GridSection, Json, Report, TableSection

if TYPE_CHECKING:  # only `--source` and `--judge` should pay for what these import
    from verify.checks.pull_request.release import Release
    from verify.checks.pull_request.verdicts import Judged

NOTHING = "-"
# a claim's verdict, and the word for several
VERDICTS = (("holds", "hold"), ("conditional", "conditional"), ("fails", "fail"))


def build(
    sites: Sequence[Site] = SITES,
    *,
    release: "Release | None" = None,
    judged: "Judged | None" = None,
) -> Report:
    """Compare `sites`; tell what `release` holds of them and whose answer is right by `judged`.

    The claims are about the whole pull request and use every site.
    """
    comparisons, reached = compare(sites), reach()
    everything = comparisons if len(sites) == len(SITES) else compare(SITES)
    claims = judge(Evidence(comparisons=everything, reach=reached, release=release, judged=judged))
    findings = (
        *(finding(c) for c in comparisons if c.unexpected),
        *(release.findings() if release else ()),
    )
    differing = sum(1 for c in comparisons if c.diffs["signature"])
    unexpected = sum(c.unexpected.bit_count() for c in comparisons)
    return Report(
        command="report",
        title="sgl-project/sglang#23748: the helper against every original guard",
        summary=(
            f"{counted(len(comparisons), 'site')}, {differing} differ, "
            f"{counted(unexpected, 'unexpected diff')}; {counted(len(claims), 'claim')}, "
            + ", ".join(
                f"{number} {one if number == 1 else several}"
                for one, several in VERDICTS
                for number in [sum(claim.verdict == one for claim in claims)]
            )
            + (f"; {release.summary}" if release else "")
        ),
        payload={
            **_payload(comparisons, reached, claims),
            **(release.payload() if release else {}),
            **({"judged": judged.payload} if judged else {}),
        },
        sections=(
            _counters(comparisons),
            *(release.sections() if release else ()),
            _reasons(),
            _grid(comparisons, reached),
            *(
                _category(category, members)
                for category in CATEGORIES
                if (members := _members(comparisons, category))
            ),
            _unaware(comparisons),
            _reached(reached),
            *(judged.sections if judged else ()),
            _claims(claims),
        ),
        findings=findings,
    )


def _payload(
    comparisons: Sequence[Comparison], reached: Reach, claims: Sequence[Claim]
) -> dict[str, Json]:
    names = flag_names()
    return {
        "flags": names,
        "reachable_rows": [truth.row_bits(row, len(names)) for row in reached.rows],
        "sites": [site_payload(c) for c in comparisons],
        "categories": [
            {
                "id": category.id,
                "title": category.title,
                "sites": len(members),
                "expected_diffs": sum(c.expected.bit_count() for c in members),
                "unexpected_diffs": sum(c.unexpected.bit_count() for c in members),
            }
            for category in CATEGORIES
            for members in (_members(comparisons, category),)
        ],
        "claims": [
            {"id": c.id, "claim": c.claim, "verdict": c.verdict, "evidence": c.evidence}
            for c in claims
        ],
    }


def _members(comparisons: Sequence[Comparison], category: Category) -> list[Comparison]:
    return [c for c in comparisons if c.category is category]


def _counters(comparisons: Sequence[Comparison]) -> TableSection:
    return TableSection(
        title="The pull request's five counters",
        columns=("category", "sites", "unexpected diffs", "expected", "meaning"),
        rows=tuple(
            (
                category.counter,
                str(len(members)),
                str(sum(c.unexpected.bit_count() for c in members)),
                str(sum(c.expected.bit_count() for c in members)),
                category.title,
            )
            for category in CATEGORIES
            for members in (_members(comparisons, category),)
        ),
        notes=("Counted under `signature`.",),
    )


def _grid(comparisons: Sequence[Comparison], reached: Reach) -> GridSection:
    names = flag_names()
    reachable = sum(1 << row for row in reached.rows)
    return GridSection(
        title="What the migrated call does in every row, and where it differs from the original",
        flags=names,
        rows=truth.all_bits(len(names)),
        lines=tuple(
            GridLine(
                label=c.site.id,
                cells=tuple(
                    _cell(c, row, reachable=bool(reachable >> row & 1))
                    for row in range(1 << len(names))
                ),
                facets={
                    "model": c.site.model,
                    "category": c.site.category,
                    "verdict": _verdict(c),
                },
                detail=(facts_table(c), row_table(c, reach=reached)),
            )
            for category in CATEGORIES
            for c in _members(comparisons, category)
        ),
        notes=(
            "Reading `signature`. Unreachable: no configuration sets these flags together, or "
            "forward() does not receive the flag.",
        ),
    )


def _cell(comparison: Comparison, row: int, *, reachable: bool) -> Cell:
    if comparison.unexpected >> row & 1:
        return "unexpected"
    if comparison.expected >> row & 1:
        return "expected"
    if not (reachable and comparison.received >> row & 1):
        return "unreachable"
    return "skip" if comparison.helper >> row & 1 else "reduce"


def _verdict(comparison: Comparison) -> str:
    if comparison.unexpected:
        return "unexpected diff"
    return "expected diff" if comparison.expected else "identical"


def _category(category: Category, members: Sequence[Comparison]) -> TableSection:
    count = len(flag_names())
    inferred = any(c.site.category_inferred for c in members)
    return TableSection(
        title=f"{category.counter}: {category.title}",
        columns=("site", "receives", *READINGS),
        rows=tuple(
            (
                f"{c.site.model} {c.site.method} {c.site.path}",
                _listed([flag for flag in flag_names() if flag in c.site.accepts]),
                *(_listed(truth.table_bits(c.diffs[reading], count)) for reading in READINGS),
            )
            for c in members
        ),
        notes=("The pull request's text does not define this category: inferred.",)
        if inferred
        else (),
    )


def _reasons() -> TableSection:
    return TableSection(
        title="Skip reasons",
        columns=("flag", "paths", "name", "who completes the sum", "over"),
        rows=tuple(
            (reason.flag, _listed(reason.paths), reason.name, reason.completed_by, reason.over)
            for reason in skip_reasons()
        ),
        notes=("over `partial`: over whichever group the block's output is partial over.",),
    )


def _unaware(comparisons: Sequence[Comparison]) -> TableSection:
    sites = {
        reason.flag: [c.site for c in comparisons if reason.flag in c.unknown()]
        for reason in skip_reasons()
    }
    return TableSection(
        title="Original guards that did not know a reason of their path",
        columns=("flag", "sites", "where"),
        rows=tuple(
            (
                flag,
                str(len(unaware)),
                ", ".join(dict.fromkeys(f"{site.model} {site.path}" for site in unaware))
                or NOTHING,
            )
            for flag, unaware in sites.items()
        ),
    )


def _reached(reached: Reach) -> TableSection:
    combinations = sorted(reached.witness)
    return TableSection(
        title=f"What {reached.tried} configurations can produce",
        columns=(*reached.flags, "smallest configuration"),
        rows=tuple(
            (
                *("1" if value else "0" for value in values),
                in_words(reached.witness[values]) or "the default",
            )
            for values in combinations
        ),
        notes=(
            f"{len(reached.rows)} of {1 << len(flag_names())} rows are reachable; flags that "
            "forward() receives are taken as free.",
        ),
    )


def _claims(claims: Sequence[Claim]) -> TableSection:
    return TableSection(
        title="What the pull request claims",
        columns=("claim", "verdict", "evidence"),
        rows=tuple((claim.claim, claim.verdict, claim.evidence) for claim in claims),
    )


def _listed(values: Sequence[str]) -> str:
    return " ".join(values) or NOTHING
