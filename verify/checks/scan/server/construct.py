"""Does a layer that starts under a launch come to be? Its constructors are followed.

What a constructor asserts of group sizes, and a boundary that has no answer for what it is told,
ends a launch as surely as the argument handling does; it only comes later.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from verify.checks.scan.server.arguments import Options, Refusal
from verify.checks.scan.server.evaluate import TooMuchError
from verify.checks.scan.server.follow import Follower, RefusedError
from verify.checks.scan.server.values import UNKNOWN, Backend, Built, Code, Thing
from verify.interpreter.index import Class, Function, Index
from verify.interpreter.primitives import SIZES, STAGE_DECLARATIONS
from verify.interpreter.state import MODELS

PARALLEL = "get_parallel"
BOUNDARY = "sglang/srt/layers/layer_boundary/"
STAGE = "stage"
_BUILDS = (MODELS, BOUNDARY)
_HAS_NO_ANSWER = "raise NotImplementedError"
SERVER_ARGS = ("get_server_args", "get_global_server_args")
BACKENDS: Mapping[str, str] = {
    "get_moe_a2a_backend": "moe_a2a_backend",
    "get_moe_runner_backend": "moe_runner_backend",
}


def sizes(options: Options) -> dict[str, Any]:
    """The sizes of every group, as the options settle them; unknown where one is."""

    def of(name: str) -> Any:
        value = options.get(name, 1)
        return 1 if value is None else value

    attention = of("attn_dp_size")
    if attention == 1 and options.get("enable_dp_attention") is True:
        attention = of("dp_size")
    found = {
        "tp_size": of("tp_size"),
        "moe_ep_size": of("ep_size"),
        "moe_dp_size": of("moe_dp_size"),
        "attn_cp_size": of("attn_cp_size"),
        "attn_dp_size": attention,
        "dwdp_size": of("dwdp_size"),
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


def construct(index: Index, cls: Class, options: Options) -> Refusal | None:
    """Where the constructor of a layer, or its boundary, ends the launch with these options."""
    declared: list[Thing] = []
    follower = Follower(index, {**_natives(options), **_noted(declared)}, builds=_BUILDS)
    try:
        follower.call(Built(cls), (), {})
        for function in _asks_stages(index):
            for stage in declared:
                follower.call(Code(function), (stage,), {})
    except RefusedError as error:
        return Refusal(file=error.file, line=error.line)
    except (TooMuchError, RecursionError):
        return None
    return None


def _noted(declared: list[Thing]) -> Mapping[str, Callable[..., Any]]:
    """Keeps what a layer declares of its stages: the boundary asks it when the stack is whole."""

    def note(_: Follower, __: Any, ___: Any, named: Mapping[str, Any]) -> Any:
        declared.append(Thing(None, dict(named)))
        return NotImplemented

    return dict.fromkeys(STAGE_DECLARATIONS, note)


@lru_cache(maxsize=1)
def _asks_stages(index: Index) -> tuple[Function, ...]:
    """The boundary's functions that have no answer for some stages."""
    found: list[Function] = []
    for path in index.tree.under(BOUNDARY):
        module = index.module(path)
        for name, piece in module.pieces.items() if module else ():
            function = module.lookup(name) if module and _HAS_NO_ANSWER in piece.text else None
            if isinstance(function, Function) and _first(function) == STAGE:
                found.append(function)
    return tuple(found)


def _first(function: Function) -> str:
    arguments = function.node.args.args
    return arguments[0].arg if arguments else ""


def _natives(options: Options) -> Mapping[str, Callable[..., Any]]:
    known = sizes(options)
    parallel, record = Thing(None, known), Thing(None, dict(options))
    asked = {
        text.removesuffix("()"): known.get(size, UNKNOWN)
        for text, size in SIZES.items()
        if text.endswith("()") and "." not in text
    }
    attention_dp = known["attn_dp_size"]

    def answer(value: Any) -> Callable[..., Any]:
        return lambda *_: value

    return {
        **{name: answer(value) for name, value in asked.items()},
        **{name: answer(Backend(options.get(option))) for name, option in BACKENDS.items()},
        **dict.fromkeys(SERVER_ARGS, answer(record)),
        PARALLEL: answer(parallel),
        "is_dp_attention_enabled": answer(
            attention_dp > 1 if isinstance(attention_dp, int) else UNKNOWN
        ),
    }
