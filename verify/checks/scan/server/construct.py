"""Does a layer that starts under a launch come to be? Its constructors are followed.

What a constructor asserts of group sizes, and a boundary that has no answer for what it is told,
ends a launch as surely as the argument handling does; it only comes later.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from verify.checks.scan.server.arguments import Options, Refusal
from verify.checks.scan.server.evaluate import Evaluator, TooMuchError
from verify.checks.scan.server.follow import RefusedError
from verify.checks.scan.server.memory import APART, Memory, Recalled
from verify.checks.scan.server.recall import Recaller
from verify.checks.scan.server.streams import Stage, gather
from verify.checks.scan.server.values import BY_LAYER, UNKNOWN, Backend, Built, Thing
from verify.engines.sources import reading
from verify.interpreter.index import Class, Function, Index

ENGINE = reading()
LIBRARY, KNOWN = ENGINE.library, ENGINE.launches
PARALLEL = KNOWN.context
STAGE = "stage"
_BUILDS = (LIBRARY.models, ENGINE.files.boundaries)
# how a linear layer says over which ranks it is split, and what it is without
WHOLE_GROUP = "tp"
TOLD_GROUP = frozenset({"tp_size", "tp_rank", "use_dp_attention_reduce"})
GROUP_SIZES = ("tp_size", "attn_tp_size")
_LAYER_NUMBER = re.compile(r"layer_(?:id|idx|index|number|num)$")
_HAS_NO_ANSWER = "raise NotImplementedError"
SERVER_ARGS = ("get_server_args", "get_global_server_args")


def sizes(options: Options) -> dict[str, Any]:
    """The sizes of every group, as the options settle them; unknown where one is."""

    def of(name: str) -> Any:
        value = options.get(name, 1)
        return 1 if value is None else value

    # one release settles the size of attention DP, another that there is some
    attention, enabled = of("attn_dp_size"), options.get("enable_dp_attention")
    if not isinstance(attention, int) and enabled is False:
        attention = 1
    elif enabled is True and (not isinstance(attention, int) or attention == 1):
        attention = of("dp_size")
    found = {
        "tp_size": of("tp_size"),
        "moe_ep_size": of("ep_size"),
        "moe_dp_size": of("moe_dp_size"),
        "attn_cp_size": of("attn_cp_size"),
        "attn_dp_size": attention,
        KNOWN.local_size: of(KNOWN.local_size),
        "pp_size": of("pp_size"),
    }
    found["moe_tp_size"] = _left(found, "tp_size", "moe_ep_size", "moe_dp_size")
    found["attn_tp_size"] = _left(found, "tp_size", "attn_dp_size", "attn_cp_size")
    return found


def _left(known: Mapping[str, Any], whole: str, *parts: str) -> Any:
    left = known[whole]
    for part in parts:
        if not isinstance(left, int) or not isinstance(known[part], int) or not known[part]:
            return UNKNOWN
        left //= known[part]
    return max(1, left)


@dataclass(frozen=True)
class Ending:
    """What became of a layer: where its constructor, or its boundary, ends the launch, if so."""

    refusal: Refusal | None


@dataclass(eq=False)
class Constructors:
    """The constructors of a source's layers; one that asks the same hears the same."""

    index: Index
    _known: dict[Class, Recalled[Ending]] = field(default_factory=dict)
    _memory: Memory = field(default_factory=Memory)

    def ends(self, cls: Class, options: Options) -> Refusal | None:
        """Where the constructor of a layer, or its boundary, ends the launch with these options."""
        declared: list[Stage] = []
        mixers: list[Refusal] = []
        told = _Told(options)
        follower = Recaller(
            self.index,
            {**told.natives, **_noted(declared), LIBRARY.row_linear[0]: told.mixes(mixers)},
            shared=told.shared,
            memory=self._memory,
            builds=_BUILDS,
        )
        recalled = self._known.setdefault(cls, Recalled())
        known = recalled.find(follower.ask)
        if known is not None:
            return known.refusal
        heard = follower.listen()
        try:
            ending = Ending(
                self._follow(follower, cls, declared, told.group) or next(iter(mixers), None)
            )
        finally:
            follower.end(heard)
        # what is left behind, stages and mixers, is in the ending
        heard.answers.pop(APART, None)
        recalled.keep(heard.answers, ending)
        return ending.refusal

    def _follow(
        self, follower: Recaller, cls: Class, declared: list[Stage], group: Any
    ) -> Refusal | None:
        try:
            init = cls.method("__init__")
            names = [argument.arg for argument in init.node.args.args] if init else []
            numbers = {name: BY_LAYER for name in names if _LAYER_NUMBER.match(name)}
            follower.call(Built(cls), (), numbers)
            for function in self._asks_stages:
                for stage in declared:
                    follower.asked_about(function, stage.told.fields)
            gather(follower, self.index, declared, group)
        except RefusedError as error:
            return Refusal(file=error.file, line=error.line)
        except (TooMuchError, RecursionError):
            return None
        return None

    @cached_property
    def _asks_stages(self) -> tuple[Function, ...]:
        """The boundary's functions that have no answer for some stages."""
        found: list[Function] = []
        for path in self.index.tree.under(ENGINE.files.boundaries):
            module = self.index.module(path)
            for name, piece in module.pieces.items() if module else ():
                function = module.lookup(name) if module and _HAS_NO_ANSWER in piece.text else None
                if isinstance(function, Function) and _first(function) == STAGE:
                    found.append(function)
        return tuple(found)


def _noted(declared: list[Stage]) -> Mapping[str, Callable[..., Any]]:
    """Keeps what a layer declares of its stages: the boundary asks it when the stack is whole."""

    def of(kind: str) -> Callable[..., Any]:
        def note(follower: Recaller, _: Any, __: Any, named: Mapping[str, Any]) -> Any:
            follower.told_apart()
            declared.append(Stage(kind, follower.sure, Thing(None, dict(named))))
            return NotImplemented

        return note

    return {name: of(kind) for name, kind in KNOWN.stages_declared.items()}


def _is_attention(cls: Class) -> bool:
    return any(one.mentions(LIBRARY.attention) for one in cls.ancestors)


def _first(function: Function) -> str:
    arguments = function.node.args.args
    return arguments[0].arg if arguments else ""


class _Told:
    """What a constructor is told of a launch: sizes, options, backends."""

    def __init__(self, options: Options) -> None:
        # what is no size has the option's own name there
        self.parallel = Thing(None, sizes(options), base=options)
        self.record = Thing(None, dict(options))
        self.backends = {
            name: Backend(options.get(option)) for name, option in KNOWN.settings.items()
        }

    @property
    def group(self) -> Any:
        """The size of the attention group."""
        return self.parallel.fields[GROUP_SIZES[1]]

    @property
    def shared(self) -> tuple[Thing, ...]:
        """All that a constructor can ask, in one order."""
        return (self.parallel, self.record, *self.backends.values())

    @property
    def natives(self) -> Mapping[str, Callable[..., Any]]:
        """The functions that answer it."""
        asked = {
            text.removesuffix("()"): self._size(name)
            for text, name in LIBRARY.sizes.items()
            if text.endswith("()") and "." not in text
        }
        return {
            **asked,
            **{name: _always(backend) for name, backend in self.backends.items()},
            **dict.fromkeys(SERVER_ARGS, _always(self.record)),
            PARALLEL: _always(self.parallel),
            "is_dp_attention_enabled": self._attention_dp,
        }

    def mixes(self, found: list[Refusal]) -> Callable[..., Any]:
        """Notes an attention's own sum over ranks that have other tokens than this one.

        It is split over the whole group, whatever the attention group is: what comes after it in
        the layer is never reached with right values.
        """

        def note(follower: Recaller, _: Any, __: Any, named: Mapping[str, Any]) -> Any:
            owner = follower.frame.owner
            whole = named.get("parallel_group", WHOLE_GROUP) == WHOLE_GROUP
            if (
                follower.sure
                and whole
                and not TOLD_GROUP & named.keys()
                and owner
                and _is_attention(owner)
            ):
                size, group = (follower.member(self.parallel, name) for name in GROUP_SIZES)
                if isinstance(size, int) and isinstance(group, int) and group < size:
                    follower.told_apart()
                    line = follower.frame.line
                    found.append(Refusal(file=follower.frame.module.path, line=line))
            return NotImplemented

        return note

    def _size(self, name: str) -> Callable[..., Any]:
        return lambda follower, *_: follower.member(self.parallel, name)

    def _attention_dp(self, follower: Evaluator, *_: Any) -> Any:
        size = follower.member(self.parallel, "attn_dp_size")
        return size > 1 if isinstance(size, int) else UNKNOWN


def _always(value: Any) -> Callable[..., Any]:
    return lambda *_: value
