"""Who runs the experts behind a dispatcher: a runner takes what it hands on, or the forward ends.

Nothing refuses the server such a pair: it ends in the first forward. What a runner takes stands in
the source as registrations; which one unquantised experts get, in their quantisation method.
"""

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from verify.engines.sources import reading
from verify.interpreter.index import Class, Index, Module

ENGINE = reading()
BEHIND = ENGINE.launches.behind
AUTOMATIC = (None, "auto")


def _is_not(among: str, given: Sequence[str]) -> bool:
    """Whether what is given is none of the allowed words or, where none are named, is off."""
    return bool(given) and all(one not in among for one in given) if among else "False" in given


@dataclass(eq=False)
class Runners:
    """The runners of one source."""

    index: Index
    _takers: dict[str, frozenset[str]] = field(default_factory=dict)

    def instead(self, backend: str, options: Mapping[str, Any]) -> tuple[str, ...] | None:
        """The runners that unquantised experts need behind a backend, where they get another one.

        None where the one that they get with these options takes what the backend hands on, or
        where the source does not say what it hands on.
        """
        takers, got = self._of(backend), self._got(options)
        if not takers or got is None or got in takers:
            return None
        return tuple(sorted(takers))

    def fit(self, runners: Iterable[str], files: Iterable[str]) -> tuple[str, ...]:
        """The runners whose constructors do not insist on what experts in these files are not."""
        texts = [module.text for module in map(self.index.module, sorted(files)) if module]
        return tuple(
            runner
            for runner in runners
            if not any(
                # the word boundary behind the word lets the search skip to the next one
                _is_not(among, re.findall(rf"{name}(?<!\w{name})=(False|\"\w+\")", text))
                for name, among in self._insists.get(runner, ())
                for text in texts
            )
        )

    @cached_property
    def _insists(self) -> Mapping[str, Set[tuple[str, str]]]:
        """The settings of experts that each runner asserts, and the words that it allows."""
        found: dict[str, set[tuple[str, str]]] = {}
        for module in self._modules:
            runners = {match["runner"] for match in BEHIND.registered.finditer(module.text)}
            asserted = BEHIND.asserts.findall(module.text) if runners else ()
            for runner in runners:
                found.setdefault(runner, set()).update(asserted)
        return found

    @cached_property
    def _modules(self) -> tuple[Module, ...]:
        paths = self.index.tree.under(f"{ENGINE.library.layers}moe/")
        return tuple(module for module in map(self.index.module, paths) if module)

    def known(self, backend: str) -> bool:
        """Whether the source says who takes what a backend hands on."""
        return bool(self._of(backend))

    def runs(self, runner: str) -> bool:
        """Whether unquantised experts get the runner where an option asks for it."""
        return f"{BEHIND.names}{runner.upper()}" in self._unquantised

    @cached_property
    def ends(self) -> str:
        """Where the forward ends when the runner does not take it: file and line."""
        module = self.index.module(BEHIND.file)
        found = BEHIND.ends.search(module.text) if module else None
        if module is None or found is None:
            return BEHIND.file
        return f"{BEHIND.file}:{module.text.count(chr(10), 0, found.end()) + 1}"

    @cached_property
    def _unquantised(self) -> str:
        module = self.index.module(BEHIND.unquantised)
        return module.text if module else ""

    def _got(self, options: Mapping[str, Any]) -> str | None:
        """The runner of unquantised experts, None where that is not known."""
        asked = options.get(BEHIND.option)
        if asked not in AUTOMATIC and isinstance(asked, str) and self.runs(asked):
            return asked
        otherwise = BEHIND.otherwise.search(self._unquantised)
        return otherwise[1].lower() if otherwise else None

    def _of(self, backend: str) -> frozenset[str]:
        """The runners that take what a backend's dispatcher hands on."""
        if backend not in self._takers:
            formats = self._formats(backend)
            tables = ((BEHIND.registered, formats), (BEHIND.fused, formats and {backend}))
            self._takers[backend] = frozenset(
                match["runner"]
                for module in self._modules
                for table, takes in tables
                for match in table.finditer(module.text)
                if match["takes"] in takes
            )
        return self._takers[backend]

    def _formats(self, backend: str) -> frozenset[str]:
        """The formats of what the dispatcher hands on, empty where it has no file of its own."""
        own = re.compile(rf"{re.escape(backend)}(?:ep)?")
        found: set[str] = set()
        for path in self.index.tree.under(ENGINE.files.dispatchers):
            module = self.index.module(path)
            if module is None or not own.fullmatch(PurePosixPath(path).stem):
                continue
            for name in sorted(set(BEHIND.output.findall(module.text))):
                output = module.resolve(name)
                if isinstance(output, Class):
                    found |= {one.lower() for one in BEHIND.format.findall(output.text)}
        return frozenset(found)
