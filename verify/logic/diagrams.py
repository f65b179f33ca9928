"""Boolean conditions as shared decision diagrams (reduced, ordered).

A condition is an integer: 0 is False, 1 is True, every other number a node that asks one atom and
goes on. Equal conditions are equal integers, so "can this happen", "does this imply that" and "what
is left when this atom is free" are exact, whatever the shape of the source they were read from.
Atoms are ordered as they are first asked for; the flags come first.
"""

from collections.abc import Iterator, Sequence
from typing import NewType

Cond = NewType("Cond", int)
FALSE = Cond(0)
TRUE = Cond(1)

MAX_NODES = 300_000


class TooLargeError(Exception):
    """A condition outgrew `MAX_NODES`; whoever reads it calls its subject unresolved."""


class Logic:
    """One table of nodes; conditions of different tables do not mix."""

    def __init__(self, flags: Sequence[str] = ()) -> None:
        self._level: dict[str, int] = {}
        self._atoms: dict[str, Cond] = {}
        self._names: list[str] = []
        # (level, if false, if true); the first two stand for the constants
        self._nodes: list[tuple[int, Cond, Cond]] = [(1 << 30, FALSE, FALSE), (1 << 30, TRUE, TRUE)]
        self._unique: dict[tuple[int, Cond, Cond], Cond] = {}
        # what was asked before: not, and, or, if-then-else, the atoms of
        self._negations: dict[Cond, Cond] = {}
        self._boths: dict[tuple[Cond, Cond], Cond] = {}
        self._eithers: dict[tuple[Cond, Cond], Cond] = {}
        self._ites: dict[tuple[Cond, Cond, Cond], Cond] = {}
        self._supports: dict[Cond, tuple[str, ...]] = {}
        for flag in flags:
            self.atom(flag)

    def copy(self) -> "Logic":
        """A table that starts with everything known here and then goes its own way."""
        other = Logic()
        other._level, other._names = dict(self._level), list(self._names)
        other._atoms = dict(self._atoms)
        other._nodes, other._unique = list(self._nodes), dict(self._unique)
        return other

    def atom(self, name: str) -> Cond:
        """The condition "`name` holds"."""
        known = self._atoms.get(name)
        if known is None:
            level = self._level[name] = len(self._names)
            self._names.append(name)
            known = self._atoms[name] = self._node(level, FALSE, TRUE)
        return known

    def negation(self, a: Cond) -> Cond:
        """Not a."""
        if a <= TRUE:
            return FALSE if a == TRUE else TRUE
        known = self._negations.get(a)
        if known is None:
            level, low, high = self._nodes[a]
            known = self._node(level, self.negation(low), self.negation(high))
            self._negations[a] = known
            self._negations[known] = a
        return known

    def both(self, a: Cond, b: Cond) -> Cond:
        """a and b."""
        if a > b:
            a, b = b, a
        if a <= TRUE:
            return b if a == TRUE else FALSE
        if a == b:
            return a
        key = (a, b)
        known = self._boths.get(key)
        if known is None:
            # where a scan spends most of its time: what `_split` and `_node` do, without the
            # calls, and nothing is asked of a side that is false
            level, low_a, high_a = self._nodes[a]
            level_b, low_b, high_b = self._nodes[b]
            if level < level_b:
                low_b = high_b = b
            elif level_b < level:
                level, low_a, high_a = level_b, a, a
            low = self.both(low_a, low_b) if low_a and low_b else FALSE
            high = self.both(high_a, high_b) if high_a and high_b else FALSE
            known = low if low == high else self._unique.get((level, low, high))
            if known is None:
                known = self._node(level, low, high)
            self._boths[key] = known
        return known

    def either(self, a: Cond, b: Cond) -> Cond:
        """a or b."""
        if a > b:
            a, b = b, a
        if a <= TRUE:
            return TRUE if a == TRUE else b
        if a == b:
            return a
        key = (a, b)
        known = self._eithers.get(key)
        if known is None:
            level, low_a, high_a, low_b, high_b = self._split(a, b)
            low, high = self.either(low_a, low_b), self.either(high_a, high_b)
            known = self._eithers[key] = self._node(level, low, high)
        return known

    def all_of(self, *conditions: Cond) -> Cond:
        """Every one of them."""
        result = TRUE
        for condition in conditions:
            result = self.both(result, condition)
        return result

    def any_of(self, *conditions: Cond) -> Cond:
        """At least one of them."""
        result = FALSE
        for condition in conditions:
            result = self.either(result, condition)
        return result

    def at_most_one(self, *conditions: Cond) -> Cond:
        """No two of them at once."""
        none = result = TRUE
        # the atoms asked for last first: what is built stays on top of what there is
        for condition in reversed(conditions):
            result = self.choose(condition, none, result)
            none = self.both(none, self.negation(condition))
        return result

    def choose(self, test: Cond, then: Cond, otherwise: Cond) -> Cond:
        """`then` where `test` holds, else `otherwise`."""
        if test == TRUE or then == otherwise:
            return then
        if test == FALSE:
            return otherwise
        if otherwise == FALSE:
            return self.both(test, then)
        if then == TRUE:
            return self.either(test, otherwise)
        key = (test, then, otherwise)
        known = self._ites.get(key)
        if known is not None:
            return known
        nodes = self._nodes
        level_a, low_a, high_a = nodes[test]
        level_b, low_b, high_b = nodes[then]
        level_c, low_c, high_c = nodes[otherwise]
        level = min(level_a, level_b, level_c)
        if level_a != level:
            low_a = high_a = test
        if level_b != level:
            low_b = high_b = then
        if level_c != level:
            low_c = high_c = otherwise
        low = self.choose(low_a, low_b, low_c)
        high = self.choose(high_a, high_b, high_c)
        result = self._ites[key] = self._node(level, low, high)
        return result

    def _split(self, a: Cond, b: Cond) -> tuple[int, Cond, Cond, Cond, Cond]:
        """The first atom that either asks, then both sides of a and both sides of b."""
        level_a, low_a, high_a = self._nodes[a]
        level_b, low_b, high_b = self._nodes[b]
        if level_a < level_b:
            return level_a, low_a, high_a, b, b
        if level_b < level_a:
            return level_b, a, a, low_b, high_b
        return level_a, low_a, high_a, low_b, high_b

    def implies(self, a: Cond, b: Cond) -> bool:
        """Whether b holds wherever a does."""
        return self._implies(a, b, set())

    def _implies(self, a: Cond, b: Cond, proven: set[tuple[Cond, Cond]]) -> bool:
        """Looks for a counterexample, which needs no new condition."""
        if a == FALSE or b in (TRUE, a) or (a, b) in proven:
            return True
        if a == TRUE or b == FALSE:
            return False
        _, low_a, high_a, low_b, high_b = self._split(a, b)
        holds = self._implies(low_a, low_b, proven) and self._implies(high_a, high_b, proven)
        if holds:
            proven.add((a, b))
        return holds

    def assume(self, condition: Cond, name: str, *, value: bool) -> Cond:
        """`condition` with the atom `name` fixed."""
        level = self._level.get(name)
        if level is None:
            return condition
        return self._fix(condition, level, 2 if value else 1, {})

    def shadow(self, condition: Cond, names: frozenset[str]) -> Cond:
        """Whether `condition` can hold for some values of every atom not among `names`."""
        levels = {self._level[name] for name in names if name in self._level}
        return self._over(condition, levels, {})

    def _over(self, node: Cond, levels: set[int], done: dict[Cond, Cond]) -> Cond:
        if node <= TRUE:
            return node
        known = done.get(node)
        if known is None:
            level, low, high = self._nodes[node]
            sides = self._over(low, levels, done), self._over(high, levels, done)
            known = self._node(level, *sides) if level in levels else self.either(*sides)
            done[node] = known
        return known

    def fix(self, condition: Cond, values: Sequence[tuple[str, bool]]) -> Cond:
        """`condition` with several atoms fixed."""
        for name, value in values:
            condition = self.assume(condition, name, value=value)
        return condition

    def support(self, condition: Cond) -> tuple[str, ...]:
        """The atoms that `condition` depends on, in order."""
        known = self._supports.get(condition)
        if known is not None:
            return known
        levels: set[int] = set()
        seen: set[Cond] = set()
        todo = [condition]
        while todo:
            node = todo.pop()
            if node > TRUE and node not in seen:
                seen.add(node)
                level, low, high = self._nodes[node]
                levels.add(level)
                todo += (low, high)
        known = self._supports[condition] = tuple(self._names[level] for level in sorted(levels))
        return known

    def table(self, condition: Cond, flags: Sequence[str], *, always: bool = False) -> int:
        """The truth table over `flags`, the first most significant, as `verify.logic.truth` has it.

        A row is true when the condition can hold there for some values of all other atoms, or,
        with `always`, when it holds for every one.
        """
        if condition <= TRUE or not flags:
            holds = condition == TRUE or (condition != FALSE and not always)
            return (1 << (1 << len(flags))) - 1 if holds else 0
        first, rest = flags[0], flags[1:]
        without, with_it = (
            self.table(self.assume(condition, first, value=value), rest, always=always)
            for value in (False, True)
        )
        return with_it << (1 << len(rest)) | without

    def row(self, bits: Sequence[tuple[str, bool]]) -> Cond:
        """The condition that the atoms have just these values."""
        return self.all_of(
            *(self.atom(name) if value else self.negation(self.atom(name)) for name, value in bits)
        )

    def witness(self, condition: Cond) -> tuple[tuple[str, bool], ...]:
        """One assignment under which `condition` holds, with as many atoms false as it finds."""
        result = []
        node = condition
        while node > TRUE:
            level, low, high = self._nodes[node]
            result.append((self._names[level], low == FALSE))
            node = high if low == FALSE else low
        return tuple(result)

    def text(self, condition: Cond) -> str:
        """The condition as a Python-like expression."""
        return self._text(condition)[0]

    def _text(self, node: Cond) -> tuple[str, str]:
        """The text and its outermost operator, for parentheses."""
        if node <= TRUE:
            return ("True" if node == TRUE else "False"), "atom"
        level, low, high = self._nodes[node]
        name = self._names[level]
        simple = name if name.replace("_", "").isalnum() else f"({name})"
        if (low, high) == (FALSE, TRUE):
            return name, "atom"
        if (low, high) == (TRUE, FALSE):
            return f"not {simple}", "atom"
        if low == FALSE:
            return f"{simple} and {self._inside(high, 'and')}", "and"
        if high == FALSE:
            return f"not {simple} and {self._inside(low, 'and')}", "and"
        if high == TRUE:
            return f"{simple} or {self._inside(low, 'or')}", "or"
        if low == TRUE:
            return f"not {simple} or {self._inside(high, 'or')}", "or"
        return f"({self._text(high)[0]}) if {simple} else ({self._text(low)[0]})", "if"

    def _inside(self, node: Cond, operator: str) -> str:
        text, outermost = self._text(node)
        return text if outermost in ("atom", operator) else f"({text})"

    def _node(self, level: int, low: Cond, high: Cond) -> Cond:
        if low == high:
            return low
        key = (level, low, high)
        known = self._unique.get(key)
        if known is None:
            if len(self._nodes) >= MAX_NODES:
                raise TooLargeError(f"a condition of more than {MAX_NODES} nodes")
            known = self._unique[key] = Cond(len(self._nodes))
            self._nodes.append(key)
        return known

    def _fix(self, node: Cond, level: int, side: int, done: dict[Cond, Cond]) -> Cond:
        found, low, high = self._nodes[node]
        if found > level:
            return node
        if found == level:
            return Cond(self._nodes[node][side])
        known = done.get(node)
        if known is None:
            known = done[node] = self._node(
                found, self._fix(low, level, side, done), self._fix(high, level, side, done)
            )
        return known

    def atoms(self) -> Iterator[str]:
        """Every atom asked for so far."""
        return iter(self._names)
