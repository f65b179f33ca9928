"""Findings that one repair would end are one cause: a list of places with one thing wrong.

What is wrong is either a setting that many layers do not know (`takes`), and then refusing it or
minding it in one place ends them all; or one method, and then mending that method does. Both are
facts that a finding brings along from the source: no model, option or release is named here.
Findings of prove have no place; there each is a cause already.

A finding keeps its identity (`verify.report.fingerprint`), so that a baseline accepts findings one
by one and a new place of a known cause is news. A cause's id follows from what it has in common, so
that it stays the same when places come, go and move.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from verify.report.fingerprint import identity
from verify.report.report import REACHES, Finding, Json, Reach, Report
from verify.report.rules import LEVELS, Level, rule

Key = tuple[str, ...]
# files that several models have in a folder of their own
_COMMON = frozenset({"modeling", "model", "moe", "__init__"})


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """The places of a cause that take the same: one reach, one launch, the same needs."""

    reach: Reach | None
    launch: tuple[str, ...]
    needs: tuple[str, ...]
    indices: tuple[int, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One mistake: its findings by number and in order, what it takes, the worst reach."""

    id: str
    rule: str
    title: str
    reach: Reach | None
    takes: tuple[str, ...]
    launch: tuple[str, ...]
    needs: tuple[str, ...]
    indices: tuple[int, ...]
    findings: tuple[Finding, ...]

    @property
    def models(self) -> tuple[str, ...]:
        """The models it is in, named by their files; without files, the subjects."""
        return tuple(dict.fromkeys(map(model_of, self.findings)))

    @property
    def shown(self) -> Finding:
        """The finding that shows it best, of which reach, launch and needs are said."""
        return shown_of(self.findings)

    @property
    def uniform(self) -> bool:
        """Whether all its findings say of themselves what the one shown does."""
        return len({(one.message, one.sums, one.fix, one.rows) for one in self.findings}) == 1

    @cached_property
    def exposures(self) -> tuple[Exposure, ...]:
        """Its places by what they take, worst first: the first one has the finding shown."""
        alike: dict[tuple[Reach | None, Key, Key], list[tuple[int, Finding]]] = {
            _takes(one): [] for one in sorted(self.findings, key=_plainness)
        }
        for index, finding in zip(self.indices, self.findings, strict=True):
            alike[_takes(finding)].append((index, finding))
        return tuple(
            Exposure(
                reach=reach,
                launch=launch,
                needs=needs,
                indices=tuple(index for index, _ in pairs),
                findings=tuple(finding for _, finding in pairs),
            )
            for (reach, launch, needs), pairs in alike.items()
        )

    def as_json(self) -> dict[str, Json]:
        """The contract's keys; `findings` are indices into the report's findings."""
        return {
            "id": self.id,
            "title": self.title,
            "rule": self.rule,
            "reach": self.reach,
            "launch": self.launch,
            "needs": self.needs,
            "takes": self.takes,
            "findings": self.indices,
        }


def causes_of(findings: Sequence[Finding]) -> tuple[Cause, ...]:
    """The findings by cause, the widest reach first, then those of the most models."""
    groups: dict[Key, list[int]] = {}
    for index, finding in enumerate(findings):
        groups.setdefault(key_of(finding), []).append(index)
    causes = (
        _cause(key, tuple(indices), tuple(findings[index] for index in indices))
        for key, indices in groups.items()
    )
    return tuple(sorted(causes, key=_rank))


def as_json(report: Report) -> dict[str, Json]:
    """The report's JSON contract with its causes, and each finding's cause by id."""
    causes = causes_of(report.findings)
    named = {index: cause.id for cause in causes for index in cause.indices}
    contract = report.as_json()
    return {
        **contract,
        "causes": [cause.as_json() for cause in causes],
        "findings": [
            {**finding.as_json(), "cause": named[index]}
            for index, finding in enumerate(report.findings)
        ],
    }


def key_of(finding: Finding) -> Key:
    """What findings of one cause have in common."""
    if finding.takes:
        return (finding.rule, *finding.takes)
    if finding.file is None:
        # of no place in a source: whoever found it has put together what belongs together
        return identity(finding.as_json())
    return (finding.rule, finding.kind, finding.file, finding.cls or "", finding.method or "")


def level_of(finding: Finding) -> Level:
    """How loud a finding is: its rule's level, and no louder than its reach.

    What needs options is a warning, what needs a checkpoint or hardware a note.
    """
    law = LEVELS.index(rule(finding.rule).level)
    reach = REACHES.index(finding.reach) if finding.reach else 0
    return LEVELS[max(law, reach)]


def id_of(finding: Finding) -> str:
    """The id of the finding's cause: its rule and what tells it from the rule's other causes."""
    digest = hashlib.sha256(json.dumps(key_of(finding)).encode()).hexdigest()[:8]
    return f"{finding.rule}-{digest}"


def _cause(key: Key, indices: tuple[int, ...], findings: tuple[Finding, ...]) -> Cause:
    ordered = sorted(zip(indices, findings, strict=True), key=lambda pair: _reach_rank(pair[1]))
    indices, findings = (tuple(column) for column in zip(*ordered, strict=True))
    first = shown_of(findings)
    return Cause(
        id=id_of(first),
        rule=first.rule,
        title=rule(first.rule).title,
        reach=first.reach,
        takes=first.takes,
        launch=first.launch,
        needs=first.needs,
        indices=indices,
        findings=findings,
    )


def _reach_rank(finding: Finding) -> int:
    """Widest first; what nobody has asked a server about stands behind what needs nothing."""
    return 2 * REACHES.index(finding.reach) if finding.reach else 1


def _rank(cause: Cause) -> tuple[int, int, str, int]:
    """Widest reach first, then the most models; among equals by rule and as found."""
    return (_reach_rank(cause.findings[0]), -len(cause.models), cause.rule, cause.indices[0])


def model_of(finding: Finding) -> str:
    """The model, by its file; a file that many models keep under one name by its folder."""
    if finding.file is None:
        return finding.subject
    path = PurePosixPath(finding.file)
    return path.parent.name if path.stem in _COMMON else path.stem


def shown_of(findings: Sequence[Finding]) -> Finding:
    """The one of widest reach, fewest needs, shortest launch, with counts, on the fewest ranks."""
    return min(findings, key=_plainness)


def _takes(finding: Finding) -> tuple[Reach | None, Key, Key]:
    return finding.reach, finding.launch, finding.needs


def _plainness(finding: Finding) -> tuple[int, int, bool, int, bool, int, int]:
    counts = finding.counts or ()
    return (
        _reach_rank(finding),
        len(finding.needs),
        not finding.launch,
        len(finding.launch),
        not counts,
        len(counts),
        (finding.row or "").count("1"),
    )
