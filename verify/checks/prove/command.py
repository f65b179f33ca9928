"""`verify prove`: exactly once, on every legal deployment."""

import argparse
import os
from dataclasses import replace

from verify.checks.prove.planned_report import PLAN, build_plan
from verify.checks.prove.report import build, built_in_subjects
from verify.checks.scan.approximated import as_json, as_table, in_words
from verify.checks.scan.whole import not_analysed
from verify.engines.sources import ledger, open_source
from verify.errors import VerifyError
from verify.report import baseline
from verify.report.report import Report

MOST_RANKS = 256
MANY_RANKS = 24  # below, starting processes takes longer than they save
MOST_WORKERS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how far to look and whom to judge."""
    parser.add_argument(
        "--max-ranks",
        type=int,
        default=64,
        metavar="W",
        help="every world size from 1 to W (default: 64)",
    )
    parser.add_argument(
        "--subject",
        action="append",
        default=[],
        metavar="TEXT",
        help="only subjects whose name contains TEXT; may be repeated. `plan`: the helper's plan, "
        "and nothing else",
    )
    parser.add_argument(
        "--source",
        metavar="SOURCE",
        help="judge this release's own guards, in the steps that it has",
    )
    baseline.add_argument(parser)


def run(arguments: argparse.Namespace) -> Report:
    """Judge the chosen subjects; raises `VerifyError` when nothing is left to judge."""
    if not 1 <= arguments.max_ranks <= MOST_RANKS:
        raise VerifyError(f"--max-ranks {arguments.max_ranks}: choose from 1 to {MOST_RANKS}")
    if arguments.subject == [PLAN]:
        if arguments.source is not None:
            raise VerifyError("--subject plan judges helper's plan, which no --source changes")
        return build_plan(max_ranks=arguments.max_ranks)
    workers = min(os.cpu_count() or 1, MOST_WORKERS) if arguments.max_ranks >= MANY_RANKS else 1
    if arguments.source is None:
        return build(
            built_in_subjects(),
            release=ledger().release,
            max_ranks=arguments.max_ranks,
            only=arguments.subject,
            workers=workers,
        )
    from verify.checks.prove import source  # noqa: PLC0415 (slow to import, and only read here)

    with open_source(arguments.source) as tree:
        sourced = source.read(tree)
    report = build(
        sourced.subjects,
        release=sourced.release,
        max_ranks=arguments.max_ranks,
        only=arguments.subject,
        workers=workers,
        left_out=sourced.left_out,
    )
    unread = tuple(map(not_analysed, sourced.unread))
    steps = sourced.approximated
    not_read = f"; {len(unread)} not read" if unread else ""
    return replace(
        report,
        summary=f"{report.summary}{not_read}{in_words(steps)}",
        payload={**report.payload, "approximated": as_json(steps)},
        sections=(*report.sections, *as_table(steps)),
        findings=(*unread, *report.findings),
    )
