"""`serve --diff A B`: the cases in which two releases, revisions or saved results differ.

A is what was, B what is: what only B has wrong is a finding, and so is what B can no longer be
asked.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from verify.checks.serve.case import OUTCOMES, Case, Result
from verify.checks.serve.layout import parse
from verify.checks.serve.report import WRONG, what
from verify.checks.serve.results import BEGINNING, read, result_of
from verify.errors import VerifyError
from verify.report.report import NOT_ANALYSED, Finding, Json, Report, TableSection

Change = Literal["broken", "fixed", "elsewhere", "other", "one side", "same"]
CHANGES: tuple[Change, ...] = ("broken", "fixed", "elsewhere", "other", "one side", "same")
MEANS: Mapping[Change, str] = {
    "broken": "B is wrong and A was not",
    "fixed": "A was wrong and B is exact",
    "elsewhere": "both are wrong, in another way or first in another module",
    "other": "the outcome is another one",
    "one side": "only one side has the case",
}
JUDGED = ("exact", *WRONG)
SAVED = (".json", ".jsonl")


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two: what was typed, the release that it is, and its cases."""

    text: str
    release: str
    builders: frozenset[str]
    results: Mapping[str, Result]

    @property
    def engine(self) -> str:
        """The first word of a release."""
        return self.release.partition(" ")[0]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A case on both sides, None where a side does not have it."""

    old: Result | None
    new: Result | None

    @property
    def case(self) -> Case:
        """What was served."""
        return self._any.case

    @property
    def launch(self) -> tuple[str, ...]:
        """Its server arguments."""
        return self._any.launch

    @property
    def change(self) -> Change:
        """What became of the case."""
        old, new = self.old, self.new
        if old is None or new is None:
            return "one side"
        if new.outcome in WRONG and old.outcome in WRONG:
            moved = (old.outcome, old.module) != (new.outcome, new.module)
            return "elsewhere" if moved else "same"
        if old.outcome == new.outcome:
            return "same"
        if new.outcome in WRONG:
            return "broken"
        return "fixed" if old.outcome in WRONG and new.outcome == "exact" else "other"

    @property
    def _any(self) -> Result:
        found = self.new or self.old
        if found is None:
            raise ValueError("a pair of nothing")
        return found


def is_saved(text: str) -> bool:
    """Whether A or B is a file of results, and no source that has to be served."""
    return Path(text).suffix in SAVED and not Path(text).is_dir()


def saved(text: str) -> Side:
    """The side that a report of serve (`--format json`) or a `--results` file holds.

    Of rows of one case the last one counts. Raises `VerifyError` where it is no such file, or one
    of several sources.
    """
    path = Path(text)
    try:
        rows = read(path) if _is_lines(path) else _cases(path)
        results = [_result(row) for row in rows]
    except OSError as error:
        raise VerifyError(f"--diff {text}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise VerifyError(
            f"--diff {text}: no result of serve; want a report of --format json, or a --results "
            "file"
        ) from error
    sources = sorted({_source(row) for row in rows})
    if len(sources) != 1:
        held = ", ".join(sources) or "no case"
        raise VerifyError(f"--diff {text}: holds {held}; want the results of one source")
    return side(text, results, builders=(str(row["builder"]) for row in rows))


def side(text: str, results: Sequence[Result], *, builders: Iterable[str]) -> Side:
    """A side of results that are there; `builders` are digests of what made them here."""
    return Side(
        text=text,
        release=results[0].release if results else "",
        builders=frozenset(builders),
        # a patch is no part of a case here: with and without it may be compared
        results={_key(result): result for result in results},
    )


def compared(texts: Sequence[str], *, serve: Callable[[str], Side], named: bool) -> Report:
    """The report of `--diff A B`; a side that is no file is what `serve` makes of it.

    `named`: the cases were asked for by name, so that one that cannot run is a finding. Raises
    `VerifyError` where the two do not compare, or nothing could be judged on either side.
    """
    # what is there is read first: minutes of serving should not end in a name that is wrong
    kept = {text: saved(text) for text in texts if is_saved(text)}
    old, new = (kept.get(text) or serve(text) for text in texts)
    if old.engine != new.engine:
        raise VerifyError(f"--diff: {old.text} is {old.release}, {new.text} is {new.release}")
    return difference(old, new, named=named)


def difference(old: Side, new: Side, *, named: bool) -> Report:
    """What became of each case from `old` to `new`; both are of one engine."""
    keys = dict.fromkeys((*old.results, *new.results))
    pairs = [Pair(old=old.results.get(key), new=new.results.get(key)) for key in keys]
    everything = [result for pair in pairs for result in (pair.old, pair.new) if result]
    if not any(result.outcome in JUDGED for result in everything):
        why = everything[0].reason if everything else "there is none"
        raise VerifyError(f"serve --diff: no case was judged on either side: {why}")
    counts = Counter(pair.change for pair in pairs)
    told = ", ".join(f"{counts[change]} {change}" for change in CHANGES if counts[change])
    names = _names(old, new)
    return Report(
        command="diff",
        title=f"{names[1]} compared with {names[0]}: several ranks against one",
        summary=f"serve --diff: {names[0]} -> {names[1]}: {told}",
        payload={
            "old": names[0],
            "new": names[1],
            "compared": "serve",
            "builders": sorted(old.builders | new.builders),
            "cases": [_as_json(pair) for pair in pairs],
        },
        sections=tuple(_sections(pairs, builders=old.builders | new.builders)),
        findings=tuple(_findings(pairs, names=names, named=named)),
    )


# files ---------------------------------------------------------------------------------------


def _is_lines(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(BEGINNING)) == BEGINNING


def _cases(path: Path) -> list[dict[str, Json]]:
    # a distance may be Infinity, which the report is written with
    report = json.loads(path.read_text(encoding="utf-8-sig"))
    if report["command"] != "serve":
        raise ValueError(report["command"])
    about = {"source": report["source"]["digest"], "builder": report["builder"]}
    return [{**case, **about} for case in report["cases"]]


def _source(row: Mapping[str, Json]) -> str:
    patched = f", patched by {row['patch']}" if row["patch"] else ""
    return f"{row['release']} ({row['source']}{patched})"


def _result(row: Mapping[str, Json]) -> Result:
    if row["outcome"] not in OUTCOMES:
        raise ValueError(row["outcome"])
    if row["outcome"] == "diverged":
        float(str(row["dlogprob"] or 0))
    case = Case(
        model=str(row["model"]),
        layout=parse(str(row["layout"])),
        seed=int(str(row["seed"])),
        patch=None if row["patch"] is None else str(row["patch"]),
    )
    return result_of(case, row)


def _key(result: Result) -> str:
    case = result.case
    return json.dumps([case.model, str(case.layout), case.seed, *result.launch])


# what is said --------------------------------------------------------------------------------


def _names(old: Side, new: Side) -> tuple[str, str]:
    """Releases; where both are of one, with what was typed."""
    if old.release == new.release:
        return f"{old.release} ({old.text})", f"{new.release} ({new.text})"
    return old.release, new.release


def _as_json(pair: Pair) -> dict[str, Json]:
    keys = ("outcome", "dlogprob", "tolerance", "step", "module", "reason")
    sides: dict[str, Json] = {}
    for name, result in (("old", pair.old), ("new", pair.new)):
        row = result.as_json() if result else None
        sides[name] = None if row is None else {key: row[key] for key in keys}
    return {
        "model": pair.case.model,
        "layout": str(pair.case.layout),
        "seed": pair.case.seed,
        "launch": list(pair.launch),
        "change": pair.change,
        **sides,
    }


def _findings(pairs: Iterable[Pair], *, names: tuple[str, str], named: bool) -> Iterator[Finding]:
    for pair in pairs:
        rule = _rule(pair, named=named)
        if rule is not None:
            old, new = (_long(result) for result in (pair.old, pair.new))
            yield Finding(
                rule=rule,
                message=f"{pair.case.model} on {pair.case.layout}: {names[1]}: {new}; "
                f"{names[0]}: {old}",
                subject=f"{pair.case.model}:{pair.case.layout}",
                kind=pair.change,
                deployment={"layout": str(pair.case.layout), "launch": list(pair.launch)},
            )


def _rule(pair: Pair, *, named: bool) -> str | None:
    """None where nothing is to be said against B that could not be said against A."""
    if pair.old is None or pair.new is None:
        return NOT_ANALYSED
    if pair.change in ("broken", "elsewhere"):
        return f"serve-{pair.new.outcome}"
    asked = pair.change != "same" or named
    unknown = pair.new.outcome in ("cannot-run", "ill-conditioned")
    return NOT_ANALYSED if unknown and asked else None


def _sections(pairs: Sequence[Pair], *, builders: frozenset[str]) -> Iterator[TableSection]:
    differ = [pair for pair in pairs if pair.change != "same"]
    seen = {pair.change for pair in differ}
    notes = [f"{change}: {text}." for change, text in MEANS.items() if change in seen]
    if len(builders) > 1:
        notes.append("The two were not made by one version of this tool.")
    if not differ:
        notes.insert(0, "None of them differs.")
    for title, some, more in (
        ("Cases that differ", differ, False),
        ("Cases that do not", [pair for pair in pairs if pair.change == "same"], True),
    ):
        yield TableSection(
            title=title,
            columns=("model", "layout", "seed", "change", "A", "B"),
            rows=tuple(
                (
                    pair.case.model,
                    str(pair.case.layout),
                    str(pair.case.seed),
                    pair.change,
                    _short(pair.old),
                    _short(pair.new),
                )
                for pair in some
            ),
            notes=() if more else tuple(notes),
            more=more,
        )


def _short(result: Result | None) -> str:
    if result is None:
        return "not there"
    far = f", {result.dlogprob:.2g} nats" if result.outcome == "diverged" else ""
    return f"{result.outcome}{far}"


def _long(result: Result | None) -> str:
    if result is None:
        return "this case is not there"
    said = what(result)
    return said if said == result.outcome else f"{result.outcome}, {said}"
