"""Serves cases one after the other: the one rank once a model and seed, then each layout."""

import json
import math
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from verify.checks.serve import calibrate, compare
from verify.checks.serve.case import Case, Outcome, Result
from verify.checks.serve.ended import classify, last_words
from verify.checks.serve.layout import ONE
from verify.checks.serve.session import Session
from verify.engines.engine import Engine, Precision

# what an engine's own Python says of itself, and of the network it was left, where it does
VERSIONS = ("version", "python", "torch", "transformers", "triton", "network", "device")


@dataclass(kw_only=True)
class Judge:
    """Runs cases of an engine in a session; what one rank said is kept.

    The one rank has the case's model, seed and patch, and those of its server arguments that are
    not about several ranks: with anything else it would be another model. A repair of a sum
    changes nothing on one rank; how far a patch moves it is measured (`patch_moves`).
    """

    engine: Engine
    session: Session
    release: str
    _models: dict[tuple[str, int], Path] = field(default_factory=dict)
    _ones: dict[Case, dict[str, Any]] = field(default_factory=dict)

    def judge(self, case: Case) -> Result:
        """How the case ends; nothing here raises but what stops the whole command."""
        started = time.monotonic()
        one = self._one(case)
        answer, spoiled = one, None
        outcome, reason = classify(one, engine=self.engine)
        if outcome != "exact":
            reason = f"on one rank: {reason}"
        elif case.layout != ONE:
            answer = self._several(case)
            outcome, reason = classify(answer, engine=self.engine)
        said = _Said()
        if outcome == "exact":
            reference = compare.table(one["ranks"][0]["rows"])
            steps = compare.steps(reference, [rank["rows"] for rank in answer["ranks"]])
            allowed = calibrate.tolerance(one, self.engine.precision)
            if case.layout != ONE:
                spoiled = tuple(self._spoiled(case, one, answer, allowed))
            outcome, reason = _outcome(steps, allowed, spoiled, answer, self.engine.precision)
            said = _Said(steps=steps, tolerance=allowed, corruptions=spoiled or ())
            # a sum that a norm hides may be wrong in the released code as well
            if outcome == "diverged" or (outcome == "ill-conditioned" and spoiled):
                found = self._accused(case, one, answer)
                said = replace(
                    said, accused=found if outcome == "diverged" or found["rows"] else {}
                )
        if answer is not one:
            shutil.rmtree(self._witness(answer), ignore_errors=True)
        worst = max(said.steps, key=lambda step: said.steps[step]) if said.steps else None
        return Result(
            release=self.release,
            case=case,
            launch=(*self.engine.launch(case.layout), *case.arguments),
            outcome=outcome,
            dlogprob=said.steps[worst] if worst else None,
            patch_moves=self._patch_moves(case, one),
            tolerance=said.tolerance,
            step=worst,
            steps=said.steps,
            module=said.accused.get("module"),
            accused=said.accused,
            corruptions=tuple(each.as_json() for each in said.corruptions),
            reason=reason,
            stand_ins=tuple(self.session.hello["stand_ins"]),
            versions={
                name: self.session.hello[name] for name in VERSIONS if name in self.session.hello
            },
            seconds=time.monotonic() - started,
            said=() if said.steps or self.engine.caged else last_words(answer),
        )

    def _one(self, case: Case) -> dict[str, Any]:
        alone = Case(
            model=case.model,
            layout=ONE,
            seed=case.seed,
            arguments=without(case.arguments, self.engine.parallel),
            patch=case.patch,
        )
        if alone not in self._ones:
            self._ones[alone] = self._serve(
                alone, changes=calibrate.rounding(self.engine.precision)
            )
        return self._ones[alone]

    def _patch_moves(self, case: Case, patched: dict[str, Any]) -> float | None:
        """Nats by which the patch moves one rank; None without one, or where one of two cannot."""
        if case.patch is None:
            return None
        plain = self._one(replace(case, patch=None))
        if any(classify(each, engine=self.engine)[0] != "exact" for each in (plain, patched)):
            return None
        reference = compare.table(plain["ranks"][0]["rows"])
        return max(compare.steps(reference, [patched["ranks"][0]["rows"]]).values())

    def _several(self, case: Case) -> dict[str, Any]:
        """A run on the layout's ranks with its own corruptions; without, where they end the run."""
        fresh = self.engine.fresh
        answer = self._serve(case, changes="once" if fresh else "own", watch=fresh)
        outcome, _ = classify(answer, engine=self.engine)
        ranks = self.engine.ranks(case.layout)
        clean = all(Path(answer["folder"], f"clean{rank}").exists() for rank in range(ranks))
        return self._serve(case, changes=[]) if clean and outcome != "exact" else answer

    def _spoiled(
        self, case: Case, one: dict[str, Any], answer: dict[str, Any], allowed: float
    ) -> Iterator[calibrate.Corruption]:
        """The corruptions of a run; one that is not seen runs again with no number in its place.

        Those that the log-probabilities hide, though the value is of use, are looked for in what
        modules make. A thorough case has all that its ranks can name.
        """
        found = list(calibrate.corruptions(answer, allowed=allowed))
        unset = [each for each in found if each.how == calibrate.UNSET]
        places = {repr(each.change): place for place, each in enumerate(found)}
        found = [each for each in found if each.how != calibrate.UNSET]
        if not found:
            found = self._more(case, calibrate.own(answer), allowed)
            places = {}
        if case.thorough:
            found += self._more(case, calibrate.slices(answer), allowed)
            found += self._more(case, calibrate.elsewhere(answer), allowed)
        unseen = [each.change for each in found if each.seen == "not-seen"]
        tried = {calibrate.key(each.change) for each in unset}
        again = [each for each in unseen if calibrate.key(each) not in tried]
        unset += self._more(case, [{**each, "how": calibrate.UNSET} for each in again], allowed)
        dead = {calibrate.key(each.change) for each in unset if each.nats == 0}
        alive = [
            dict(each.change)
            for each in calibrate.hidden(found, allowed=allowed, precision=self.engine.precision)
            if each.seen != "not-seen" or calibrate.key(each.change) not in dead
        ]
        modules = self._noticed(case, one, alive, answer, places)
        for each in found:
            if each.seen == "not-seen" and calibrate.key(each.change) in dead:
                yield replace(each, seen="unused")
            elif module := modules.get(repr(each.change)):
                yield replace(each, seen="in-module", module=module)
            else:
                yield each

    def _noticed(
        self,
        case: Case,
        one: dict[str, Any],
        changes: list[dict[str, Any]],
        answer: dict[str, Any],
        places: dict[str, int],
    ) -> dict[str, str]:
        """By change, the first module with a value that is right and would not be with it.

        A `fresh` engine's run has kept the values of its changes, whose `places` are their numbers;
        any other, and other changes, run once more.
        """
        if not changes:
            return {}
        kept = self.engine.fresh and all(repr(each) in places for each in changes)
        if not kept:
            places = {repr(each): place for place, each in enumerate(changes)}
            answer = self._serve(case, changes=changes, watch=True)
        outcome, _ = classify(answer, engine=self.engine)
        said = {}
        if outcome == "exact":
            numbers = [places[repr(each)] for each in changes]
            asked = {**self._comparison(case, one, answer), "spoiled": numbers}
            judged = self._run(asked, ranks=1)
            if classify(judged, engine=self.engine)[0] == "exact":
                noticed = judged["ranks"][0]["accused"]["noticed"]
                pairs = zip(changes, noticed, strict=True)
                said = {repr(change): str(found["module"]) for change, found in pairs if found}
        if not kept:
            shutil.rmtree(self._witness(answer), ignore_errors=True)
        return said

    def _more(
        self, case: Case, changes: list[dict[str, Any]], allowed: float
    ) -> list[calibrate.Corruption]:
        """Corruptions in a run of their own; where one ends it, those behind it are in the next."""
        found: list[calibrate.Corruption] = []
        while changes:
            answer = self._serve(case, changes=changes)
            outcome, _ = classify(answer, engine=self.engine)
            shutil.rmtree(self._witness(answer), ignore_errors=True)
            if outcome == "exact":
                return found + list(calibrate.corruptions(answer, allowed=allowed))
            before = self._before(case, answer)
            if before is None:
                lost = [
                    calibrate.Corruption(change=each, nats=None, seen=outcome) for each in changes
                ]
                return found + lost
            found += calibrate.corruptions(before, allowed=allowed)
            number = len(before["ranks"][0]["variants"])
            # none where it ended behind the last of them
            ended = changes[number : number + 1]
            found += [calibrate.Corruption(change=each, nats=None, seen=outcome) for each in ended]
            changes = changes[number + 1 :]
        return found

    def _before(self, case: Case, answer: dict[str, Any]) -> dict[str, Any] | None:
        """What all ranks said before one of them failed, None where not even the model as it is."""
        files = [
            Path(answer["folder"], f"clean{rank}") for rank in range(self.engine.ranks(case.layout))
        ]
        if not all(file.exists() for file in files):
            return None
        # a last line may be half written
        said = [list(map(json.loads, file.read_text("utf-8").split("\n")[:-1])) for file in files]
        number = min(map(len, said))
        if not number:
            return None
        return {
            "ranks": [
                {"rows": rows["rows"], "variants": variants[: number - 1]}
                for rows, *variants in said
            ]
        }

    def _accused(self, case: Case, one: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        """The first module at fault: `module`, `step`, `rank`, `what`, `rows`, `far`."""
        judged = self._run(self._comparison(case, one, answer), ranks=1)
        outcome, why = classify(judged, engine=self.engine)
        if outcome != "exact":
            why_not = f"the modules were not compared: {why}"
            return {"module": None, "what": why_not, "rows": None}
        return dict(judged["ranks"][0]["accused"])

    def _comparison(
        self, case: Case, one: dict[str, Any], answer: dict[str, Any]
    ) -> dict[str, Any]:
        """Asks for the values of modules that a run kept to be compared with the one rank's."""
        partitions = {tuple(group) for rank in answer["ranks"] for group in rank["groups"]}
        precision = self.engine.precision
        return {
            "accuse": str(self._witness(answer)),
            "one": str(self._witness(one)),
            "ranks": self.engine.ranks(case.layout),
            "groups": case.layout.dp,
            "seed": case.seed,
            "partitions": sorted(partitions),
            "precision": {name: getattr(precision, name) for name in ("factor", "margin", "size")},
        }

    @staticmethod
    def _witness(answer: dict[str, Any]) -> Path:
        return Path(answer["folder"], "witness")

    def _serve(self, case: Case, *, changes: Any, watch: bool = False) -> dict[str, Any]:
        folder = self._model(case)
        if isinstance(folder, dict):
            return folder
        words = (*self.engine.launch(case.layout), *case.arguments)
        ranks = self.engine.ranks(case.layout)
        request = {
            "model": str(folder),
            "launch": self.engine.command_line(case.model, str(folder), words),
            "ranks": ranks,
            "groups": case.layout.dp,
            "seed": case.seed,
            "patch": case.patch,
            "changes": changes,
            "watch": watch,
        }
        return self._run(request, ranks=ranks)

    def _run(self, request: dict[str, Any], *, ranks: int) -> dict[str, Any]:
        return self.session.run(request, ranks=ranks, limit=self.engine.case_s)

    def _model(self, case: Case) -> Path | dict[str, Any]:
        key = (case.model, case.seed)
        if key not in self._models:
            folder = self.session.folder / f"{case.model}-{case.seed}"
            request = {"write": case.model, "into": str(folder), "seed": case.seed}
            answer = self._run(request, ranks=0)
            if answer.get("prepare") or answer.get("lost"):
                return answer
            self._models[key] = folder
        return self._models[key]


def without(arguments: Sequence[str], options: Collection[str]) -> tuple[str, ...]:
    """Server arguments without some options and their values."""
    kept: list[str] = []
    dropped = False
    for word in arguments:
        if word.startswith("-") and not word.removeprefix("-").isdigit():
            dropped = word.partition("=")[0] in options
        if not dropped:
            kept.append(word)
    return tuple(kept)


@dataclass(frozen=True, kw_only=True)
class _Said:
    steps: dict[str, float] = field(default_factory=dict)
    tolerance: float | None = None
    corruptions: tuple[calibrate.Corruption, ...] = ()
    accused: dict[str, Any] = field(default_factory=dict)


def _outcome(
    steps: dict[str, float],
    allowed: float,
    spoiled: tuple[calibrate.Corruption, ...] | None,
    answer: dict[str, Any],
    precision: Precision,
) -> tuple[Outcome, str | None]:
    """The verdict, and why where it is `ill-conditioned`. One rank has no corruptions (None)."""
    if not all(_repeated(rank, allowed, precision) for rank in answer["ranks"]):
        return "ill-conditioned", "the same model, run twice in one process, answers differently"
    least = math.inf if spoiled is None else calibrate.smallest(spoiled)
    outcome = calibrate.verdict(max(steps.values()), allowed, least, precision)
    if outcome != "ill-conditioned":
        return outcome, None
    if least is None:
        return outcome, "no corruption of this layout could be made"
    return outcome, (
        f"{allowed:.2g} nats are allowed, and a corruption of this case moves {least:.2g}"
    )


def _repeated(rank: dict[str, Any], allowed: float, precision: Precision) -> bool:
    """Whether a rank's last pass, of the model as it is, says what the first one did."""
    if rank["again"] or precision.repeats:
        return bool(rank["again"])
    first = compare.table(rank["rows"])
    return max(compare.steps(first, [rank["repeat"]]).values()) <= allowed
