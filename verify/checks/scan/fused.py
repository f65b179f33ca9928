"""A sum left to the next layer under attention data parallelism, where that layer has other rows.

Fused, the layer returns before its scatter: the rows of all ranks meet the residual of this rank's
own (#11632). Only the source's own definition of when a layer fuses can exclude it.
"""

import ast
import builtins
import re
from collections.abc import Iterable, Iterator

from verify.checks.scan.findings import shown_conditions
from verify.checks.scan.judge import smallest_row
from verify.checks.scan.layers import Facts
from verify.checks.scan.roots import shown_layers
from verify.engines.sources import reading
from verify.interpreter.index import Class, Module
from verify.logic.diagrams import FALSE, Cond
from verify.logic.truth import table_bits
from verify.report.report import Finding

_CALLED = re.compile(r"(?<![.\w])(\w+)\(")
RULE = "lost-sum"
ENGINE = reading()
FLAGS, ROLES = ENGINE.flags, ENGINE.roles
SETTING = "enable_"  # how the server's options begin
# each of them is set under attention data parallelism only; a padded batch is the usual one
UNDER_ATTENTION_DP = (ROLES.scatters, ROLES.scatters_by_size, ROLES.combines)


def fused_under_attention_dp(facts: Facts, fusing: Iterable[Class]) -> Iterator[Finding]:
    """A finding where the predicate of fusion admits a row of flags of attention DP."""
    layers = {layer.name for layer in fusing}
    owner, name = ENGINE.library.fuses
    module = facts.index.module(ENGINE.files.communicator)
    cls = module.lookup(owner) if module else None
    predicate = cls.methods.get(name) if isinstance(cls, Class) else None
    if module is None or predicate is None or not layers or not facts.followed:
        return
    logic = facts.logic
    fuses = logic.both(facts.defined, logic.atom(ROLES.fuses))
    cases = {flag: logic.both(fuses, logic.atom(flag)) for flag in UNDER_ATTENTION_DP}
    first = next((case for case in cases.values() if case != FALSE), FALSE)
    if first == FALSE:
        return
    if _unread(module, logic.support(first)):
        return
    needed = tuple(_needed(facts, first))
    table = logic.table(logic.any_of(*cases.values()), FLAGS)
    row = smallest_row(logic.table(first, FLAGS))
    yield Finding(
        rule=RULE,
        message="a layer leaves its sum to the next norm also under attention data parallelism",
        sums="nobody: the rows of all ranks meet the residual of this rank's own",
        fix="let it not fuse where attention is data parallel",
        subject=shown_layers(layers),
        kind="lost",
        file=ENGINE.files.communicator,
        line=_answer(predicate),
        cls=owner,
        method=name,
        row=row,
        rows=tuple(table_bits(table, len(FLAGS))),
        conditions=(*shown_conditions(needed), *(name for name in needed if SETTING in name)),
    )


def _unread(module: Module, names: Iterable[str]) -> bool:
    """Whether a function decides that was not followed: it may exclude the case."""
    called = {word for name in names for word in _CALLED.findall(name)} - set(dir(builtins))
    return not all(map(module.index.library.accessor.match, called))


def _answer(predicate: ast.AST) -> int:
    """The line of its last answer."""
    return max(node.lineno for node in ast.walk(predicate) if isinstance(node, ast.Return))


def _needed(facts: Facts, case: Cond) -> Iterator[str]:
    """The settings without which it does not happen."""
    logic = facts.logic
    for name in logic.support(case):
        if name not in FLAGS and not name.endswith("_size > 1"):
            atom = logic.atom(name)
            for shown, wanted in ((name, atom), (f"not {name}", logic.negation(atom))):
                if logic.implies(case, wanted) and not logic.implies(facts.defined, wanted):
                    yield shown
