"""What the interpreter is told of the library that a source is written for.

Names that mean something there are data where they can be, and functions where they must: a
transfer function is handed the machine and says what a call does to the partial sums in it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import ast

    from verify.interpreter.blocks import Blocks
    from verify.interpreter.calls import Calls
    from verify.interpreter.expressions import Expressions
    from verify.interpreter.index import Class
    from verify.interpreter.named import Named
    from verify.interpreter.values import Axis, Primitive, Value

Axes: TypeAlias = "tuple[Axis, ...]"
Arguments: TypeAlias = "tuple[Value, ...]"
Keywords: TypeAlias = "Mapping[str, Value]"
Call: TypeAlias = "Callable[[Named, ast.Call, Arguments, Keywords], Value | None]"
Build: TypeAlias = "Callable[[Calls, Class, Arguments, Keywords], Value]"
BlockCall: TypeAlias = "Callable[[Blocks, Primitive, Arguments, Keywords], Value]"
BlockMethod: TypeAlias = "Callable[[Blocks, Primitive, str, Arguments, Keywords], Value | None]"
BlockAttribute: TypeAlias = "Callable[[Expressions, Primitive, str], Value | None]"
Scope: TypeAlias = "Callable[[Expressions, Primitive], Keywords | None]"

_NEVER = re.compile(r"(?!)")


def _nothing(*_: object) -> None:
    """What a library says that knows no such thing."""


# a pattern that is found in a condition, and the truth that is assumed of it
Assumed: TypeAlias = tuple[str, bool]
# each clause is kept by a way that assumes one of its conditions
Clauses: TypeAlias = tuple[tuple[Assumed, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Duty:
    """What a function of shared decision code must do on every way through it.

    Of `calls` a way makes exactly one, or at most one if `optional`, or several if `again`. A way
    owes none where it assumes one of `unless`. A way that makes one keeps the clauses of `only`,
    and its text matches `over`: the group, or what is given. What returns a name calls
    `return NAME`, what adds in place calls `NAME += VALUE`.

    A way that answers yes keeps the clauses of `yes`, one that answers no those of `no`, of which
    the file speaks, or all of them if `always`; where `argument` is given it is that argument of
    `calls` which answers. `rule` is broken by one that
    does not (`denied` by one that answers no, where that is another), and by a call that keeps not
    to `only`; it shows only with what it `needs`.
    A file in which `knows` is not found owes nothing.
    """

    file: str
    cls: str | None = None
    function: str
    calls: tuple[str, ...] = ()
    over: str = ""
    optional: bool = False
    again: bool = False
    unless: tuple[Assumed, ...] = ()
    only: Clauses = ()
    argument: str = ""
    yes: Clauses = ()
    no: Clauses = ()
    always: bool = False
    rule: str = "lost-sum"
    denied: str = ""
    needs: str = ""
    knows: str = ""


@dataclass(frozen=True, kw_only=True)
class Library:
    """A serving library as its model files use it.

    Files: `models` and `layers` are the folders of its models and of what they are built from;
    only what matches `worth_following` is run of the latter, and nothing that matches `accessor`.
    `attention` are words by which a class that mixes tokens is known.

    Flags: `flags` in their order; `carriers` are the parameters and published fields that carry
    one; what is published is read from what the function `context` returns; `scope` says what
    entering a block publishes. Setting `mark` on a tensor leaves its sum to the next layer's norm.

    Sums: `whole` are the axes of the largest group, `collectives` the axes that a function sums
    over; `group_methods` do so on a group, told by the word of `groups` in the group's expression,
    and kernels whose name matches `sums_in_place` on the whole group. `sizes` says for each
    spelling of a group's size which one it is.

    Layers: `row_linear` leaves a partial sum unless the argument named with it says no; `prepares`
    are the class that sums attention's output, and the method that does; `fuses` are the class and
    the method that says whether a layer leaves its sum to the next one's norm.

    Calls: `functions` by name, constructors in `classes` by the name of the class or an ancestor,
    and what those make (`Primitive`) by their kind in `calls`, by name in `method`, `attribute`.
    What ends in one of `new_values` gives back nothing of what went in.

    Shared decision code: `duties` are what the checks take its functions' names for; `needs` says
    what it takes for a condition to have a truth.

    Conditions: `relevant` finds the atoms that decide about sums, `selects` those that choose how
    a layer runs: a check of the others is passed by every configuration that runs.
    """

    models: str
    layers: str
    flags: tuple[str, ...] = ()
    carriers: Mapping[str, str] = field(default_factory=dict)
    context: str = ""
    mark: str = ""
    attention: tuple[str, ...] = ()
    whole: Axes = ()
    collectives: Mapping[str, Axes] = field(default_factory=dict)
    groups: Mapping[str, Axes] = field(default_factory=dict)
    group_methods: tuple[str, ...] = ()
    sums_in_place: re.Pattern[str] = _NEVER
    sizes: Mapping[str, str] = field(default_factory=dict)
    functions: Mapping[str, Call] = field(default_factory=dict)
    classes: Mapping[str, Build] = field(default_factory=dict)
    calls: Mapping[str, BlockCall] = field(default_factory=dict)
    duties: tuple[Duty, ...] = ()
    needs: tuple[tuple[str, bool, str], ...] = ()
    method: BlockMethod = _nothing
    attribute: BlockAttribute = _nothing
    scope: Scope = _nothing
    worth_following: re.Pattern[str] = _NEVER
    accessor: re.Pattern[str] = _NEVER
    new_values: tuple[str, ...] = ()
    row_linear: tuple[str, str] = ("", "")
    prepares: tuple[str, str] = ("", "")
    fuses: tuple[str, str] = ("", "")
    relevant: re.Pattern[str] = _NEVER
    selects: re.Pattern[str] = _NEVER
