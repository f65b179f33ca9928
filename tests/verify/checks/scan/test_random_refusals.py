"""Random refusals in many shapes: what is said of a launch is what Python itself does with it.

And it is the same whatever was asked before, also where the source asks what nobody knows.
"""

import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from unittest.mock import patch

from hypothesis import example, given, settings
from hypothesis import strategies as st

from verify.checks.scan.server import recall
from verify.checks.scan.server.arguments import Arguments
from verify.checks.scan.server.follow import RefusedError
from verify.checks.scan.server.models import Model
from verify.engines.sglang.library import LIBRARY
from verify.engines.sources import open_source
from verify.interpreter.index import Index

OPTIONS = {"tp_size": 1, "dp_size": 1, "backend": "none", "fuse": False}
VALUES = {
    "tp_size": (1, 4),
    "dp_size": (1, 2, 4),
    "backend": ("none", "oak"),
    "fuse": (True, False),
}
ARCHITECTURES = ("OakForCausalLM", "ElmForCausalLM")

atoms = st.one_of(
    st.sampled_from(["self.tp_size > 1", "self.dp_size == 2", "self.dp_size >= self.tp_size"]),
    st.sampled_from(["self.backend != 'none'", "self.backend in ('oak', 'elm')", "self.fuse"]),
    st.sampled_from([f"arch == {name!r}" for name in ARCHITECTURES]),
    st.sampled_from(
        ["arch in KNOWN", "arch.startswith('Oak')", "not self.fuse", "len(KNOWN) == 1"]
    ),
    # other ways in which a name decides: a key, a letter, one of a pair, what a call hands back
    st.sampled_from(
        [
            "TABLE.get(arch, False)",
            "TABLE[arch]",
            "'Elm' in arch",
            "(arch, self.fuse) in ((KNOWN[0], True),)",
            "same(arch) != KNOWN[0]",
        ]
    ),
)
conditions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]} and {pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]} or {pair[1]})"),
        inner.map(lambda one: f"(not {one})"),
    ),
    max_leaves=5,
)
SHAPES = (
    "if {0}:\n    raise ValueError('no')",
    "assert not {0}, 'no'",
    "if {0}:\n    if {1}:\n        raise ValueError('no')",
    "if {0}:\n    pass\nelif {1}:\n    raise NotImplementedError",
    "self._check({0}, {1})",
    "for name in KNOWN:\n    if arch == name and {0}:\n        raise ValueError(name)",
    "wrong = {0} if {1} else {0} and {1}\nif wrong:\n    raise ValueError('no')",
    "self.fuse = {0}\nif self.fuse and {1}:\n    raise ValueError('no')",
    "settle(self)\nif self.fuse and {0}:\n    raise ValueError('no')",
    "self.box = Box(self, {0})\nif self.box.open and {1}:\n    raise ValueError('no')",
    "for _ in (1, 2, 3):\n    settle(self)\nself.shut()\nassert not self.fuse or {0}",
    "try:\n    if {0}:\n        raise ValueError('no')\nexcept ValueError:\n    raise",
    # a stretch, which is remembered as a whole
    "settle(self)\nself.shut()\nself._check({0}, {1})\nsettle(self)\nself._check({1}, {0})",
)
# where the source asks what nobody knows, both ways count, and how deep a call may go
REFUSES = "if {0}:\n    refuse(self)"
RECURS = "if {0}:\n    self.depth = again(self, 0)\nelse:\n    self.depth = inside(self)"
UNKNOWN_SHAPES = (
    *SHAPES,
    "if {0}:\n    settle(self)\nif self.fuse and {1}:\n    raise ValueError('no')",
    "if {0}:\n    settle(self)\n    check(self)\nelse:\n    refuse(self)",
    REFUSES,
    RECURS,
)
BOTH = {**OPTIONS, "dp_size": 2}
SERVER = """
KNOWN = ("OakForCausalLM",)
TABLE = {"OakForCausalLM": False, "ElmForCausalLM": True}


def same(name):
    return name


class Box:
    def __init__(self, args, open):
        self.open = open
        self.size = args.dp_size


def settle(args):
    if args.dp_size > 1 and args.backend == "none":
        args.backend = "oak"
    elif args.backend == "oak":
        args.fuse = not args.fuse
    else:
        check(args)


def check(args):
    if args.fuse:
        assert args.tp_size > 1


def refuse(args):
    if args.dp_size > 1:
        raise ValueError("no")


def again(args, at):
    if at > 2 + args.dp_size:
        return at
    if at == 1:
        return inside(args)
    return again(args, at + 1)


def inside(args):
    return again(args, 3)


class ServerArgs:
    depth: int = 0
    tp_size: int = 1
    dp_size: int = 1
    backend: str = "none"
    fuse: bool = False

    def _check(self, one, other):
        if not one:
            return
        assert not other

    def shut(self):
        if getattr(self, "box", None) is not None:
            self.box.open = self.box.size > 1

    def __post_init__(self):
        arch = self.get_model_config().hf_config.architectures[0]
"""


launches = st.tuples(
    st.fixed_dictionaries({name: st.sampled_from(VALUES[name]) for name in VALUES}),
    st.sampled_from(ARCHITECTURES),
)


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(
        st.tuples(st.sampled_from(SHAPES), conditions, conditions), min_size=1, max_size=3
    ),
    asked=st.lists(launches, min_size=1, max_size=6),
)
def test_a_launch_is_refused_exactly_where_python_raises(pieces, asked):
    """Whatever was asked before: what a call did under another launch is not what it does now."""
    body = "\n".join(shape.format(one, other) for shape, one, other in pieces)
    text = SERVER + textwrap.indent(body, " " * 8) + "\n"
    names = {}
    exec(compile(text, "server_args.py", "exec"), names)
    with TemporaryDirectory() as folder:
        file = Path(folder, "sglang", "srt", "server_args.py")
        file.parent.mkdir(parents=True)
        file.write_text(text)
        with open_source(folder) as tree:
            arguments = Arguments(Index(tree, LIBRARY))
            for options, architecture in asked:
                outcome = arguments.follow(options, Model(architecture=architecture))
                assert outcome.whole
                settled = by_python(names["ServerArgs"](), options, architecture)
                assert (outcome.refused is not None) == (settled is None)
                if settled is not None:
                    assert {name: outcome.options[name] for name in OPTIONS} == settled


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(
        st.tuples(
            st.sampled_from(UNKNOWN_SHAPES),
            st.one_of(conditions, st.just("elsewhere()")),
            st.one_of(conditions, st.just("elsewhere()")),
        ),
        min_size=1,
        max_size=4,
    ),
    asked=st.lists(launches, min_size=2, max_size=6),
    # after so many a call is followed without being remembered
    misses=st.sampled_from((0, 1, recall.MAX_MISSES)),
)
@example(
    pieces=[(REFUSES, "self.fuse", "True"), (REFUSES, "elsewhere()", "True")],
    asked=[({**BOTH, "fuse": fuse}, "OakForCausalLM") for fuse in (True, False)],
    misses=recall.MAX_MISSES,
)
@example(
    pieces=[(RECURS, "self.fuse", "True")],
    asked=[({**OPTIONS, "fuse": fuse}, "OakForCausalLM") for fuse in (True, False)],
    misses=recall.MAX_MISSES,
)
def test_what_was_asked_before_changes_nothing(pieces, asked, misses):
    body = "\n".join(shape.format(one, other) for shape, one, other in pieces)
    text = SERVER + textwrap.indent(body, " " * 8) + "\n"
    with TemporaryDirectory() as folder:
        file = Path(folder, "sglang", "srt", "server_args.py")
        file.parent.mkdir(parents=True)
        file.write_text(text)
        with open_source(folder) as tree, patch.object(recall, "MAX_MISSES", misses):
            known = Arguments(Index(tree, LIBRARY))
            for options, architecture in asked:
                model = Model(architecture=architecture)
                fresh = Arguments(Index(tree, LIBRARY)).follow(options, model)
                again = known.follow(options, model)
                assert (again.refused, again.whole) == (fresh.refused, fresh.whole)
                assert again.places == fresh.places
                assert {name: again.options.get(name) for name in (*OPTIONS, "depth")} == {
                    name: fresh.options.get(name) for name in (*OPTIONS, "depth")
                }


CALLED_BY_TWO = """
class ServerArgs:
    def __post_init__(self):
        if self.tp_size > 1:
            first(self)
        else:
            second(self)


def first(args):
    inner(args)


def second(args):
    inner(args)


def inner(args):
    if args.fuse:
        raise ValueError("no")
"""


def test_who_calls_what_is_not_remembered_has_asked_it_too(tmp_path, monkeypatch):
    monkeypatch.setattr(recall, "MAX_MISSES", 1)
    file = tmp_path / "sglang" / "srt" / "server_args.py"
    file.parent.mkdir(parents=True)
    file.write_text(CALLED_BY_TWO)
    with open_source(str(tmp_path)) as tree:
        known = Arguments(Index(tree, LIBRARY))
        refused = [
            known.follow({"tp_size": size, "fuse": fuse}, Model()).refused is not None
            for size in (4, 1)
            for fuse in (False, True)
        ]
    assert refused == [False, True, False, True]


IMPORTS_IN_A_STRETCH = """
class ServerArgs:
    def __post_init__(self):
        from sglang.srt.steps import check, settle
        settle(self)
        settle(self)
        if self.tp_size > 1:
            check(self)
"""
STEPS = """
def settle(args):
    args.backend = "oak" if args.fuse else args.backend


def check(args):
    if args.backend == "oak":
        raise ValueError("no")
"""


def test_stretch_that_is_remembered_binds_its_names_and_sets_its_fields(tmp_path):
    folder = tmp_path / "sglang" / "srt"
    folder.mkdir(parents=True)
    (folder / "server_args.py").write_text(IMPORTS_IN_A_STRETCH)
    (folder / "steps.py").write_text(STEPS)
    with open_source(str(tmp_path)) as tree:
        known = Arguments(Index(tree, LIBRARY))
        refused = [
            known.follow({"tp_size": size, "fuse": fuse, "backend": "none"}, Model()).refused
            is not None
            for size in (1, 4)
            for fuse in (False, True)
        ]
    assert refused == [False, False, False, True]


ASKS_FOR_A_NAME = """
class ServerArgs:
    def __post_init__(self):
        if self.get_model_config().hf_config.architectures[0] in ["OakForCausalLM"]:
            raise ValueError("no")
"""


def test_name_that_begins_with_the_one_that_is_asked_for_is_told_apart(tmp_path):
    file = tmp_path / "sglang" / "srt" / "server_args.py"
    file.parent.mkdir(parents=True)
    file.write_text(ASKS_FOR_A_NAME)
    with open_source(str(tmp_path)) as tree:
        arguments = Arguments(Index(tree, LIBRARY))
        names = ("OakForCausalLM", "OakForCausalLMMTP", "Elm")
        models = [Model(architecture=name) for name in names]
        told = {arguments.told_apart(model) for model in models}
        refused = [arguments.follow({}, model).refused is not None for model in models]
    assert (refused, len(told)) == ([True, False, False], 3)


REFUSES = """
def refuse(stage):
    if stage.own == "oak":
        raise NotImplementedError
"""


def test_what_is_said_of_a_stage_is_said_of_equal_ones_only(tmp_path: Path) -> None:
    file = tmp_path / "sglang" / "srt" / "stages.py"
    file.parent.mkdir(parents=True)
    file.write_text(REFUSES)
    refused = []
    with open_source(str(tmp_path)) as tree:
        index = Index(tree, LIBRARY)
        follower = recall.Recaller(index, {}, shared=())
        function = index.module("sglang/srt/stages.py").lookup("refuse")
        for own in ("elm", "oak", "elm", "oak"):
            try:
                follower.asked_about(function, {"own": own})
            except RefusedError:
                refused.append(own)
    assert refused == ["oak", "oak"]


def by_python(record, options, architecture):
    """The options as the source itself settles them, None where it raises."""
    vars(record).update(options)
    config = SimpleNamespace(hf_config=SimpleNamespace(architectures=[architecture]))
    record.get_model_config = lambda: config
    try:
        record.__post_init__()
    except (ValueError, AssertionError, NotImplementedError):
        return None
    return {name: getattr(record, name) for name in OPTIONS}
