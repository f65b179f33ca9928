"""HTML: one self-contained file; nothing is loaded from anywhere and nothing can be injected.

Every string goes through Jinja's autoescape, and the content security policy names the one script
and the one style sheet of the file by their digests, so that nothing else runs.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import PurePosixPath

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from verify.logic.flags import skip_reasons
from verify.report.causes import causes_of, level_of, model_of
from verify.report.fingerprint import fingerprints
from verify.report.render.code_text import shown_places
from verify.report.render.glossary import glossary
from verify.report.render.words import (
    CELL_WORDS,
    OTHERS,
    REACH_WORDS,
    REST,
    counted,
    is_mixed,
    link,
    numeric_columns,
    place,
    printable,
    reaches,
    rows_words,
    sentence,
    setting,
    share,
    shown_by,
    spoken,
)
from verify.report.report import Finding, GridLine, GridSection, RanksSection, Report, Section
from verify.report.rules import rule

# columns of a table that a reader may filter by, in tables long enough to need it
FACET_COLUMNS = ("model", "category", "path", "rule", "verdict")
FILTERED_FROM_ROWS = 13
FILE = re.compile(r"(\w+)\.py\b")
CODE_COLUMNS = ("guard", "original guard", "reduction", "rule", "site", "where")
# what a verdict means for its mark: good, bad or open
TONES = {
    "as expected": "good",
    "conditional": "open",
    "covered": "good",
    "crash": "bad",
    "double": "bad",
    "exact": "good",
    "expected diff": "open",
    "fails": "bad",
    "finding": "bad",
    "holds": "good",
    "identical": "good",
    "missing": "bad",
    "mixed": "bad",
    "self-contained": "good",
    "unexpected": "bad",
    "unresolved": "open",
}

PITCH = 18  # pixels from one cell of a grid to the next
GAP = 6  # pixels more after every fourth


def render(report: Report) -> str:
    """The report as one HTML document."""
    style, script = _asset("html.css"), _asset("html.js")
    facets = _facets(report)
    page = _environment().get_template("html.j2")
    return page.render(
        report=report,
        causes=causes_of(report.findings),
        anchors=[f"f-{digest[:12]}" for digest in fingerprints(report.findings)],
        flags=_flags(report),
        words=glossary(replace(report, everything=True), sections=report.sections),
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src {_digest(style)}; "
        f"script-src {_digest(script)}; base-uri 'none'; form-action 'none'",
        facets=facets,
        facet_names=tuple(facets),
        levels=_levels(report),
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("verify.report", "render"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_harmless,
    )
    environment.filters.update(
        breakable=_breakable,
        counted=counted,
        excerpt=_excerpt,
        explained=_explained,
        flagged=_flagged,
        sentence=sentence,
        setting=setting,
        kind=_kind,
        numeric=numeric_columns,
        place=place,
        prose=_prose,
        shown=shown_by,
    )
    environment.globals.update(
        cell_words=CELL_WORDS,
        code_columns=CODE_COLUMNS,
        cell_x=_cell_x,
        counts_of=_counts_of,
        finding_facets=_finding_facets,
        is_mixed=is_mixed,
        level_of=level_of,
        link=link,
        others=OTHERS,
        reach_words=REACH_WORDS,
        reaches=reaches,
        rest=REST,
        share=share,
        findings_of=findings_of,
        group_letters=_group_letters,
        row_facets=_row_facets,
        rule=rule,
        spoken=spoken,
        tone=_tone,
    )
    return environment


def _harmless(value: object) -> object:
    return printable(value) if type(value) is str else value


@lru_cache(maxsize=2)
def _asset(name: str) -> str:
    return (files("verify.report.render") / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _breakable(text: str) -> Markup:
    """Long names may be broken after a slash, a dot, an underscore or a colon."""
    escaped = Markup.escape(printable(text))
    for mark in "/._:":
        escaped = escaped.replace(mark, mark + Markup("<wbr>"))
    return escaped


def _prose(text: str) -> Markup:
    """A sentence in which `this` is code."""
    pieces = re.split("`([^`]+)`", printable(text))
    return Markup("").join(
        Markup("<code>{}</code>" if index % 2 else "{}").format(piece)
        for index, piece in enumerate(pieces)
    )


def _explained(text: str, words: Mapping[str, str]) -> Markup:
    """A sentence in which each of `words` says what it means when it is pointed at."""
    if not words:
        return Markup.escape(printable(text))
    longest = sorted(words, key=len, reverse=True)
    pieces = re.split(rf"\b({'|'.join(map(re.escape, longest))})(?=s?\b)", printable(text))
    return Markup("").join(
        Markup('<abbr title="{}">{}</abbr>').format(words[piece], piece)
        if index % 2
        else Markup.escape(piece)
        for index, piece in enumerate(pieces)
    )


def _kind(section: Section) -> str:
    return type(section).__name__


def _cell_x(index: int) -> int:
    return index * PITCH + index // 4 * GAP


def _tone(word: str) -> str:
    """`good`, `bad` or `open` for a verdict, empty for any other text."""
    return TONES.get(word, "bad" if word.startswith("unexpected") else "")


# facets --------------------------------------------------------------------------------------


def _facets(report: Report) -> dict[str, list[str]]:
    """Every value of every facet, sorted; facets with one value only are no choice."""
    values: dict[str, set[str]] = {}
    for found in _all_facets(report):
        for name, value in found.items():
            values.setdefault(name, set()).add(value)
    return {name: sorted(found) for name, found in values.items() if len(found) > 1}


def _all_facets(report: Report) -> Iterator[Mapping[str, str]]:
    for section in report.sections:
        if isinstance(section, GridSection):
            yield from (line.facets for line in section.lines)
        elif not isinstance(section, RanksSection):
            yield from (
                _row_facets(section.columns, row, len(section.rows)) for row in section.rows
            )
    yield from map(_finding_facets, report.findings)


def _row_facets(columns: tuple[str, ...], row: tuple[str, ...], rows: int) -> dict[str, str]:
    if rows < FILTERED_FROM_ROWS:
        return {}
    cells = dict(zip(columns, row, strict=True))
    facets = {name: cells[name] for name in FACET_COLUMNS if name in cells}
    file = FILE.search(cells.get("site", ""))
    return {"model": file[1], **facets} if file else facets


def _finding_facets(finding: Finding) -> dict[str, str]:
    facets = {"rule": finding.rule}
    if finding.reach is not None:
        facets["reach"] = finding.reach
    if finding.file is not None:
        facets["model"] = model_of(finding)
    return facets


def _flags(report: Report) -> dict[str, str]:
    """The flags that occur in a grid or a finding, and what they mean."""
    names = tuple(reason.flag for reason in skip_reasons())
    seen = {flag for s in report.sections if isinstance(s, GridSection) for flag in s.flags}
    for finding in report.findings:
        seen |= set(finding.takes)
        for row in (*finding.rows, finding.row or ""):
            if len(row) == len(names):
                seen |= {flag for flag, bit in zip(names, row, strict=True) if bit == "1"}
    return {
        reason.flag: f"{reason.name}; completed by {reason.completed_by}"
        for reason in skip_reasons()
        if reason.flag in seen
    }


def _flagged(rows: tuple[str, ...]) -> str:
    return rows_words(rows, tuple(reason.flag for reason in skip_reasons()))


def _excerpt(finding: Finding, report: Report) -> list[dict[str, object]]:
    """The places worth seeing with the lines around them: number, text, whether it is the line."""
    views: list[dict[str, object]] = []
    for file, line, what in shown_places(finding):
        lines = report.code.get(file, {})
        numbers = [n for n in range(line - 1, line + 2) if n in lines]
        around = [(n, lines[n].expandtabs(), n == line) for n in numbers]
        if around:
            margin = min(
                (len(text) - len(text.lstrip()) for _, text, _ in around if text.strip()), default=0
            )
            shown = [(number, text[margin:], here) for number, text, here in around]
            views.append({"file": file, "line": line, "what": what, "lines": shown})
    return views


# findings and ranks --------------------------------------------------------------------------


def findings_of(line: GridLine, report: Report) -> tuple[Finding, ...]:
    """The findings about one line of a grid: same subject, or same model, class and method."""
    return tuple(
        finding
        for finding in report.findings
        if line.label == finding.subject or line.label.rpartition("/")[0] == _method_id(finding)
    )


def _method_id(finding: Finding) -> str | None:
    if None in (finding.file, finding.cls, finding.method):
        return None
    return f"{PurePosixPath(finding.file or '').stem}/{finding.cls}.{finding.method}"


def _levels(report: Report) -> dict[str, int]:
    """How many findings of each level there are."""
    levels = [level_of(finding) for finding in report.findings]
    return {level: levels.count(level) for level in ("error", "warning", "note") if level in levels}


def _group_letters(groups: tuple[tuple[int, ...], ...], ranks: int) -> list[tuple[str, int]]:
    """Each rank's group as a letter (A, B, .. Z, AA, ..) and its number."""
    return [
        next(((_letters(n), n) for n, group in enumerate(groups) if rank in group), ("-", 0))
        for rank in range(ranks)
    ]


def _letters(number: int) -> str:
    letters = ""
    while number >= 0:
        letters = chr(ord("A") + number % 26) + letters
        number = number // 26 - 1
    return letters


@dataclass(frozen=True, kw_only=True)
class _Sum:
    """What one rank ends up with, in two words and a tone."""

    words: str
    tone: str


def _counts_of(counts: tuple[int, ...]) -> _Sum:
    missing = counts.count(0)
    most = max(counts, default=0)
    parts = [f"{missing} of {len(counts)} missing"] if missing else []
    parts += [f"up to {most} times" if min(counts) != most else f"{most} times"] if most > 1 else []
    return _Sum(words=", ".join(parts) or "once each", tone="bad" if parts else "good")
