"""Context parallelism: does the communicator gather the rows that a layer's MLP runs on?

A rank of a context group has tokens of its own. Read from the source: who splits a prompt's tokens,
for every model or for its own alone, and for which layers the communicator gathers them again, by
the mode that it gives them or by a call of its own.
"""

import ast
import re
from collections.abc import Iterator
from functools import lru_cache

from verify.engines.sglang.rows import SCATTERED, communicator_modes
from verify.engines.sglang.vocabulary import COMMUNICATOR, COMMUNICATOR_FILE, LAYERS, MODELS
from verify.engines.traits import ContextRows
from verify.interpreter.index import Class, Index, Module
from verify.interpreter.machine import Machine
from verify.interpreter.state import Frame
from verify.interpreter.values import Instance, Primitive, Truth, Value
from verify.logic.diagrams import FALSE, TRUE, Cond

RUNNERS = "sglang/srt/model_executor/"
PREPARE = "prepare_mlp"
_SPLITS = re.compile(r"(?<!def )\b(cp_(?:shard|split)\w*)\(")
_GATHERS = re.compile(r"cp_\w*gather")
# where a source keeps what splits them
_CONTEXT_FILE = re.compile(r"/cp/|/cp_\w*\.py$")
_READS = re.compile(r"envs\.\w+\.get\(\)")


def context_rows(
    machine: Machine, layer: Class, communicator: Primitive, sparse: Value | None
) -> ContextRows | None:
    """What is said of the rows of a layer's MLP; None where they are whole, or nothing says so."""
    index = machine.state.index
    if not _splits(index, layer) or _brings_its_own(layer):
        return None
    if sparse is not None:
        declared = machine.truth(sparse)
        kinds = [_moved(machine, Truth(kind)) for kind in (TRUE, FALSE)]
        if not kinds[0] - kinds[1]:
            return None
        return ContextRows(left=machine.logic.negation(declared), environment=_asked(index))
    gathers = [_gathered(machine, Instance(*of)) for of in _instances(index, communicator)]
    if len(gathers) != 2 or FALSE not in gathers[:1] or gathers[1] == FALSE:
        return None
    return ContextRows(left=TRUE, environment=_asked(index))


def _moved(machine: Machine, sparse: Value) -> set[str]:
    """The modes that a kind of layer may have, but for the one that moves nothing."""
    modes = communicator_modes(machine, sparse)
    return {mode for mode, cond in modes.items() if cond != FALSE} - {str(SCATTERED.value)}


def _instances(index: Index, communicator: Primitive) -> Iterator[tuple[Class, dict[str, Value]]]:
    """The communicator as it was built, and one of which nothing is known."""
    module = index.module(COMMUNICATOR_FILE)
    cls = module.lookup(COMMUNICATOR) if module else None
    if isinstance(cls, Class):
        yield cls, dict(communicator.settings)
        yield cls, {}


def _gathered(machine: Machine, communicator: Instance) -> Cond:
    """When a communicator's own code gathers rows over the context ranks."""
    method = communicator.cls.method(PREPARE)
    if method is None:
        return FALSE
    frame = Frame(method.module, method.name, method.owner, TRUE)
    machine.state.enter(frame)
    try:
        machine.bind(method, (communicator,), {})
        found = [
            machine.truth(machine.evaluate(node.test))
            for node in ast.walk(method.node)
            if isinstance(node, ast.If) and any(map(_gathers, node.body))
        ]
    finally:
        machine.state.leave()
    return machine.logic.any_of(*found)


def _gathers(statement: ast.stmt) -> bool:
    return bool(_GATHERS.search(ast.unparse(statement)))


def _brings_its_own(layer: Class) -> bool:
    """Whether the layer may be built with another communicator, which is not read."""
    for ancestor in layer.ancestors:
        for name in ancestor.capitalised:
            found = ancestor.module.resolve(name)
            if isinstance(found, Class) and COMMUNICATOR in found.base_names:
                return True
    return False


def _splits(index: Index, layer: Class) -> bool:
    """Whether the tokens that this layer is run on are split over the context ranks."""
    if _splitters(index, RUNNERS):
        return True
    if any(_CONTEXT_FILE.search(path) for path in index.tree.under(LAYERS)):
        own = {ancestor.module.path for ancestor in layer.ancestors}
        return any(module.path in own for module, _ in _splitters(index, MODELS))
    # where there is nothing to split them with, the communicator's word is all that there is
    return True


@lru_cache(maxsize=8)
def _splitters(index: Index, folder: str) -> tuple[tuple[Module, str], ...]:
    """The files in a folder that split tokens, each with what it calls for that."""
    modules = filter(None, map(index.module, index.tree.under(folder)))
    found = ((module, _SPLITS.search(module.text)) for module in modules)
    return tuple((module, match[1]) for module, match in found if match)


def _asked(index: Index) -> tuple[str, ...]:
    """What is asked of the environment where the runners' split is defined."""
    for module, name in _splitters(index, RUNNERS):
        split = module.resolve(name)
        if split is not None:
            return tuple(sorted(set(_READS.findall(split.module.text))))
    return ()
