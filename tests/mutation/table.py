"""Recall and precision with their denominators: by operator, by kind of file, by release."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.mutation.claimed import judged_there

CHECKS = ("scan", "prove", "replay")


class TableError(Exception):
    """The results say nothing: the judge saw no difference where there is one, or there is none."""


def read(files: Iterable[Path]) -> list[dict[str, Any]]:
    """The mutants of the files, each once, the last line of each. Raises `TableError` for a file
    whose control did not diverge: what it says of mutants is not to be believed.

    Two parts of a draw that saw other lines run may have drawn the same edit: it counts once.
    """
    rows: dict[str, dict[str, Any]] = {}
    edits: dict[str, str] = {}
    for file in sorted(files):
        controlled = False
        for line in file.read_text("utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # what a stopped run left
            if "control" in row:
                controlled = row["control"]["outcome"] == "diverged"
            elif "id" in row:
                if "truth" in row and not controlled:
                    raise TableError(f"{file}: its control did not diverge: not believed")
                edit = json.dumps([row.get(name) for name in ("release", "file", "mutation")])
                if "truth" in row and edits.setdefault(edit, row["id"]) != row["id"]:
                    continue
                rows[row["id"]] = {**rows.get(row["id"], {}), **row}
    rows = {name: row for name, row in rows.items() if "truth" in row}
    if not any(row["truth"] == "wrong" for row in rows.values()):
        raise TableError(f"none of {len(rows)} mutants is wrong: nothing to find")
    return [rows[name] for name in sorted(rows)]


def found(row: dict[str, Any], check: str) -> bool | None:
    """Whether the check has a finding that it did not have, None where it was not asked."""
    said = row.get(check)
    if said is None or "error" in said:
        return None
    return bool(said["new"] or said["changed"])


def claimed(row: dict[str, Any], check: str, *outcomes: str) -> bool:
    """Whether one of its new findings says that it is wrong where the engine ran it, and ended
    with one of `outcomes`.
    """
    said = row.get(check) or {}
    return any(
        judged_there(row, each, outcomes=outcomes)
        for each in (*said.get("new", ()), *said.get("changed", ()))
    )


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """All of it as markdown."""
    parts = [_truths(rows)]
    for check in CHECKS:
        if any(found(row, check) is not None for row in rows):
            for title, key in KEYS.items():
                parts.append(_recall(rows, check, title, key))
    return "\n\n".join(parts)


KEYS: dict[str, Callable[[dict[str, Any]], str]] = {
    "kind of file": lambda row: "shared" if row["stratum"] == "shared" else "model",
    "release": lambda row: (
        f"{row['release']} {'shared' if row['stratum'] == 'shared' else 'model'}"
    ),
    "operator": lambda row: row["mutation"]["operator"],
    "file": lambda row: row["file"].removeprefix("sglang/srt/"),
}


def _truths(rows: Sequence[dict[str, Any]]) -> str:
    words = sorted({row["truth"] for row in rows})
    names = sorted({KEYS["release"](row) for row in rows})
    lines = ["| mutants | " + " | ".join(words) + " | all |", "|---" * (len(words) + 2) + "|"]
    for name in [*names, "all"]:
        mine = [row for row in rows if name in (KEYS["release"](row), "all")]
        counts = [sum(row["truth"] == word for row in mine) for word in words]
        lines.append(f"| {name} | " + " | ".join(map(str, [*counts, len(mine)])) + " |")
    return "\n".join(lines)


def _recall(
    rows: Sequence[dict[str, Any]], check: str, title: str, key: Callable[[dict[str, Any]], str]
) -> str:
    """Found of the wrong, and found by a finding of a layout that diverges; of what was found and
    the engine ran, what is right: all of it, and that of which a finding says that it is wrong
    where the engine ran it.
    """
    asked = [row for row in rows if found(row, check) is not None]
    lines = [f"| {check}, by {title} | wrong, found | ... there | right of findings | ... there |"]
    lines.append("|---" * 5 + "|")
    for name in [*sorted({key(row) for row in asked}), "all"]:
        mine = [row for row in asked if name in (key(row), "all")]
        wrong = [row for row in mine if row["truth"] == "wrong"]
        hits = [row for row in mine if found(row, check)]
        if not wrong and not hits:
            continue  # nothing to find there, and nothing said
        judged = [row for row in hits if row["truth"] in ("wrong", "exact")]
        lines.append(
            f"| {name} | {_of(sum(bool(found(row, check)) for row in wrong), len(wrong))} "
            f"| {_of(sum(claimed(row, check, 'diverged') for row in wrong), len(wrong))} "
            f"| {_right(judged)} "
            f"| {_right([row for row in judged if claimed(row, check, 'exact', 'diverged')])} |"
        )
    return "\n".join(lines)


def _right(rows: Sequence[dict[str, Any]]) -> str:
    return _of(sum(row["truth"] == "wrong" for row in rows), len(rows))


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole}" + (f" ({100 * part / whole:.0f} %)" if whole else "")
