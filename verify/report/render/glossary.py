"""The tool's own words that a report uses, with what they mean: those that occur, where they stand.

A word has its meaning by command, and is looked for in all that the report shows.
"""

import re
from collections.abc import Iterator, Mapping

from verify.logic.flags import flag_names
from verify.report.render.words import shown_by
from verify.report.report import GridSection, Report, Section, TableSection

_CAUSES = {
    "cause": "findings that one repair would end",
    "finding": "one place that is wrong",
    "site": "one sum over ranks of what a block puts out",
    "guard": "the condition under which a block sums",
}
_COUNTS = {
    "case": "a layer or block on one deployment",
    "exact": "every partial sum is counted once, on every rank",
    "double": "a partial sum is counted more than once",
    "missing": "a partial sum is not counted by every rank",
    "mixed": "counted too often in part and too rarely in part, or with other tokens in the sum",
    "crash": "the ranks call collectives that do not fit each other",
    "hang": "a rank waits for others that never come",
    "cannot run": "nothing is known: what the code needs is not here",
}
_LAUNCHES = {
    "conditional": "wrong where what it needs is so, which nobody has seen",
    "partial": "what one rank has of a sum over ranks",
    "stage boundary": "the code between a layer's parts that sums and moves tensors",
}
_SHAPES = {
    "open-coded": "each model writes out when its block sums",
    "helper-arguments": "models ask one function whether to skip a sum, and hand it the flags",
    "helper-context": "models ask one function, which reads the flags from the forward pass",
    "layer-boundary": "the layers' boundary decides who sums, the models no longer do",
}
_SUBJECTS = {
    "subject": "guards that are judged: the helper's, an original one, a source's own",
    "in a block": "the block could have answered better by the flags it is given",
    "around it": "no answer of the block is right, or the step that a flag promises fails",
}
_READINGS = {
    "signature": "flags that forward() does not accept are taken as false",
    "diff": "a row in which helper and original guard disagree",
    "called": "every row, with the keywords that the migrated code passes",
    "passed": "every row, with every flag handed over",
    "oracle": "a site's original guard, transcribed by hand",
    "expected": "the helper differs from the original guard as its category says",
    "ledger": "counts, rank by rank, how often each partial sum is in the result",
    "conditional": "true under one reading only",
}
_VERDICTS = {
    "guarded wrongly": "sums or skips under a wrong condition, by itself",
    "covered": "skips where a later step sums, and sums where none does",
    "self-contained": "no later step sums what it puts out",
    "unresolved": "the code cannot be followed: not known to be right",
    "set aside": "sums what something else than an MLP or experts puts out",
}
_ANSWERS = {
    "diverged": "several ranks say something else than one, beyond what rounding moves",
    "refused": "the server itself declines the launch",
    "sizes-differ": "ranks meet in a collective with tensors of different sizes",
    "ill-conditioned": "within a tolerance so wide that it could hide a fault",
    "cannot-run": "nothing is known: what the engine needs is not here",
    "nats": "difference of log-probabilities, natural logarithm",
}
WORDS: Mapping[str, Mapping[str, str]] = {
    "report": {**_READINGS, "site": _CAUSES["site"], "guard": _CAUSES["guard"]},
    "explain": {**_READINGS, "site": _CAUSES["site"]},
    "scan": {**_SHAPES, **_CAUSES, **_LAUNCHES, **_VERDICTS},
    "prove": {**_CAUSES, **_COUNTS, **_SUBJECTS, "case": "one subject on one deployment"},
    "replay": {**_CAUSES, **_COUNTS, "disagreement": "prove counts otherwise than was executed"},
    "gpu_tests": {**_COUNTS, "ledger": _READINGS["ledger"]},
    "diff": {**_CAUSES},
    "serve": {"exact": "several ranks say what one says, up to rounding", **_ANSWERS},
}
_ROW = re.compile(r"\brow\b")


def glossary(report: Report, *, sections: tuple[Section, ...]) -> dict[str, str]:
    """The words that occur in `sections`, the title, the summary or a finding, with meanings."""
    text = "\n".join(_texts(report, sections))
    known = WORDS.get(report.command, {})
    found = {
        word: meaning
        for word, meaning in known.items()
        if re.search(rf"\b{re.escape(word)}s?\b", text)
    }
    if _ROW.search(text):
        names = flag_names()
        last = f"{'':0>{len(names) - 1}}1"
        order = " ".join(names)
        found["row"] = f"which of {order} are set, in this order: {last} is {names[-1]} alone"
    return found


def _texts(report: Report, sections: tuple[Section, ...]) -> Iterator[str]:
    yield from (report.title, report.summary)
    for section in sections:
        yield from (section.title, *section.notes)
        match section:
            case TableSection():
                yield from section.columns
                for row in section.rows:
                    yield from row
            case GridSection():
                yield "row"
    for finding in report.findings:
        yield from ("cause", "finding", finding.message, finding.sums, finding.fix)
        yield from (finding.reach or "", "partial" if finding.counts else "")
        if report.everything or finding.deployment:
            yield shown_by(finding)
