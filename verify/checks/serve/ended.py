"""How a run ended, from what its ranks and the process that starts them left."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from verify.checks.serve.case import Outcome
from verify.engines.engine import Engine

TAIL = 2000
OWN = f"{Path(__file__).resolve().parents[2]}/"


def classify(answer: dict[str, Any], *, engine: Engine) -> tuple[Outcome, str | None]:
    """How a run ended, `exact` where every rank has rows to compare, and why where not."""
    if answer.get("lost"):
        return "cannot-run", str(answer["lost"])
    failed = answer["prepare"]
    if failed:
        if failed["kind"] == "RefusedError":
            return "refused", _short(failed["error"])
        return "cannot-run", _where(failed, engine.package)
    for result in answer["ranks"]:
        # where no process imports the engine before ranks do, rank 0 reads the launch
        if result and result.get("kind") == "RefusedError":
            return "refused", _short(result["error"].removeprefix("RefusedError: "))
    for said in _words(answer):
        for line in said.splitlines():
            if engine.sizes_differ.search(line):
                return "sizes-differ", _short(line)
    why = _why_not(answer, engine)
    return ("cannot-run", why) if why else ("exact", None)


def _why_not(answer: dict[str, Any], engine: Engine) -> str | None:
    """The first rank that is in the way of a comparison: its own fault before a peer's."""
    ended = (answer["ended"] or {}).get("ranks", [])
    reasons: dict[str, str] = {}
    late = [rank for rank, how in enumerate(ended) if how == "time limit"]
    if late:
        named = ", ".join(map(str, late))
        said = {rank: line for rank in late if (line := _last(answer["said"][rank]))}
        last = next((f"; rank {rank} said last: {line}" for rank, line in said.items()), "")
        return f"waited {engine.case_s:g} s for ranks {named}: gave up{last}"
    for rank, result in enumerate(answer["ranks"]):
        if result is None:
            how = ended[rank] if ended else "the case's process ended"
            reasons.setdefault("gone", f"rank {rank} ended without a result: {how}")
        elif result.get("error"):
            kind = "peer" if engine.peer_gone.search(result["error"]) else "own"
            reasons.setdefault(kind, f"rank {rank}: {_where(result, engine.package)}")
        elif result["unfilled"]:
            names = ", ".join(result["unfilled"][:3])
            reasons.setdefault("unfilled", f"rank {rank}: no tensor filled {names}")
    return next(
        (reasons[kind] for kind in ("own", "gone", "peer", "unfilled") if kind in reasons), None
    )


def _words(answer: dict[str, Any]) -> Iterator[str]:
    """What ranks that failed said, in an exception or before a native abort."""
    for result, said in zip(answer["ranks"], answer["said"], strict=True):
        if result is None:
            yield said
        elif result.get("error"):
            yield result["error"]


def _where(failure: dict[str, Any], package: str) -> str:
    """A failure's words, and the innermost place in the engine, `package/folder/file.py:line`."""
    marker = f"/{package}/"
    # this tool's own folder for the engine has the package's name too
    inside = [f for f in failure["frames"] if marker in f and not f.startswith(OWN)]
    at = f" at {package}/{inside[-1].rpartition(marker)[2]}" if inside else ""
    return f"{_short(failure['error'])}{at}"


def last_words(answer: dict[str, Any]) -> tuple[str, ...]:
    """What each rank wrote last, and its exception, whatever made it fail; `TAIL` characters."""
    if answer.get("lost") or answer["prepare"]:
        return (str(answer.get("lost") or answer["prepare"]["trace"])[-TAIL:],)
    return tuple(
        f"{said[-TAIL:]}\n{((result or {}).get('trace') or '')[-TAIL:]}".strip()
        for result, said in zip(answer["ranks"], answer["said"], strict=True)
    )


def _last(text: str) -> str:
    return text.strip().splitlines()[-1][:200] if text.strip() else ""


def _short(text: str) -> str:
    return text.strip().splitlines()[0][:300] if text.strip() else "no reason given"
