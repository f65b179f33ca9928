"""`python -m verify explain SITE`: one site's truth table, row by row."""

import argparse

from oracles import SITES
from verify.checks.pull_request.command import require_known
from verify.checks.pull_request.reachable import reach
from verify.checks.pull_request.readings import Comparison, compare
from verify.checks.pull_request.site import (
    BLOCK,
    facts_table,
    finding,
    row_payload,
    row_table,
    site_payload,
)
from verify.logic.flags import flag_names, skip_reasons
from verify.report.report import Report, TableSection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The site."""
    parser.add_argument("site", metavar="SITE", help="a site's id as `report` prints it")


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
    """One site as a report: what its oracle states, and every row."""
    names, reached = flag_names(), reach()
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
            "rows": [row_payload(comparison, row, reach=reached) for row in rows],
        },
        sections=(
            facts_table(comparison),
            row_table(comparison, reach=reached),
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
