"""A residual that a layer's streams cannot gather.

Where layers without experts run on each rank's own rows and those with experts on the attention
group's, the boundary between the two gathers the residual. Streams that carry more than the
residual do that themselves, and some have no answer: the first forward ends there.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from verify.checks.scan.server.evaluate import Evaluator
from verify.checks.scan.server.values import UNKNOWN, Code, Thing
from verify.engines.sources import reading
from verify.interpreter.index import Function, Index

KNOWN = reading().launches


class Stage(NamedTuple):
    """A stage that a layer declares: what kind it is, whether in every case, and how."""

    kind: str
    sure: bool
    told: Thing


def gather(follower: Evaluator, index: Index, stages: Sequence[Stage], group: Any) -> None:
    """Has the streams of these stages gather the residual where they must.

    `group` is the size of the attention group. Layers without experts are taken to come first.
    Raises `RefusedError` where the streams have no answer.
    """
    module = index.module(KNOWN.own_rows.file)
    asks = module.lookup(KNOWN.own_rows.name) if module else None
    if not isinstance(asks, Function) or not isinstance(group, int) or group < 2:
        return
    for before, stage in pairwise(stages):
        fields = stage.told.fields
        # a layer that is told which kind it is stands for both
        both = not isinstance(fields.get("sparse", False), bool)
        if stage.kind == "ffn" and both and before.sure and stage.sure:
            width = fields.get("dense_tp_size")
            dense, sparse = (
                follower.call(Code(asks), (experts, width), {}) for experts in (False, True)
            )
            if dense is True and sparse is False:
                update = before.told.fields.get("update", UNKNOWN)
                follower.call(follower.member(update, KNOWN.gathers), (UNKNOWN,), {})
