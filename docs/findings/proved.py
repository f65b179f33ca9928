"""Where prove and the scan disagree: `python docs/findings/proved.py sglang==0.5.20`.

A cause of prove and one of its blocks agree with the scan where it has a finding of the same kind
(parts are missing, or too much is summed) in the same row of flags and under the same setting
(copies of the experts, an all-to-all backend, neither), in the block's file, in a layer that bears
its name (a finding names four), or in what all layers share. A finding of the scan agrees where it
is in a block that prove judged, and prove has a cause like it there; other places it has not asked.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

MISSING = {"missing", "lost", "past the end"}
SHARED = "communicator"
# what two releases, or two deployments, say of one cause
_NUMBERS = re.compile(r"\d+ (?:of \d+|times)|; blocks that know .*")
Found = Sequence[dict[str, Any]]
SETTINGS = ("moe_dp_size", "moe_a2a_backend")
# a row, whether parts are missing, and what it takes
Shown = tuple[str, bool, str]


def shown(finding: dict[str, Any]) -> set[Shown]:
    """What a finding says goes wrong, as both say it; the scan's has all rows in which it does.

    Where ranks hold other numbers of rows a forward ends, whichever of the two it is.
    """
    rows = finding.get("rows") or [finding["row"]]
    missing = {True, False} if finding["kind"] == "crash" else {finding["kind"] in MISSING}
    return {(row, which, setting(finding)) for row in rows for which in missing}


def setting(finding: dict[str, Any]) -> str:
    """What a finding takes beside flags: a scan's says so, prove's has it in its deployment."""
    if finding.get("file"):
        named = (words.partition(" ")[0] for words in finding["takes"])
        return next((name for name in named if not name.isupper() and name != "moe_ep_size"), "")
    usual = {1, None, "none"}
    return next((name for name in SETTINGS if finding["deployment"].get(name) not in usual), "")


def block(finding: dict[str, Any]) -> str:
    """Where a finding of the scan is, as prove names a block."""
    return f"{PurePosixPath(finding['file']).stem}/{finding['cls']}.{finding['method']}"


def places(finding: dict[str, Any]) -> tuple[str, ...]:
    """The file of a finding of the scan, and the layers that it names."""
    return PurePosixPath(finding["file"]).stem, *finding["subject"].split(", ")


def blocks(cause: dict[str, Any]) -> Iterator[str]:
    """The blocks of a cause of prove, each once, whichever layer it is in."""
    yield from {name.partition(" in ")[0]: None for name in cause["subject"].split(", ")}


def prove_only(
    proved: Found, scanned: Found, refused: Found
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Blocks of prove's causes for which the scan has nothing like it, and whether it is refused.

    The scan names what the source refuses with its row, and not what it takes.
    """
    there = {(place, what) for one in scanned for place in places(one) for what in shown(one)}
    ends = {(place, one["row"]) for one in refused for place in places(one)}
    for cause in proved:
        for name in blocks(cause):
            file, _, method = name.partition("/")
            near = (file, method.partition(".")[0], SHARED)
            if there.isdisjoint((place, what) for place in near for what in shown(cause)):
                stops = not ends.isdisjoint((place, cause["row"]) for place in near)
                yield "refused" if stops else "prove only", name, cause


def scan_only(proved: Found, scanned: Found, judged: set[str]) -> Iterator[dict[str, Any]]:
    """Findings of the scan in blocks for which prove has nothing like it."""
    causes = {(name, what) for one in proved for name in blocks(one) for what in shown(one)}
    for one in scanned:
        if block(one) in judged and causes.isdisjoint((block(one), what) for what in shown(one)):
            yield one


def compared(proved: dict[str, Any], scanned: dict[str, Any]) -> tuple[Counter[str], list[str]]:
    """How many agree, and a line for each that does not."""
    judged = {subject["name"].partition(" in ")[0] for subject in proved["subjects"]}
    theirs, ours = proved["findings"], scanned["findings"]
    alone = [*prove_only(theirs, ours, scanned["refused"])]
    without = [*scan_only(theirs, ours, judged)]
    counts = Counter(
        causes=sum(len([*blocks(cause)]) for cause in theirs),
        **Counter(why for why, *_ in alone),
        findings=sum(block(one) in judged for one in ours),
        **{"scan only": len(without)},
    )
    lines = [
        f"{why}: {cause['row']} {cause['kind']} {name}: "
        + _NUMBERS.sub("", cause["message"].partition(": ")[2])
        for why, name, cause in alone
    ]
    lines += [
        f"scan only: {one['row']} {one['kind']} {block(one)}: {one['rule']} "
        + " ".join(one["launch"] or ())
        for one in without
    ]
    return counts, sorted(lines)


def said(*command: str) -> dict[str, Any]:
    """What a command of the tool says, as JSON."""
    run = (sys.executable, "-m", "verify", *command, "--format", "json", "--fail-on", "never", "-q")
    answer: dict[str, Any] = json.loads(subprocess.run(run, capture_output=True, check=True).stdout)
    return answer


def main(source: str) -> None:
    """Print every disagreement, and the counts."""
    counts, lines = compared(said("prove", "--source", source), said("scan", source))
    sys.stdout.write("".join(f"{line}\n" for line in (*lines, f"{source} {dict(counts)}")))


if __name__ == "__main__":
    main(sys.argv[1])
