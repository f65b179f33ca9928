"""JUnit XML: what a continuous-integration server draws as tests.

As many cases fail as there are findings, so that it agrees with the exit code. What was judged
and is in order passes: a line of a grid, a row of a table that has verdicts. What could not be
judged is skipped.
"""

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from verify.report.render.table import finding_text
from verify.report.render.words import one_line, place, printable
from verify.report.report import NOT_ANALYSED, GridSection, Report, Section, TableSection

VERDICT = "verdict"
PASSED = ("covered", "exact", "holds", "self-contained")
SKIPPED = ("unresolved",)


def render(report: Report) -> str:
    """The report as one `testsuites` document."""
    root = ET.Element("testsuites", name=f"moe-allreduce-verify {report.command}")
    for section in report.sections:
        _suite(root, section.title, _cases(section))
    _suite(root, "findings", _finding_cases(report))
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    ET.indent(root, space=" ")
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document.decode() + "\n"


def _suite(root: ET.Element, name: str, cases: Iterator[ET.Element]) -> None:
    elements = list(cases)
    if not elements:
        return
    suite = ET.SubElement(root, "testsuite", name=one_line(name), tests=str(len(elements)))
    suite.set("failures", str(sum(case.find("failure") is not None for case in elements)))
    suite.set("errors", str(sum(case.find("error") is not None for case in elements)))
    suite.set("skipped", str(sum(case.find("skipped") is not None for case in elements)))
    suite.extend(elements)


def _case(name: str, *, group: str) -> ET.Element:
    return ET.Element("testcase", classname=one_line(group), name=one_line(name))


def _cases(section: Section) -> Iterator[ET.Element]:
    match section:
        case GridSection():
            for line in section.lines:
                if "unexpected" not in line.cells:
                    yield _case(line.label, group=section.title)
        case TableSection() if VERDICT in section.columns and len(section.columns) > 1:
            column = section.columns.index(VERDICT)
            for row in section.rows:
                if row[column] not in PASSED + SKIPPED:
                    continue
                case = _case(row[0 if column else 1], group=section.title)
                if row[column] in SKIPPED:
                    ET.SubElement(case, "skipped", message=row[column])
                yield case


def _finding_cases(report: Report) -> Iterator[ET.Element]:
    for finding in report.findings:
        case = _case(place(finding) or finding.rule, group=finding.rule)
        if finding.file is not None:
            case.set("file", printable(report.file_prefix + finding.file))
            case.set("line", str(finding.line or 1))
        kind = "error" if finding.rule == NOT_ANALYSED else "failure"
        failure = ET.SubElement(case, kind, message=one_line(finding.message))
        failure.text = printable(finding_text(finding))
        yield case
    if not report.findings:
        yield _case("no findings", group=report.command)
