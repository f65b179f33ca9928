"""One site, shown: its truth table row by row, its JSON, its finding."""

from verify.checks.pull_request.reachable import Reach
from verify.checks.pull_request.readings import READINGS, Comparison
from verify.logic import truth
from verify.logic.flags import flag_names
from verify.report.report import Finding, Json, TableSection

BLOCK = "block"
NOBODY = "nobody"


def row_payload(comparison: Comparison, row: int, *, reach: Reach) -> dict[str, Json]:
    """One row of `verify explain`'s JSON."""
    return {
        "row": truth.row_bits(row, len(flag_names())),
        "original": does(comparison.original, row),
        "migrated": does(comparison.helper, row),
        "reachable": row in reach.rows,
        "received": bool(comparison.received >> row & 1),
        "diff": difference(comparison, row) or None,
        "completed_by": completed_by(comparison, row),
    }


def row_table(comparison: Comparison, *, reach: Reach) -> TableSection:
    """Every row: what the original did, what the migrated call does, who completes the sum."""
    names = flag_names()
    return TableSection(
        title="Who completes the sum, by row",
        columns=(*names, "original", "migrated", "completed by", "note"),
        rows=tuple(
            (
                *truth.row_bits(row, len(names)),
                does(comparison.original, row),
                does(comparison.helper, row),
                " + ".join(completed_by(comparison, row)),
                _note(comparison, row, reachable=row in reach.rows),
            )
            for row in range(1 << len(names))
        ),
        notes=(
            "More than one name: summed more than once, unless the steps exclude each other; "
            "`prove` decides.",
        ),
    )


def facts_table(comparison: Comparison) -> TableSection:
    """What the oracle states, and where it was read."""
    site = comparison.site
    return TableSection(
        title="The site",
        columns=("what", "value"),
        rows=(
            ("reduced where", site.guard),
            ("and where", f"{site.size_gate} > 1 ({site.size_world} group)"),
            ("collective", site.collective),
            ("receives", " ".join(site.accepts) or "no flag"),
            ("category", f"{site.category}, {comparison.category.title}"),
            ("read from", f"{site.repository} at {site.commit[:12]}"),
            ("lines", f"{site.file}:{site.lines[0]}-{site.lines[1]}"),
        ),
    )


def does(skips: int, row: int) -> str:
    """`skips` or `reduces`, for a truth table of skipping."""
    return "skips" if skips >> row & 1 else "reduces"


def difference(comparison: Comparison, row: int) -> str:
    """`expected` or `unexpected` where the row differs under `signature`, else nothing."""
    if comparison.unexpected >> row & 1:
        return "unexpected"
    return "expected" if comparison.expected >> row & 1 else ""


def completed_by(comparison: Comparison, row: int) -> list[str]:
    """Who sums in this row, after the migration.

    A true flag names a step that sums whether or not the block leaves it the sum, and on every
    path: that is why a guard that ignores the flag sums twice.
    """
    names = flag_names()
    steps = [
        flag for flag, bit in zip(names, truth.row_bits(row, len(names)), strict=True) if bit == "1"
    ]
    if does(comparison.helper, row) == "reduces":
        steps.insert(0, BLOCK)
    return steps or [NOBODY]


def site_payload(comparison: Comparison) -> dict[str, Json]:
    """One site of the JSON contract, with all that its oracle states."""
    site, count = comparison.site, len(flag_names())
    return {
        "id": site.id,
        "model": site.model,
        "cls": site.cls,
        "method": site.method,
        "path": site.path,
        "category": site.category,
        "category_inferred": site.category_inferred,
        "accepts": site.accepts,
        "passes": dict(site.passes),
        "guard": site.guard,
        "collective": site.collective,
        "size_gate": {"attribute": site.size_gate, "world": site.size_world},
        "unknown": comparison.unknown(),
        "diffs": {
            reading: truth.table_bits(comparison.diffs[reading], count) for reading in READINGS
        },
        "unexpected": truth.table_bits(comparison.unexpected, count),
        "provenance": {
            "repository": site.repository,
            "commit": site.commit,
            "file": site.file,
            "lines": site.lines,
        },
    }


def finding(comparison: Comparison) -> Finding:
    """The site's unexpected rows; the smallest one stands for them."""
    site, count = comparison.site, len(flag_names())
    rows = truth.table_bits(comparison.unexpected, count)
    first = next(truth.rows(comparison.unexpected))
    if comparison.diffs["signature"] >> first & 1:
        skips = comparison.helper >> first & 1
        what = (
            f"the migrated call {'skips' if skips else 'reduces'} where the original "
            f"{'reduced' if skips else 'skipped'}"
        )
    elif (comparison.original ^ comparison.seen) >> first & 1:
        what = "the guard depends on a flag that forward() does not receive"
    else:
        lacking = " ".join(comparison.category.latent)
        what = f"no diff where the category says that {lacking} was missing"
    return Finding(
        rule="unexpected-diff",
        subject=site.id,
        file=site.file,
        line=site.lines[0],
        cls=site.cls,
        method=site.method,
        row=rows[0],
        message=f"{what}; rows that category {site.category} does not allow: {' '.join(rows)}",
        fix="read the guard again at the oracle's lines, or move the site to another category",
    )


def _note(comparison: Comparison, row: int, *, reachable: bool) -> str:
    kind = difference(comparison, row)
    if kind:
        return f"{kind} diff"
    if not reachable:
        return "no configuration"
    return "" if comparison.received >> row & 1 else "not received"
