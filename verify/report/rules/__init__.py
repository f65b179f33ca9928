"""What is looked for: a file a rule, with what goes wrong, how it is put right, and an example.

A rule lies in the folder of the check that finds it, in `rules/`; here lie those of every report.
Whoever has a folder of rules hands it in with `collect`; a file is read when its rule is asked for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Literal

from verify.errors import VerifyError

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class Example:
    """A line that breaks the rule and the line that keeps it, both Python, cut to what matters.

    `seen` names releases and files; the cases are argued in docs/findings/triage.md.
    """

    wrong: str
    right: str
    seen: str


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`title` is a phrase, `why` says what goes wrong at run time, `repair` how it is put right.

    A rule about no line of a source, such as one about a deployment, has no `example`.
    """

    id: str
    title: str
    why: str
    repair: str
    example: Example | None
    level: Level = "error"

    @property
    def help(self) -> str:
        """What code scanning shows beside a finding."""
        return f"{self.why} {self.repair}".strip()


class Rules(Mapping[str, Rule]):
    """The rules of all folders that were handed in, by id and sorted."""

    def __init__(self) -> None:
        self._modules: dict[str, str] = {}

    def collect(self, folder: Path, *, package: str) -> None:
        """Take in the files of `folder`, which is imported as `package`.

        Raises `VerifyError` for an id that another folder has.
        """
        for file in folder.glob("[!_]*.py"):
            rule_id, module = file.stem.replace("_", "-"), f"{package}.{file.stem}"
            if self._modules.setdefault(rule_id, module) != module:
                raise VerifyError(f"{module}: {self._modules[rule_id]} is that rule; keep one")

    def __getitem__(self, rule_id: str) -> Rule:
        """The rule; raises `KeyError`, and `VerifyError` where its file lacks a part."""
        return read(self._modules[rule_id], rule_id=rule_id)

    def __contains__(self, rule_id: object) -> bool:
        return rule_id in self._modules

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._modules))

    def __len__(self) -> int:
        return len(self._modules)


def read(module: str, *, rule_id: str) -> Rule:
    """The rule that a file states; raises `VerifyError` that names the part it lacks."""
    try:
        found = getattr(import_module(module), "RULE", None)
    except TypeError as error:
        raise VerifyError(f"{module}: {error}; a rule file states every part of it") from error
    if not isinstance(found, Rule):
        raise VerifyError(f"{module}: no RULE is in it; write `RULE = Rule(...)`")
    if found.id != rule_id:
        raise VerifyError(f"{module}: its rule is {found.id!r}; name the file as the rule")
    stated = (found,) if found.example is None else (found, found.example)
    empty = [part.name for one in stated for part in fields(one) if getattr(one, part.name) == ""]
    if empty:
        raise VerifyError(f"{module}: {' and '.join(empty)} of the rule is empty; write it")
    return found


RULES = Rules()
RULES.collect(Path(__file__).parent, package=__name__)


def rule(rule_id: str) -> Rule:
    """The rule with this id; for an id that is not listed, one that says no more than the id."""
    if rule_id in RULES:
        return RULES[rule_id]
    title = rule_id.replace("-", " ")
    return Rule(id=rule_id, title=title, why=rule_id, repair="", example=None)
