"""Results of `verify serve` as the tables of this folder: python serve_tables.py FILE.jsonl ...

FILEs are what `--results` wrote; of rows of one case the last one counts. Markdown goes to standard
output. `--argued MODEL` (repeatable): its divergences are argued in docs/findings.

A model is covered where tp2, tp2.ep2 and tp4 are exact, or argued, with every corruption seen, and
so is each layout with attention data parallelism and expert parallelism that was run, unless the
model does not know it (*sizes differ*, *cannot run*: said in the row).

`--launches`: a line a case instead, with the nats, and how its corruptions showed.
"""

import argparse
import re
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from verify.checks.serve.layout import parse
from verify.checks.serve.results import read

Row = Mapping[str, Any]
NEEDED = ("tp2", "tp2.ep2", "tp4")
SHOWN = (*NEEDED, "tp2.dp2.ep2", "tp4.ep2", "tp4.dp2.ep2", "tp4.dp2.ep4")
REPAIRED = " repaired"
CONTROL = 20
"""A model that was run in more layouts than these is in a table of all layouts."""
FUSION = {
    "--enforce-disable-flashinfer-allreduce-fusion": "fusion off",
    "--enable-flashinfer-allreduce-fusion": "fusion on",
}
IN_WORDS = {"in-module": "in their module"}
SEEN = ("diverged", "in-module", "unused", "sizes-differ", "cannot-run")


def main(words: Sequence[str]) -> int:
    """Print the tables of the files; 2 where they hold no case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--argued", action="append", default=[], metavar="MODEL")
    parser.add_argument("--launches", action="store_true")
    given = parser.parse_args(words)
    rows = latest(row for file in given.files for row in read(file))
    if not rows:
        sys.stderr.write("serve_tables: no case in the files\n")
        return 2
    for release in sorted({row["release"] for row in rows}):
        of_release = [row for row in rows if row["release"] == release]
        lines = (
            launches(release, of_release)
            if given.launches
            else section(release, of_release, argued=given.argued)
        )
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def launches(release: str, rows: Sequence[Row]) -> Iterator[str]:
    """A line a case of one release."""
    yield f"## {release}\n"
    yield from _table(
        ["model", "layout", "", "outcome", "nats", "allowed", "made wrong"],
        (
            [
                row["model"],
                row["layout"],
                _as(row),
                row["outcome"].replace("-", " "),
                *(
                    "" if row[name] is None else f"{row[name]:.2f}"
                    for name in ("dlogprob", "tolerance")
                ),
                row["reason"] or _wrong(row["corruptions"]),
            ]
            for row in rows
        ),
    )


def _as(row: Row) -> str:
    """How the model was launched, beside its layout."""
    environment = [word for word in row["launch"] if "=" in word and not word.startswith("-")]
    # an option with its value is one word of the table
    given = re.sub(r" (?!-)", "=", " ".join(row["arguments"])).split()
    words = [*environment, *(FUSION.get(each, each.replace("=", " ")) for each in given)]
    if row["patch_digest"]:
        words.append(row["patch"])
    if row["seed"]:
        words.append(f"seed {row['seed']}")
    return ", ".join(words) or "as released"


def _wrong(corruptions: Sequence[Mapping[str, Any]]) -> str:
    """How many were tried and how they were seen; the least that one moved log-probabilities."""
    counts = Counter(each["seen"] for each in corruptions)
    least = min((each["nats"] for each in corruptions if each["seen"] == "diverged"), default=0.0)
    how = [f"{counts.pop('diverged', 0)} diverged by at least {least:.1f}"]
    how += [f"{n} {IN_WORDS.get(name, name)}" for name, n in sorted(counts.items())]
    return f"{len(corruptions)}: " + ", ".join(how)


def latest(rows: Iterable[Row]) -> list[Row]:
    """Of rows of one case the last, but a thorough one before one that is not."""
    kept: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        case = (*(row[name] for name in ("release", "model", "layout", "seed")), *row["launch"])
        # the name too: it has what a patch was told by its environment
        key = (*case, row["patch_digest"], row.get("patch"))
        if row["thorough"] or not (key in kept and kept[key]["thorough"]):
            kept[key] = row
    return sorted(kept.values(), key=lambda row: (row["model"].lower(), _order(row), row["seed"]))


def _order(row: Row) -> tuple[int, str]:
    return parse(row["layout"]).tp, row["layout"]


def section(release: str, rows: Sequence[Row], *, argued: Sequence[str]) -> Iterator[str]:
    """The tables of one release."""
    counts = Counter(row["outcome"] for row in rows)
    made = Counter(_made(row["versions"]) for row in rows)
    yield f"## {release}\n"
    yield f"{len(rows)} cases: " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
    yield "Made with " + "; ".join(f"{with_} ({n})" for with_, n in sorted(made.items())) + ".\n"
    for seed in sorted({row["seed"] for row in rows}):
        yield from _models([row for row in rows if row["seed"] == seed], seed, argued)
    yield from _controls(rows)
    yield from _reasons(rows)
    yield from _corruptions(rows)
    yield from _times(rows)


def _made(versions: Mapping[str, str]) -> str:
    """Python and packages, as far as a row has them."""
    names = ("python", "torch", "transformers", "triton")
    return ", ".join(f"{name} {versions[name]}" for name in names if name in versions)


def _models(rows: Sequence[Row], seed: int, argued: Sequence[str]) -> Iterator[str]:
    """A row a model."""
    layouts = [each for each in SHOWN if any(row["layout"] == each for row in rows)]
    by_model = _by_model(rows)
    verdicts = {model: covered(own, argued=model in argued) for model, own in by_model.items()}
    whole = sum(not why for why in verdicts.values())
    yield f"Seed {seed}: {whole} of {len(by_model)} models covered.\n"
    head = ["model", *layouts, "other layouts", "tolerance", "corruptions seen", "covered"]
    yield from _table(
        head,
        (
            [
                model,
                *(_cell([row for row in own if row["layout"] == each]) for each in layouts),
                _others([row for row in own if row["layout"] not in layouts]),
                _most(row["tolerance"] for row in own),
                _seen(own),
                verdicts[model] or "yes",
            ]
            for model, own in by_model.items()
        ),
    )


def _by_model(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each model, those of a repaired one apart."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["model"] + (REPAIRED if row["patch_digest"] else "")].append(row)
    return found


def covered(rows: Sequence[Row], *, argued: bool) -> str:
    """Why a model is not covered by its rows of one seed, "" where it is."""
    plain = {row["layout"]: row for row in rows if not row["arguments"]}
    fine = ("exact", "diverged") if argued else ("exact",)
    for layout in NEEDED:
        if layout not in plain:
            return f"{layout} not run"
        if plain[layout]["outcome"] not in fine:
            return f"{layout} {plain[layout]['outcome']}"
    for layout, row in plain.items():
        sizes = parse(layout)
        both = sizes.dp > 1 and sizes.ep > 1
        if both and row["outcome"] not in (*fine, "sizes-differ", "cannot-run", "refused"):
            return f"{layout} {row['outcome']}"
    for row in plain.values():
        missed = [each for each in row["corruptions"] if each["seen"] not in SEEN]
        if row["outcome"] == "exact" and (missed or not row["corruptions"]):
            return f"{row['layout']}: {len(missed)} corruptions not seen"
    return ""


def _cell(rows: Sequence[Row]) -> str:
    """What one layout gave; of several launches the worst."""
    if not rows:
        return "-"
    row = max(rows, key=lambda each: (each["outcome"] != "exact", each["dlogprob"] or 0.0))
    if row["outcome"] == "exact":
        return f"{row['dlogprob']:.0e}"
    if row["outcome"] == "diverged":
        far = "not a number" if row["dlogprob"] is None else f"{row['dlogprob']:.2g}"
        return f"**diverged {far}**"
    return str(row["outcome"]).replace("-", " ")


def _others(rows: Sequence[Row]) -> str:
    counts = Counter(row["outcome"] for row in rows)
    return ", ".join(f"{n} {name.replace('-', ' ')}" for name, n in sorted(counts.items())) or "-"


def _most(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{max(known):.0e}" if known else "-"


def _seen(rows: Sequence[Row]) -> str:
    """How many corruptions of exact cases were seen of those that were tried."""
    tried = [each for row in rows if row["outcome"] == "exact" for each in row["corruptions"]]
    return f"{sum(each['seen'] in SEEN for each in tried)} of {len(tried)}"


def _controls(rows: Sequence[Row]) -> Iterator[str]:
    """A row a layout, for models that were run in (nearly) all."""
    by_model = _by_model(row for row in rows if row["seed"] == 0 and not row["arguments"])
    shown = {
        model.removesuffix(REPAIRED)
        for model, own in by_model.items()
        if len({row["layout"] for row in own}) > CONTROL
    }
    columns = [model for model in by_model if model.removesuffix(REPAIRED) in shown]
    if not columns:
        return
    layouts = sorted({_order(row) for model in columns for row in by_model[model]})
    yield "All layouts, seed 0:\n"
    yield from _table(
        ["layout", *columns],
        (
            [each, *(_cell([row for row in by_model[m] if row["layout"] == each]) for m in columns)]
            for _, each in layouts
        ),
    )


def _reasons(rows: Sequence[Row]) -> Iterator[str]:
    """Everything that is neither exact nor diverged."""
    layouts: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for row in rows:
        if row["outcome"] not in ("exact", "diverged"):
            layouts[row["model"], row["outcome"], str(row["reason"])].append(row["layout"])
    diverged = [row for row in rows if row["outcome"] == "diverged"]
    if diverged:
        yield "Diverged, and the first module at fault:\n"
        yield from _table(
            ["model", "launch", "seed", "nats", "step", "module", "what"],
            (
                [
                    row["model"],
                    f"`{' '.join(row['launch'])}`",
                    str(row["seed"]),
                    "not a number" if row["dlogprob"] is None else f"{row['dlogprob']:.3g}",
                    str(row["step"]),
                    str(row["module"]),
                    str(row["accused"].get("what")),
                ]
                for row in diverged
            ),
        )
    if layouts:
        yield "No number, and why:\n"
        yield from _table(
            ["model", "layouts", "outcome", "reason"],
            (
                [model, " ".join(dict.fromkeys(where)), outcome.replace("-", " "), reason]
                for (model, outcome, reason), where in layouts.items()
            ),
        )


def _corruptions(rows: Sequence[Row]) -> Iterator[str]:
    """How corruptions of exact cases showed, by what was made wrong; and each that did not."""
    exact = [row for row in rows if row["outcome"] in ("exact", "ill-conditioned")]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in exact:
        for each in row["corruptions"]:
            how = "over another group" if each["how"].startswith("over ") else each["how"]
            counts[how][each["seen"]] += 1
    yield "Corruptions of exact and ill-conditioned cases, by how they were seen:\n"
    words = (*SEEN, "not-seen")
    yield from _table(
        ["what was done", *words],
        ([how, *(str(found[word]) for word in words)] for how, found in sorted(counts.items())),
    )
    missed = [
        [row["model"], row["layout"], each["where"], each["how"], f"{each['nats']:.1e}"]
        for row in exact
        for each in row["corruptions"]
        if each["seen"] == "not-seen"
    ]
    if missed:
        yield "Not seen:\n"
        yield from _table(["model", "layout", "where", "how", "nats"], missed)


def _times(rows: Sequence[Row]) -> Iterator[str]:
    """Medians of the seconds of cases that were judged, by ranks."""
    for tp in sorted({parse(row["layout"]).tp for row in rows}):
        own = [row for row in rows if parse(row["layout"]).tp == tp]
        for thorough in (False, True):
            took = [
                row["seconds"]
                for row in own
                if row["outcome"] in ("exact", "diverged") and row["thorough"] is thorough
            ]
            if took:
                kind = "with --corruptions" if thorough else "without --corruptions"
                middle = statistics.median(took)
                yield f"{tp} ranks, {kind}: median {middle:.1f} s of {len(took)} cases"
    yield ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(text.replace('|', '/') for text in row)} |"
    yield ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
