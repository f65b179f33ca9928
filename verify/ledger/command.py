"""`verify prove`: exactly once, on every legal deployment."""

import argparse

from verify import baseline
from verify.errors import VerifyError
from verify.ledger.report import build
from verify.report import Report

MOST_RANKS = 256


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
        help="only subjects whose name contains TEXT; may be repeated",
    )
    baseline.add_argument(parser)


def run(arguments: argparse.Namespace) -> Report:
    """Judge the chosen subjects; raises `VerifyError` when nothing is left to judge."""
    if not 1 <= arguments.max_ranks <= MOST_RANKS:
        raise VerifyError(f"--max-ranks {arguments.max_ranks}: choose from 1 to {MOST_RANKS}")
    return build(max_ranks=arguments.max_ranks, only=arguments.subject)
