"""The test items of the pytest plugin: one a site, one for each finding at no site."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from verify.cli.scanned import scanned
from verify.errors import VerifyError
from verify.report import baseline
from verify.report.render.table import finding_text
from verify.report.render.words import one_line, place
from verify.report.report import Finding, Json, Report
from verify.report.saved import as_saved, sites_of

UNRESOLVED = "unresolved"


class SiteFailureError(Exception):
    """A site has findings."""


class Source(pytest.Collector):
    """The source as the parent of its sites; never collects by itself."""

    def collect(self) -> Iterable[pytest.Item]:
        """Nothing: the plugin adds the items."""
        return ()


class Site(pytest.Item):
    """Passes without findings, fails with them, is skipped where the scan could not judge."""

    def __init__(
        self,
        *,
        findings: Sequence[Finding],
        skipped: str = "",
        file: str = "",
        line: int = 1,
        **node: Any,
    ) -> None:
        super().__init__(**node)
        self.findings = findings
        self.location_in_source = (file, max(line - 1, 0))
        self.add_marker("moe_verify")
        if skipped:
            # a marker, not a call at run time: the skip is told at the source's line
            self.add_marker(pytest.mark.skip(reason=skipped))

    def runtest(self) -> None:
        """Raise for findings."""
        if self.findings:
            raise SiteFailureError

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The findings, as the table renderer words them; no traceback of this plugin."""
        if isinstance(excinfo.value, SiteFailureError):
            return "\n".join(map(finding_text, self.findings))
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, int, str]:
        """File, line counted from 0, name."""
        file, line = self.location_in_source
        return file, line, self.name


def site_items(session: pytest.Session, source: str, *, expect: str | None) -> list[pytest.Item]:
    """An item for each site of the source, in the order of the scan.

    Raises pytest's usage error when the source or the baseline cannot be read.
    """
    try:
        report = scanned(source)
        if expect:
            report = baseline.apply(report, Path(expect))
        sites = sites_of(as_saved(report), Path(source))
    except VerifyError as error:
        raise pytest.UsageError(f"--moe-verify-source: {error}") from error
    parent = Source.from_parent(session, name=source, nodeid=source)
    made: list[pytest.Item] = [Site.from_parent(parent, **item) for item in _items(report, sites)]
    # counted as what a file holds is, or more would be left out than there were
    collected = pytest.CollectReport(nodeid=source, outcome="passed", longrepr=None, result=[*made])
    session.config.hook.pytest_collectreport(report=collected)
    return made


def _items(report: Report, sites: Iterable[Mapping[str, Json]]) -> list[dict[str, Any]]:
    homeless = list(report.findings)
    items: list[dict[str, Any]] = []
    for site in sites:
        mine = [finding for finding in homeless if _at(finding, site)]
        homeless = [finding for finding in homeless if finding not in mine]
        why = str(site.get("why") or UNRESOLVED)
        items.append(
            {
                "name": _name(site),
                "file": str(site.get("file", "")),
                "line": int(str(site.get("line") or 1)),
                "findings": mine,
                "skipped": one_line(why) if site.get("verdict") == UNRESOLVED else "",
            }
        )
    for finding in homeless:
        where = place(finding)
        items.append(
            {
                "name": f"{finding.rule} {where}",
                "file": finding.file or "",
                "line": finding.line or 1,
                "findings": [finding],
            }
        )
    return _told_apart(items)


def _at(finding: Finding, site: Mapping[str, Json]) -> bool:
    return finding.file == site.get("file") and finding.line == site.get("line")


def _name(site: Mapping[str, Json]) -> str:
    method = ".".join(str(site[key]) for key in ("cls", "method") if site.get(key))
    parts = (str(site.get("file", "")), method, str(site.get("path") or ""))
    return "::".join(filter(None, parts))


def _told_apart(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Names must be unique for --deselect: the second of one name gets `[2]`."""
    seen: Counter[str] = Counter()
    for item in items:
        seen[item["name"]] += 1
        number = seen[item["name"]]
        if number > 1:
            item["name"] += f"[{number}]"
    return items
