"""Random guards and refusals: the launch that is printed starts, and leads to what it shows.

The other side is Python: it runs the source's own argument handling, constructors and boundary, and
the block's own guard, and goes through every launch of a small space.
"""

import ast
import textwrap
from collections.abc import Collection
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.verify.checks.scan.conftest import BLOCK, HEAD, LAYER, LIBRARY, write_source
from verify.checks.scan.scan import scan
from verify.checks.scan.server.construct import Constructors
from verify.checks.scan.server.follow import Follower
from verify.checks.scan.server.launches import Launcher
from verify.checks.scan.server.operators import Operators
from verify.engines.sources import open_source
from verify.report.report import Finding

DEFAULTS: dict[str, Any] = {"tp_size": 1, "kind": "plain", "fast": False, "level": 1}
SPACE = {"kind": ("plain", "oak", "elm", "yew"), "fast": (False, True), "level": (1, 2, 3)}
Options = dict[str, Any]
# as many ranks as a sum needs, and nothing else
PLAIN: Options = {"tp_size": 4}
PLACES = ("arguments", "handler", "constructor", "attention", "dispatcher", "boundary")
# one option of the server: `X` is what has them
# what it is not says nothing of what to set
UNSAID = ("X.kind != 'plain'", "X.kind not in ('plain', 'elm')")
ASKS = (
    *UNSAID,
    "X.fast",
    "X.kind == 'oak'",
    "X.kind in ('oak', 'elm')",
    "X.level > 1",
    "X.level >= 3",
    "X.level < 2",
)
conditions = st.recursive(
    st.sampled_from(ASKS),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(("and", "or")), inner).map(
            lambda three: f"({' '.join(three)})"
        ),
        inner.map(lambda one: f"(not {one})"),
    ),
    max_leaves=3,
)
# how a source refuses what `{0}` says; the last ones settle an option besides
SHAPES = (
    "if {0}:\n    raise ValueError('no')",
    "assert not {0}, 'no'",
    "if not {0}:\n    pass\nelif {1}:\n    raise NotImplementedError('no')",
    "if {0} and not {1}:\n    pass\nelif {0}:\n    raise ValueError('no')",
    "def check(X):\n    if not {0}:\n        return\n    assert not {1}\ncheck(X)",
    "wrong = {0} if {1} else {0} and not {1}\nif wrong:\n    raise ValueError('no')",
    "for kind in ('oak', 'elm'):\n    if X.kind == kind and {0}:\n        raise ValueError(kind)",
)
SETTLES = (
    "if {0}:\n    X.fast = {1}",
    "if {0}:\n    X.kind = 'elm'\nelif {1}:\n    X.level = 1",
    "if {0}:\n    X.tp_size = 1",
)
GUARDED = {
    "added": ("        if GUARD:\n            out = out + x\n", ""),
    "not summed": ("", "not (GUARD) and "),
}
SERVER = """
class ServerArgs:
    tp_size: int = 1
    kind: str = "plain"
    fast: bool = False
    level: int = 1
    model_path: str = None

    def __post_init__(self):
        X = self
{arguments}
        self._handle()

    def _handle(self):
        X = self
{handler}
"""
DISPATCHER = """
def dispatcher_of(config):
    X = get_server_args()
{dispatcher}
"""
BOUNDARY = """
def step_of(stage):
    X = get_server_args()
{boundary}
    if stage.never:
        raise NotImplementedError(stage)
    return stage
"""
ATTENTION = """
class Attention:
    def __init__(self, config):
        X = get_server_args()
{attention}
"""
MODEL = """
class OakForCausalLM:
    def __init__(self, config):
        self.layers = make_layers(config.n, lambda index: Layer(config, index))


EntryClass = [OakForCausalLM]
"""
DISPATCHERS = "layers/moe/token_dispatcher/choice.py"
BOUNDARIES = "layers/layer_boundary/steps.py"


class Refusal(NamedTuple):
    """Where a source refuses what, and how."""

    place: str
    shape: str
    one: str
    other: str

    @property
    def text(self) -> str:
        return self.shape.format(self.one, self.other)


refusals = st.one_of(
    st.builds(Refusal, st.sampled_from(PLACES), st.sampled_from(SHAPES), conditions, conditions),
    st.builds(
        Refusal, st.sampled_from(PLACES[:2]), st.sampled_from(SETTLES), conditions, conditions
    ),
)


def rendered(guard: str, how: str, refused: list[Refusal]) -> dict[str, str]:
    """The sample's files, with a guard in its block and the refusals where they belong."""
    said = {
        place: textwrap.indent(
            "\n".join(r.text for r in refused if r.place == place) or "pass", "    "
        )
        for place in PLACES
    }
    deep = {place: textwrap.indent(text, "    ") for place, text in said.items()}
    added, summed = (text.replace("GUARD", guard) for text in GUARDED[how])
    added, summed = (text.replace("X.", "get_server_args().") for text in (added, summed))
    block = BLOCK.replace(
        "        self.tp_size =",
        f"        X = get_server_args()\n{deep['constructor']}\n"
        "        self.dispatcher = dispatcher_of(config)\n        self.tp_size =",
    ).replace("        if self.tp_size > 1", f"{added}        if {summed}self.tp_size > 1")
    layer = LAYER.replace(
        "        self.mlp = Block(config)\n",
        "        self.attn = Attention(config)\n        self.mlp = Block(config)\n"
        "        self.stage = declare_ffn(sparse=True)\n",
    )
    head = HEAD + "from sglang.srt.layers.moe.token_dispatcher.choice import dispatcher_of\n"
    return {
        **LIBRARY,
        "server_args.py": SERVER.format(**deep),
        DISPATCHERS: DISPATCHER.format(**said),
        BOUNDARIES: BOUNDARY.format(**said),
        "models/sample.py": "".join((head, ATTENTION.format(**deep), block, layer, MODEL)),
    }


class Python:
    """The sample run by Python: what becomes of a launch, and of the block's output there."""

    def __init__(self, files: dict[str, str]) -> None:
        self.names: dict[str, Any] = {
            "get_server_args": lambda: self.record,
            "get_tensor_model_parallel_world_size": lambda: self.record.tp_size,
            "should_skip_post_experts_all_reduce": lambda **_: False,
            # every rank has the same part of the experts' output
            "FusedMoE": lambda **_: lambda x: x / 8,
            "tensor_model_parallel_all_reduce": lambda out: out * self.record.tp_size,
            "RMSNorm": lambda _: None,
            "LayerCommunicator": lambda *_, **__: None,
            "declare_ffn": lambda **named: SimpleNamespace(never=False, **named),
        }
        for file in ("server_args.py", DISPATCHERS, BOUNDARIES, "models/sample.py"):
            text = files[file]
            start = text.index("class ") if file.startswith("models") else 0
            exec(compile(text[start:], file, "exec"), self.names)

    def starts(self, options: dict[str, Any]) -> bool:
        """Whether a server starts so: its arguments, its first layer, and the layer's boundary."""
        try:
            self.record = self.names["ServerArgs"]()
            vars(self.record).update(options)
            self.record.__post_init__()
            self.layer = self.names["Layer"](SimpleNamespace(n=8, hidden=8, last=3), 0)
            self.names["step_of"](self.layer.stage)
        except (ValueError, AssertionError, NotImplementedError):
            return False
        return True

    def shows(self, options: dict[str, Any]) -> bool:
        """Whether a server starts so, and the block's output is another than the right one."""
        return self.starts(options) and self.wrong()

    def wrong(self) -> bool:
        """Whether what started has another output than the right one."""
        size = self.record.tp_size
        return size > 1 and self.layer.mlp.forward(1.0) not in self.right(size)

    @staticmethod
    def right(size: int) -> tuple[float, ...]:
        """The experts' output, with what is added to it or without."""
        return size / 8, size / 8 + 1

    def launches(self, names: Collection[str], options: Options = PLAIN) -> list[Options]:
        """Every launch with these options, and any values of those with these names, that shows."""
        each = product(*(SPACE[name] for name in names))
        asked = ({**options, **dict(zip(names, values, strict=True))} for values in each)
        return [launch for launch in asked if self.shows(launch)]


def options_of(words: tuple[str, ...]) -> dict[str, Any]:
    """A printed command line as options."""
    found: dict[str, Any] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name = word.removeprefix("--").replace("-", "_")
            found[name] = True
        else:
            found[name] = type(DEFAULTS[name])(word)
    return found


def found_in(files: dict[str, str]) -> tuple[Finding, ...]:
    with (
        TemporaryDirectory() as folder,
        open_source(str(write_source(Path(folder), files))) as tree,
    ):
        result = scan(tree)
    assert result.unread == ()
    return result.findings


def holds(guard: str, how: str, refused: list[Refusal]) -> None:
    """What is printed starts and shows it, and a launch that nothing refuses is printed."""
    files = rendered(guard, how, refused)
    python, free = Python(files), Python(rendered(guard, how, []))
    found = found_in(files)
    for one in found:
        launch = options_of(one.launch)
        if one.launch and not one.needs:
            assert python.shows(launch)
        elif one.launch:
            # a name that is only said not to be is all that nobody knows how to set, and whether
            # the source takes another one is not asked
            assert all("kind" in need for need in one.needs)
            assert any(unsaid in guard for unsaid in UNSAID)
            assert python.starts(launch)
    if python.launches(tuple(SPACE)):
        # what can be is a finding, whoever refuses its smallest launch
        assert found
    names = tuple(name for name in SPACE if name in guard)
    asked = free.launches(names)
    if asked and python.launches(names) == asked and not any(one in guard for one in UNSAID):
        assert any(one.launch for one in found)


def taken(refused: list[Refusal]) -> list[Refusal]:
    """Those with which a server starts that is asked for nothing but ranks.

    What ends that one too is no refusal for the scan: it was misread, as servers start by default.
    """
    found: list[Refusal] = []
    for one in refused:
        if Python(rendered("X.fast", "added", [*found, one])).starts(PLAIN):
            found.append(one)
    return found


cases = st.tuples(
    conditions,
    st.sampled_from(sorted(GUARDED)),
    st.lists(refusals, min_size=1, max_size=3).map(taken),
)


@settings(max_examples=60, derandomize=True)
@given(case=cases)
@example(
    case=(
        "((X.level > 1 and X.fast) or X.level >= 3)",
        "added",
        [
            Refusal("arguments", SHAPES[0], "X.fast", "X.fast"),
            Refusal("arguments", SETTLES[1], "X.kind != 'plain'", "X.level >= 3"),
        ],
    )
)
def test_a_printed_launch_starts_and_shows_what_is_printed(case):
    holds(*case)


def swapped(self: Operators, node: ast.BoolOp) -> Any:
    op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
    return Operators._connected(self, ast.BoolOp(op, node.values))


def corrupt(patch: pytest.MonkeyPatch, what: str) -> None:
    nothing = "verify.checks.scan.server"
    match what:
        case "no refusal is heard":
            patch.setattr(Launcher, "_refusal", lambda *_: None)
        case "nothing that is asked for is denied":
            patch.setattr(Launcher, "_denied", lambda *_: (None, ()))
        case "no assert is read":
            patch.setitem(Follower._statements, ast.Assert, lambda *_: False)
        case "no raise is read":
            patch.setitem(Follower._statements, ast.Raise, lambda *_: False)
        case "and is or":
            patch.setitem(Follower._expressions, ast.BoolOp, swapped)
        case "no constructor is followed":
            patch.setattr(Constructors, "ends", lambda *_: None)
        case "no boundary is asked":
            patch.setattr(Constructors, "_asks_stages", ())
        case "nothing is set for a guard":
            patch.setattr(f"{nothing}.launches.ways", lambda *_: [{}])
        case "one of several is not asked for":
            patch.setattr("verify.checks.scan.judge.one_of", lambda *_: ())
            patch.setattr("verify.checks.scan.addends.judge.one_of", lambda *_: ())
        case "every launch is refused":
            patch.setattr(Launcher, "_refusal", lambda *_: "server_args.py:1")


def at(place: str, shape: str, said: str = "X.fast") -> list[Refusal]:
    return [Refusal(place, shape, said, said)]


SEEN = {
    "no refusal is heard": ("X.fast", at("arguments", SHAPES[0])),
    "nothing that is asked for is denied": (
        "(not X.fast)",
        at("handler", SETTLES[0], "X.level < 2"),
    ),
    "no assert is read": ("X.fast", at("attention", SHAPES[1])),
    "no raise is read": ("X.fast", at("dispatcher", SHAPES[2])),
    "and is or": ("X.fast", at("arguments", SHAPES[0], "(X.fast and X.kind == 'oak')")),
    "no constructor is followed": ("X.fast", at("constructor", SHAPES[0])),
    "no boundary is asked": ("X.fast", at("boundary", SHAPES[0])),
    "nothing is set for a guard": ("X.level > 1", []),
    "one of several is not asked for": ("(X.fast or X.kind == 'oak')", []),
    "every launch is refused": ("X.fast", []),
}


@pytest.mark.parametrize("how", GUARDED)
@pytest.mark.parametrize(("what", "case"), SEEN.items(), ids=SEEN)
def test_a_scan_that_misreads_is_seen(
    monkeypatch: pytest.MonkeyPatch, what: str, case: tuple[str, list[Refusal]], how: str
) -> None:
    guard, refused = case
    holds(guard, how, refused)
    corrupt(monkeypatch, what)
    with pytest.raises(AssertionError):
        holds(guard, how, refused)
