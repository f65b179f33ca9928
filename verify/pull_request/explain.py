"""`python -m verify explain SITE`: one site's truth table, row by row."""

import argparse

from oracles import SITES
from verify import truth
from verify.flags import flag_names, skip_reasons
from verify.pull_request.command import require_known
from verify.pull_request.reachable import reach
from verify.pull_request.readings import Comparison, compare
from verify.pull_request.report import finding, site_payload
from verify.report import Report, TableSection

BLOCK = "block"
NOBODY = "nobody"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The site."""
    parser.add_argument("site", metavar="SITE", help="a site's id as `verify report` prints it")


def run(arguments: argparse.Namespace) -> Report:
    """Explain the site; raises `VerifyError` when there is none of that id."""
    require_known(
        "site",
        arguments.site,
        [site.id for site in SITES],
        otherwise="`python -m verify report` lists them",
    )
    (comparison,) = compare(site for site in SITES if site.id == arguments.site)
    return explain(comparison)


def explain(comparison: Comparison) -> Report:
    """Every row: what the original did, what the migrated call does, who completes the sum."""
    names = flag_names()
    reachable = reach().rows()
    rows = range(1 << len(names))
    return Report(
        command="explain",
        title=f"{comparison.site.id}, row by row",
        summary=(
            f"{len(rows)} rows, {comparison.expected.bit_count()} expected and "
            f"{comparison.unexpected.bit_count()} unexpected diffs"
        ),
        payload={
            "flags": names,
            "site": site_payload(comparison),
            "rows": [
                {
                    "row": truth.row_bits(row, len(names)),
                    "original": does(comparison.original, row),
                    "migrated": does(comparison.helper, row),
                    "reachable": row in reachable,
                    "received": bool(comparison.received >> row & 1),
                    "diff": difference(comparison, row) or None,
                    "completed_by": completed_by(comparison, row),
                }
                for row in rows
            ],
        },
        sections=(
            _facts(comparison),
            TableSection(
                title="Who completes the sum, by row",
                columns=(*names, "original", "migrated", "completed by", "note"),
                rows=tuple(
                    (
                        *truth.row_bits(row, len(names)),
                        does(comparison.original, row),
                        does(comparison.helper, row),
                        " + ".join(completed_by(comparison, row)),
                        _note(comparison, row, reachable=row in reachable),
                    )
                    for row in rows
                ),
                notes=(
                    "More than one name: summed more than once, unless the steps exclude each "
                    "other; `verify prove` decides.",
                ),
            ),
            TableSection(
                title="Names",
                columns=("name", "completes the sum by"),
                rows=(
                    (BLOCK, comparison.site.collective),
                    *((reason.flag, reason.completed_by) for reason in skip_reasons()),
                ),
            ),
        ),
        findings=(finding(comparison),) if comparison.unexpected else (),
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


def _facts(comparison: Comparison) -> TableSection:
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


def _note(comparison: Comparison, row: int, *, reachable: bool) -> str:
    kind = difference(comparison, row)
    if kind:
        return f"{kind} diff"
    if not reachable:
        return "no configuration"
    return "" if comparison.received >> row & 1 else "not received"
