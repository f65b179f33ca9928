"""Causes as text: a first screen that says what is wrong, where and what to type; then each one.

Every line fits the page, but for a name that is longer than it.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from math import inf
from posixpath import commonpath
from textwrap import wrap

from rich.text import Text

from verify.logic.flags import skip_reasons
from verify.report.about import program
from verify.report.causes import Cause, Exposure, causes_of, model_of
from verify.report.render.code_text import code_lines
from verify.report.render.counts_text import counts_lines
from verify.report.render.page import Page
from verify.report.render.words import (
    REACH_WORDS,
    REST,
    counted,
    few,
    one_line,
    place,
    rows_words,
    sentence,
    settings,
    share,
    shown_by,
    titled,
)
from verify.report.report import Finding, Report
from verify.report.rules import rule

FIRST_SCREEN = 6  # causes that fit on 24 lines with three lines each
LABEL = 9  # characters of the widest label and a blank
INDENT = "   "
FLAGS = "Flags, which the server sets by itself in each forward pass"
TONES = {"default": "bold red", "option": "yellow", "conditional": "cyan", None: "red"}


def cause_lines(report: Report, page: Page, *, room: float = inf) -> Iterator[Text]:
    """The first screen, a block a cause, and what the flags in them mean.

    At most `room` lines where it can be; the causes that find none are named.
    """
    causes = causes_of(report.findings)
    first, last = tuple(overview(report, causes, page)), tuple(_notes(report, page))
    yield from first
    every = enumerate(causes, start=1)
    short = [tuple(_in_rest(cause, page, number=number)) for number, cause in every]
    # beside a blank line and the title of those that are named
    room, whole = room - len(first) - len(last) - 2, 0
    for cause in causes:
        lines = (Text(), *block(report, cause, page, number=whole + 1))
        room -= len(lines)
        if room < sum(map(len, short[whole + 1 :])) and whole:
            break
        yield from lines
        whole += 1
    if whole < len(causes):
        yield Text()
        more = f"{counted(len(causes) - whole, 'cause')} more, whole with --all"
        above = any(not lines for lines in short[whole:])
        yield Text(f"{more}; up to {FIRST_SCREEN} above" if above else more, "bold")
        yield from chain.from_iterable(short[whole:])
    yield from last


def _notes(report: Report, page: Page) -> Iterator[Text]:
    """What the flags mean that occur, and where the source can be read."""
    legend = tuple(_legend(report.findings, page))
    if legend or report.web:
        yield Text()
    if legend:
        yield from _folded(FLAGS, page)
        yield from legend
    if report.web:
        yield from _folded(f"Source {report.web}FILE#LLINE", page)


def overview(report: Report, causes: Sequence[Cause], page: Page) -> Iterator[Text]:
    """What is wrong and where, two or three lines a cause, and what to type next."""
    total = counted(len(causes), "cause"), counted(len(report.findings), "finding")
    which = "each" if all(one.launch for one in causes) else "some"
    with_options = f"; {which} with server options that show it"
    launched = with_options if any(one.launch for one in causes) else ""
    said = ", ".join((*total, *_models(report.findings))) + launched
    yield from _folded(said, page, style="bold")
    for number, cause in enumerate(causes[:FIRST_SCREEN], start=1):
        yield from _in_short(cause, page, number=number)
    if len(causes) > FIRST_SCREEN:
        # in the blank line's place: what to type stays on the screen
        yield Text(f"   and {counted(len(causes) - FIRST_SCREEN, 'cause')} more, below")
    else:
        yield Text()
    yield from _next(report, causes[0], page)


def _in_short(cause: Cause, page: Page, *, number: int) -> Iterator[Text]:
    """One cause on three lines: for whom, what is wrong, where."""
    head = _head(cause, number=number)
    asked = " ".join(map(one_line, cause.launch)) or settings(cause.takes)
    head.append(f"  {asked}" if asked else "")
    yield _cut(head, page)
    yield _cut(Text(f"{INDENT}{_title(cause)}", "bold"), page)
    yield _cut(Text(f"{INDENT}{_where(cause, page)}"), page)


def _head(cause: Cause, *, number: int) -> Text:
    head = Text(f"{number:>2} ")
    head.append(cause.reach or rule(cause.rule).level, TONES[cause.reach])
    return head.append(f"  {share(len(cause.exposures[0].findings), len(cause.findings))}")


def _next(report: Report, worst: Cause, page: Page) -> Iterator[Text]:
    """What to type: to see the worst one run, to read on, to see all there is."""
    shown = worst.shown
    if report.requirement and shown.file:
        run = f"replay {report.requirement} --model {model_of(shown)}"
        yield from _labelled("Run 1", f"{program()} {run}", page, indent="")
    yield from _labelled("Rule 1", f"{program()} rule {worst.rule}", page, indent="")
    if not report.everything:
        yield from _labelled("More", "add --all; --format html to look through", page, indent="")


def block(report: Report, cause: Cause, page: Page, *, number: int) -> Iterator[Text]:
    """One cause: what happens, who sums, what to do, what it takes, counts, code, places."""
    first, apart = cause.shown, len(cause.exposures) > 1
    yield from _folded(f"{number}. {_title(cause)}", page, style="bold", after=INDENT)
    head = Text(INDENT)
    head.append(f"rule {one_line(cause.rule)}", "dim")
    head.append(f"  {', '.join((counted(len(cause.findings), 'place'), *_models(cause.findings)))}")
    yield _cut(head, page)
    if not cause.uniform:
        others = "below" if report.everything else "with --all"
        yield from _labelled(
            "Example", f"{_short(first)}; the others in their own words {others}", page
        )
    yield from _labelled("What", sentence(first.message), page)
    yield from _labelled("Who sums", sentence(first.sums), page)
    yield from _labelled("Repair", sentence(first.fix), page)
    if cause.reach:
        reach = f"{cause.reach}: {REACH_WORDS[cause.reach]}"
        yield from _labelled(
            "Reach", f"{reach}; {settings(cause.takes)}" if cause.takes else reach, page
        )
    yield from _launched(cause.launch, page)
    for need in cause.needs:
        yield from _labelled("Needs", sentence(need), page)
    if apart:
        some = share(len(cause.exposures[0].findings), len(cause.findings))
        yield from _labelled("Holds", f"for {some}; the rest {REST}, below", page)
    yield from _labelled("Flags", rows_words(first.rows, _names()), page)
    yield from _labelled("Shown by", shown_by(first) if first.deployment else "", page)
    if first.counts:
        yield from counts_lines(first, page, indent=INDENT)
    yield from code_lines(report, first, page, indent=INDENT)
    for exposure in cause.exposures:
        if exposure != cause.exposures[0]:
            yield from _terms(exposure, cause, page)
        yield from _places(report, exposure, cause, page)
        if report.everything:
            for finding in exposure.findings:
                yield from finding_lines(finding, page, known=first.fix)


def _terms(exposure: Exposure, cause: Cause, page: Page) -> Iterator[Text]:
    """What some of a cause's places take; of the first ones the cause has said it."""
    head = Text(INDENT)
    head.append(exposure.reach or rule(cause.rule).level, TONES[exposure.reach])
    yield _cut(head.append(f"  {share(len(exposure.findings), len(cause.findings))}"), page)
    yield from _launched(exposure.launch, page)
    for need in exposure.needs:
        yield from _labelled("Needs", sentence(need), page)


def _in_rest(cause: Cause, page: Page, *, number: int) -> Iterator[Text]:
    """A cause that is not shown whole; its launch is, which is said nowhere else.

    Nothing where the first screen has said it all.
    """
    head, *others = _in_short(cause, page, number=number)
    cut = bool(cause.launch) and head.plain.endswith("…")
    if number <= FIRST_SCREEN and not cut:
        return
    if not cause.launch:
        yield _cut(Text(f"{number:>2} {_title(cause)}"), page)
        yield _cut(Text(f"{INDENT}{_where(cause, page)}"), page)
        return
    yield from (_head(cause, number=number) if cut else head, *others)
    if cut:
        yield from _launched(cause.launch, page)


def finding_lines(finding: Finding, page: Page, *, known: str) -> Iterator[Text]:
    """One finding among those of its cause: where, and all that it says of itself.

    Its repair only where it is not the one that is `known` of the cause.
    """
    name = ".".join(filter(None, (finding.cls, finding.method)))
    yield from _folded(f"{place(finding)} {name}", page, before=INDENT, after=INDENT + "    ")
    inner = INDENT + "  "
    yield from _labelled("What", sentence(finding.message), page, indent=inner)
    yield from _labelled("Who sums", sentence(finding.sums), page, indent=inner)
    yield from _labelled("Repair", "" if finding.fix == known else finding.fix, page, indent=inner)
    yield from _labelled("Flags", rows_words(finding.rows, _names()), page, indent=inner)
    yield from _labelled("Shown by", shown_by(finding), page, indent=inner)
    yield from _labelled("Where", "; ".join(finding.conditions), page, indent=inner)
    for other in finding.related:
        yield from _labelled("And", f"{other.file}:{other.line} {other.what}", page, indent=inner)


# lines ---------------------------------------------------------------------------------------


def _models(findings: Sequence[Finding]) -> tuple[str, ...]:
    """`21 models`, where findings are in files; nothing else."""
    models = {model_of(one) for one in findings if one.file}
    return (counted(len(models), "model"),) if models else ()


def _title(cause: Cause) -> str:
    return one_line(titled(cause.title, cause.takes))


def _where(cause: Cause, page: Page) -> str:
    """The first places; of a finding of no place what it says, which begins with its case."""
    if cause.shown.file:
        return _first_places(cause, page)
    return one_line(cause.shown.message or few(cause.shown.subject))


def _first_places(cause: Cause, page: Page) -> str:
    """The first few places of the launch that is said, and how many more there are."""
    findings = cause.exposures[0].findings
    names = list(dict.fromkeys(map(_short, findings)))
    others = len(cause.findings) - len(findings)
    apart = f"; {others} {REST}" if others else ""
    room = page.width - len(INDENT) - len(", and 999 more") - len(apart)
    shown = names[:1]
    for name in names[1:]:
        if len(", ".join((*shown, name))) > room:
            break
        shown.append(name)
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f", and {rest} more" if rest else "") + apart


def _short(finding: Finding) -> str:
    if finding.file is None:
        return one_line(few(finding.subject))
    at = f":{finding.line}" if finding.line else ""
    file = finding.file.rpartition("/")[2]
    model = model_of(finding)
    return one_line(f"{file if file == f'{model}.py' else f'{model}/{file}'}{at}")


def _places(report: Report, exposure: Exposure, cause: Cause, page: Page) -> Iterator[Text]:
    """Every place as `file:line`, below the folder that all of the cause are in, in columns.

    Of findings of no place the subjects, all of them where everything is shown.
    """
    files = [finding for finding in exposure.findings if finding.file]
    if not files:
        for subject in dict.fromkeys(one.subject for one in exposure.findings):
            yield from _labelled("Where", subject if report.everything else few(subject), page)
        return
    every = [finding for finding in cause.findings if finding.file]
    folder = commonpath([str(one.file).rpartition("/")[0] for one in every])
    # one layer may be wrong in several ways
    names = list(dict.fromkeys(one_line(place(one)).removeprefix(f"{folder}/") for one in files))
    if exposure == cause.exposures[0]:
        some = "" if len(files) == len(every) else f"{len(files)} of {len(every)}, "
        yield from _labelled("Places", f"{some}in {folder}" if folder else "", page)
    room = page.width - len(INDENT) - LABEL
    width = max(len(one_line(place(one)).removeprefix(f"{folder}/")) for one in every) + 2
    columns = max(room // width, 1)
    for start in range(0, len(names), columns):
        line = "".join(f"{name:<{width}}" for name in names[start : start + columns])
        yield Text(f"{INDENT}{'':<{LABEL}}{line}".rstrip())


def _legend(findings: Sequence[Finding], page: Page) -> Iterator[Text]:
    """What the flags mean that occur, in the rows or the settings of what is shown."""
    names = _names()
    seen = {name for one in findings for name in one.takes}
    for row in {row for one in findings for row in (*one.rows, one.row or "")}:
        if len(row) == len(names):
            seen |= {flag for flag, bit in zip(names, row, strict=True) if bit == "1"}
    for reason in skip_reasons():
        if reason.flag in seen:
            text = f"{reason.name}; completed by {reason.completed_by}"
            yield from _labelled(reason.flag, text, page, indent="", width=4)


def _names() -> tuple[str, ...]:
    return tuple(reason.flag for reason in skip_reasons())


def _labelled(
    label: str, words: str, page: Page, *, indent: str = INDENT, width: int = LABEL
) -> Iterator[Text]:
    """`label  words`, folded under the words; nothing where there are none."""
    if not words:
        return
    room = max(page.width - len(indent) - width, 20)
    for index, piece in enumerate(_pieces(words, room)):
        line = Text(indent)
        line.append(f"{'' if index else label:<{width}}", "dim")
        line.append(piece)
        yield line


def _launched(launch: Sequence[str], page: Page) -> Iterator[Text]:
    """A launch, an option never apart from its value: each line can be copied."""
    options: list[str] = []
    for word in map(one_line, launch):
        if options and not word.startswith("-") and options[-1].startswith("-"):
            options[-1] += f" {word}"
        else:
            options.append(word)
    room = page.width - len(INDENT) - LABEL
    lines = [""]
    for option in options:
        joined = f"{lines[-1]} {option}".lstrip()
        if len(joined) <= room:
            lines[-1] = joined
        else:
            lines.append(option)
    for index, line in enumerate(filter(None, lines)):
        yield from _labelled("" if index else "Launch", line, page)


def _pieces(words: str, room: int) -> list[str]:
    """The words in lines of `room` characters; one that is longer is broken after its parts."""
    # beside its label even a long name would go over the edge
    parts = (_parted(word, room) for word in one_line(words).split(" "))
    return wrap(" ".join(parts), room, break_on_hyphens=False)


def _parted(word: str, room: int) -> str:
    """A word that is longer than `room` with blanks where a name may go on in the next line."""
    pieces = []
    while len(word) > room:
        end = max(word.rfind(sign, 0, room) for sign in "./,=(") + 1 or room
        pieces.append(word[:end])
        word = word[end:]
    return " ".join((*pieces, word))


def _folded(
    words: str, page: Page, *, style: str = "", before: str = "", after: str = ""
) -> Iterator[Text]:
    pieces = wrap(
        one_line(words),
        page.width,
        initial_indent=before,
        subsequent_indent=after,
        break_on_hyphens=False,
        break_long_words=False,
    )
    yield from (Text(piece, style) for piece in pieces)


def _cut(line: Text, page: Page) -> Text:
    line.truncate(page.width, overflow="ellipsis")
    return line
