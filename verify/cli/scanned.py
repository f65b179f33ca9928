"""A source's scan as a report, for those who want one besides the `scan` command itself."""

import argparse
from importlib import import_module

from verify.report.report import Report


def scanned(source: str) -> Report:
    """What `verify scan SOURCE` reports. Raises `VerifyError` when the source cannot be read."""
    command = import_module("verify.checks.scan.command")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    report: Report = command.run(parser.parse_args(["--", source]))
    return report
