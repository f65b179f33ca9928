"""Random refusals in many shapes: what is said of a launch is what Python itself does with it."""

import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from verify.checks.scan.server.arguments import Arguments
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
    "try:\n    if {0}:\n        raise ValueError('no')\nexcept ValueError:\n    raise",
)
SERVER = """
KNOWN = ("OakForCausalLM",)


class ServerArgs:
    tp_size: int = 1
    dp_size: int = 1
    backend: str = "none"
    fuse: bool = False

    def _check(self, one, other):
        if not one:
            return
        assert not other

    def __post_init__(self):
        arch = self.get_model_config().hf_config.architectures[0]
"""


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(
        st.tuples(st.sampled_from(SHAPES), conditions, conditions), min_size=1, max_size=3
    ),
    asked=st.fixed_dictionaries({name: st.sampled_from(VALUES[name]) for name in VALUES}),
    architecture=st.sampled_from(ARCHITECTURES),
)
def test_a_launch_is_refused_exactly_where_python_raises(pieces, asked, architecture):
    body = "\n".join(shape.format(one, other) for shape, one, other in pieces)
    text = SERVER + textwrap.indent(body, " " * 8) + "\n"
    names = {}
    exec(compile(text, "server_args.py", "exec"), names)
    record = names["ServerArgs"]()
    vars(record).update(asked)
    config = SimpleNamespace(hf_config=SimpleNamespace(architectures=[architecture]))
    record.get_model_config = lambda: config
    try:
        record.__post_init__()
    except (ValueError, AssertionError, NotImplementedError):
        refuses = True
    else:
        refuses = False
    with TemporaryDirectory() as folder:
        file = Path(folder, "sglang", "srt", "server_args.py")
        file.parent.mkdir(parents=True)
        file.write_text(text)
        with open_source(folder) as tree:
            outcome = Arguments(Index(tree, LIBRARY)).follow(
                asked, Model(architecture=architecture)
            )
    assert outcome.whole
    assert (outcome.refused is not None) == refuses
    if not refuses:
        assert {name: outcome.options[name] for name in OPTIONS} == {
            name: getattr(record, name) for name in OPTIONS
        }
