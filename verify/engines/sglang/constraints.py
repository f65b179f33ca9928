"""What is true of every configuration: which flags and sizes can go together.

Read from the source itself where it says so (the flags' own definitions), the rest from
`shared/facts/upstream.md`: groups divide the tensor-parallel world, a backend is one backend.
"""

import ast
import re
from collections.abc import Iterator
from functools import lru_cache

from verify.engines.sglang.communicator import PUBLISHED
from verify.engines.sglang.refusals import (
    ATTENTION_DP,
    INPUT_SCATTERED,
    moves_on_gpus_only,
    scatters_inputs_on_gpus_only,
    takes_one_size_a_rank,
)
from verify.engines.sglang.vocabulary import (
    A2A_BACKEND,
    A2A_NONE,
    ALLOW,
    COMMUNICATOR,
    COMMUNICATOR_FILE,
    COMMUNICATOR_FLAGS,
    FLAG_FUNCTIONS,
    SCATTERS,
    UTILS_FILE,
)
from verify.interpreter.index import Class, Function, Index, UnreadableError
from verify.interpreter.machine import Machine
from verify.interpreter.state import CANNOT_FOLLOW, Frame, State, started
from verify.interpreter.values import Instance, Routine
from verify.logic.diagrams import TRUE, Cond, Logic, TooLargeError

PARTS_OF_TP = ("moe_ep_size", "moe_tp_size", "attn_dp_size", "attn_tp_size")
_BACKEND = re.compile(r"(.*)\.is_\w+\(\)$")
CONTEXT_PARALLEL = re.compile(
    r"prefill_c(?:ontext_parallel|p\b)|is_context_parallel|_cp_enabled|_cp_active"
)
CUDA = re.compile(r"^_?is_cuda(?:\(\))?$|^_is_sm\d+|^apply_flashinfer_allreduce_fusion")
_PLATFORMS = {
    "cuda": CUDA,
    "hip": re.compile(r"^_?is_hip(?:\(\))?$|^_use_aiter"),
    "cpu": re.compile(r"^_?is_cpu(?:\(\))?$|^use_intel_amx_backend|^_is_cpu_amx"),
    "npu": re.compile(r"^_?is_npu(?:\(\))?$"),
    "xpu": re.compile(r"^_?is_xpu(?:\(\))?$"),
}
EXIT_FILE = "sglang/srt/layers/layer_boundary/exit.py"


def published_flags(index: Index) -> tuple[str, ...]:
    """The flags that this source's FFN boundary publishes to what runs inside it."""
    module = index.module(EXIT_FILE)
    if module is None:
        return ()
    scopes = re.findall(r"scoped\(([^()]*)\)", module.text)
    return tuple(flag for flag, name in PUBLISHED.items() if any(name in s for s in scopes))


def definitions(state: State) -> tuple[Cond, Cond]:
    """The flags' own definitions in this source, as a condition that always holds.

    The second is what holds besides in a layer whose communicator may reduce-scatter: there a flag
    is exactly what the communicator answers.
    """
    logic = state.logic
    module = state.index.module(UTILS_FILE)
    result = answers = TRUE
    state.theory = True
    for name, flag in FLAG_FUNCTIONS.items():
        function = module.resolve(name) if module else None
        if isinstance(function, Function):
            body = when(state, Routine(function))
            if body is not None:
                result = logic.both(result, _same(logic, logic.atom(flag), body))
        else:
            result = logic.both(result, logic.negation(logic.atom(flag)))
    communicator = state.index.module(COMMUNICATOR_FILE)
    cls = communicator.lookup(COMMUNICATOR) if communicator else None
    if isinstance(cls, Class):
        owner = Instance(cls)
        for name, flag in COMMUNICATOR_FLAGS.items():
            method = cls.method(name)
            if method is None:
                result = logic.both(result, logic.negation(logic.atom(flag)))
                continue
            body = when(state, Routine(method, owner))
            if body is not None:
                # asked by a layer that allows it
                body = logic.assume(body, f"{COMMUNICATOR}.{ALLOW}", value=True)
                implied = logic.either(logic.negation(logic.atom(flag)), body)
                result = logic.both(result, implied)
                answers = logic.both(answers, _same(logic, logic.atom(flag), body))
    state.theory = False
    state.reductions.clear()
    return result, answers


def predicate_texts(index: Index) -> dict[str, str]:
    """Each flag function of the source with its definition, as an expression of named atoms.

    One that cannot be followed is an atom itself.
    """
    module = index.module(UTILS_FILE)
    found: dict[str, str] = {}
    for name in FLAG_FUNCTIONS:
        function = module.resolve(name) if module else None
        if isinstance(function, Function):
            # of its own, so that one that is too large leaves room for the next
            state = started(index, theory=True)
            try:
                body = when(state, Routine(function))
            except TooLargeError as error:
                index.give_up(function.module.path, name, error)
                body = None
            found[name] = f"{name}()" if body is None else state.logic.text(body)
    return found


def when(state: State, routine: Routine) -> Cond | None:
    """When a predicate of the source is true; None where it cannot be followed.

    Raises `TooLargeError`: there is no room for anything else then.
    """
    machine = Machine(state)
    assert isinstance(routine.target, Function)
    state.enter(Frame(routine.target.module, "<definition>", None, TRUE))
    try:
        return machine.truth(machine.call(routine, (), {}))
    except TooLargeError:
        raise
    except CANNOT_FOLLOW as error:
        state.index.give_up(routine.target.module.path, routine.target.name, error)
        return None
    finally:
        state.leave()


def _same(logic: Logic, flag: Cond, body: Cond) -> Cond:
    return logic.choose(flag, body, logic.negation(body))


def general(state: State) -> Cond:
    """What holds in every source: groups divide the TP group, a backend is one backend."""
    logic = state.logic
    atom = logic.atom

    def implied(condition: str, then: Cond) -> Cond:
        return logic.either(logic.negation(atom(condition)), then)

    rules = [implied(f"{size} > 1", atom("tp_size > 1")) for size in PARTS_OF_TP]
    rules += [implied(flag, atom(ATTENTION_DP)) for flag in ("DP", "FI", "attn_dp_size > 1")]
    rules += [implied("DP", atom("moe_ep_size > 1")), implied("DP", atom(SCATTERS))]
    if takes_one_size_a_rank(state.index):
        rules.append(logic.negation(logic.both(atom("DP"), atom("attn_tp_size > 1"))))
    # server_args: with an all-to-all backend every rank is an expert-parallel rank
    whole = logic.both(atom("moe_ep_size > 1"), logic.negation(atom("moe_tp_size > 1")))
    single = logic.negation(atom("tp_size > 1"))
    rules.append(logic.any_of(atom(A2A_NONE), single, whole))
    alone = logic.both(atom("attn_dp_size == moe_ep_size"), atom("attn_dp_size == tp_size"))
    rules.append(logic.negation(logic.both(alone, atom("moe_tp_size > 1"))))
    rules += _one_backend(state, frozenset())
    return logic.all_of(*rules)


def of_atoms(state: State, known: frozenset[str]) -> Cond:
    """What holds for the atoms that came up in this run and are not among `known`."""
    logic = state.logic
    names = frozenset(logic.atoms()) - known
    moves = [name for name in names if "_scatter_hidden_states" in name and " is " in name]
    rules = [
        # that scatter moves tokens between attention data-parallel groups
        logic.either(logic.negation(logic.atom(name)), logic.atom(ATTENTION_DP))
        for name in sorted(moves)
    ]
    # context parallelism has communicators of its own, which are not read
    parallel = sorted(name for name in names if CONTEXT_PARALLEL.search(name))
    rules += [logic.negation(logic.atom(name)) for name in parallel]
    rules += _one_backend(state, names) if any(map(_BACKEND.match, names)) else []
    rules += _one_platform(state, frozenset(logic.atoms()))
    return logic.all_of(*rules)


def _one_platform(state: State, names: frozenset[str]) -> list[Cond]:
    """A process runs on one kind of device, and a device's features imply it."""
    logic = state.logic
    kinds: dict[str, list[str]] = {}
    for name in sorted(names):
        for platform in platforms_of(name):
            kinds.setdefault(platform, []).append(name)
    features = {kind: logic.any_of(*map(logic.atom, names)) for kind, names in kinds.items()}
    rules = [logic.at_most_one(*features.values())]
    if "cpu" in features:
        rules += [
            logic.negation(logic.both(features["cpu"], logic.atom(name)))
            for name, needed in _needs_gpus(state.index)
            if needed
        ]
    return rules


def _needs_gpus(index: Index) -> Iterator[tuple[str, bool]]:
    """What this source does on GPUs only."""
    yield ATTENTION_DP, moves_on_gpus_only(index)
    yield INPUT_SCATTERED, scatters_inputs_on_gpus_only(index)
    # its kernels are CUDA's
    yield "FI", True


@lru_cache(maxsize=10_000)
def platforms_of(name: str) -> tuple[str, ...]:
    """The kinds of device that an atom speaks of."""
    return tuple(platform for platform, words in _PLATFORMS.items() if words.search(name))


def _one_backend(state: State, names: frozenset[str]) -> list[Cond]:
    """A backend is exactly one of those that the source lists."""
    logic = state.logic
    groups: dict[str, set[str]] = {}
    for name in names:
        match = _BACKEND.match(name)
        if match and match[1].endswith("backend()"):
            groups.setdefault(match[1], set()).add(name)
    a2a = A2A_NONE.rpartition(".")[0]
    listed = {f"{a2a}.{method}()" for method in backends(state.index)}
    if a2a in groups or not names:
        groups.setdefault(a2a, set()).update(listed)
    rules: list[Cond] = []
    for owner, members in sorted(groups.items()):
        ordered = sorted(members)
        rules.append(logic.at_most_one(*map(logic.atom, ordered)))
        if owner == a2a and len(ordered) > 1:
            rules.append(logic.any_of(*(logic.atom(name) for name in ordered)))
    return rules


@lru_cache(maxsize=1)
def backends(index: Index) -> tuple[str, ...]:
    """The questions that this source's all-to-all backend answers: `is_none`, `is_deepep`, ...

    None where one of them cannot be read: then a backend may be another one.
    """
    module = index.module(UTILS_FILE)
    cls = module.lookup(A2A_BACKEND) if module else None
    if not isinstance(cls, Class):
        return ()
    try:
        return tuple(
            name
            for name, node in cls.methods.items()
            # a question about one member, not about a family of them
            if name.startswith("is_") and len(list(ast.walk(node))) < 20
        )
    except UnreadableError as error:
        index.unread.setdefault(UTILS_FILE, str(error))
        return ()
