"""An engine of one collective, one sharded layer, one flag and one mark."""

import re

from verify.interpreter.library import Library
from verify.interpreter.values import Primitive
from verify.logic.diagrams import FALSE, TRUE

GROUP = ("GROUP",)
TOY = Library(
    models="toy/models/",
    layers="toy/layers/",
    flags=("LATER",),
    carriers={"later": "LATER"},
    context="current",
    mark="left_to_the_next",
    attention=("Mixer",),
    whole=GROUP,
    collectives={"add_up": GROUP},
    groups={"group": GROUP},
    group_methods=("add",),
    sums_in_place=re.compile(r"add_up_$"),
    sizes={"how_many()": "size"},
    functions={
        "leave_it": lambda machine, *_: machine.state.flag("LATER"),
        "current": lambda *_: Primitive("context"),
    },
    classes={"Split": lambda *_: Primitive("split")},
    calls={
        "split": lambda machine, block, given, _: machine.sharded(
            block, given, GROUP, present=TRUE, reduces=FALSE
        )
    },
    scope=lambda _, block: dict(block.settings) if block.kind == "scope" else None,
    method=lambda _, block, name, __, named: (
        Primitive("scope", tuple(named.items())) if name == "within" else None
    ),
    worth_following=re.compile("add_up"),
    relevant=re.compile("LATER|size > 1"),
    selects=re.compile("LATER"),
)
