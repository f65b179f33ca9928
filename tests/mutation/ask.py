"""What a check says of a mutant that it did not say of the release: new findings, and lost ones."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.mutation.draw import Mutant
from tests.mutation.strata import LAYOUTS, SHARED_JUDGES
from verify.engines.layout import parse

LIMIT_S = 240.0
ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "scan": ("scan", "{tree}"),
    "prove": ("prove", "--source", "{tree}", "--max-ranks", "4"),
    "replay": ("replay", "{tree}", "--jobs", "1"),
}
# all else that replay lays out is as a launch of the judge has it
PLAIN = (
    "moe_dp_size=1,attn_cp_size=1,pp_size=1,moe_a2a_backend=none,"
    "quantization=None,fusion=off,dwdp=False"
)
KEY = ("file", "line", "rule", "kind", "cls", "method")


@dataclass(kw_only=True)
class Asker:
    """One check, on a copy of a release in `scratch` whose mutated file is put back each time."""

    release: Path
    scratch: Path
    check: str = "scan"
    _base: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)

    def ask(self, mutant: Mutant, *, models: Sequence[str] = (), ranks: int = 2) -> dict[str, Any]:
        """`new`, `lost` findings; `vanished` and `appeared` sites; or the `error` that it ended on.

        Replay is asked for `models` only, and for those layouts of `ranks` ranks that the engine
        judges. Findings are known by file, line, rule, kind, class and method: mutants keep their
        lines; those of no file by their subject.
        """
        tree = self._tree()
        words = list(_asked(models, ranks)) if self.check == "replay" else []
        key = tuple(words)
        if key not in self._base:
            self._base[key] = self._run(tree, words)
        file = tree / mutant.file
        source = file.read_text("utf-8")
        # a file of its own, so that the release's, to which it may be a link, stays as it is
        file.unlink()
        file.write_text(mutant.mutation.apply(source), encoding="utf-8")
        try:
            said = self._run(tree, words)
        finally:
            file.write_text(source, encoding="utf-8")
        return compared(self._base[key], said)

    def _tree(self) -> Path:
        tree = self.scratch / self.release.name
        if not tree.exists():
            for path in sorted(self.release.rglob("*.py")):
                target = tree / path.relative_to(self.release)
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(path, target)
                except OSError:
                    shutil.copyfile(path, target)
            for path in self.release.glob("*.dist-info"):
                shutil.copytree(path, tree / path.name)
        return tree

    def _run(self, tree: Path, more: Sequence[str]) -> dict[str, Any]:
        output = self.scratch / f"{self.check}.json"
        output.unlink(missing_ok=True)
        words = [word.format(tree=tree) for word in COMMANDS[self.check]]
        command = [sys.executable, "-m", "verify", *words, *more]
        command += ["--format", "json", "-q", "--output", str(output)]
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return {"error": f"no answer within {LIMIT_S:g} s"}
        if not output.exists():
            return {"error": (done.stderr or done.stdout).strip()[-300:]}
        return dict(json.loads(output.read_text("utf-8")))


def _asked(models: Sequence[str], ranks: int) -> Iterator[str]:
    """Replay's options: the models, and the layouts of so many ranks that the judge runs."""
    for model in models:
        yield from ("--model", model)
    yield from ("--world-size", str(ranks))
    layouts = [parse(word) for word in {*LAYOUTS, *itertools.chain(*SHARED_JUDGES.values())}]
    sizes = {f"tp_size={at.tp},ep_size={at.ep},dp_size={at.dp}" for at in layouts if at.tp == ranks}
    for each in sorted(sizes):
        yield from ("--deployment", f"{each},{PLAIN}")


def compared(base: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """The second report against the first."""
    if "error" in base or "error" in said:
        return {"error": base.get("error") or said.get("error")}
    before, after = _findings(base), _findings(said)
    return {
        "new": [_short(each) for key, each in after.items() if key not in before],
        "lost": [_short(each) for key, each in before.items() if key not in after],
        "changed": [
            _short(each)
            for key, each in after.items()
            if key in before and _content(each) != _content(before[key])
        ],
        "vanished": sorted(_sites(base) - _sites(said)),
        "appeared": sorted(_sites(said) - _sites(base)),
    }


def _findings(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {json.dumps(_key(each)): each for each in report["findings"]}


def _key(finding: Mapping[str, Any]) -> list[Any]:
    return [finding.get(name) for name in (*KEY, *(() if finding.get("file") else ("subject",)))]


def _content(finding: Mapping[str, Any]) -> list[Any]:
    return [finding.get(name) for name in ("message", "rows", "takes", "conditions", "launch")]


def _sites(report: Mapping[str, Any]) -> set[tuple[str, ...]]:
    names = ("file", "line", "cls", "method", "collective", "verdict")
    return {tuple(str(site.get(name)) for name in names) for site in report.get("sites", ())}


def _short(finding: Mapping[str, Any]) -> dict[str, Any]:
    names = (*KEY, "subject", "message", "rows", "takes", "conditions", "reach", "launch", "needs")
    return {name: finding.get(name) for name in (*names, "deployment") if finding.get(name)}
