"""The lazy loader: only what is asked for runs, under its own lines; nothing rests on a stub."""

import sys

import pytest

from verify.emulator.standin import StandInError
from verify.emulator.tree import SourceFiles, Tree
from verify.engines.sources import open_source


@pytest.fixture
def tree(tmp_path):
    def build(files, **options):
        for name, text in {"__init__.py": "", **files}.items():
            file = tmp_path / "sglang" / "srt" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        options.setdefault("primitives", {})
        return Tree(SourceFiles(open_source(str(tmp_path))), **options)

    return build


def test_only_what_is_asked_for_runs(tree):
    module = tree({"a.py": "x = 1\ny = x + 1\nz = 1 / 0\n"}).module("sglang.srt.a")
    assert module["y"] == 2
    assert "z" not in module


def test_names_are_looked_up_when_they_are_read(tree):
    files = {
        "a.py": "from sglang.srt.b import *\n\ndef f():\n    return g() + LATE\n\nLATE = 1\n",
        "b.py": "from .c import one as _one\n\ndef g():\n    return _one\n",
        "c.py": "one = 1\ntwo = undefined\n",
    }
    assert tree(files).module("sglang.srt.a")["f"]() == 2


def test_a_class_body_finds_what_it_reads(tree):
    source = "class A(B):\n    size: int = WIDTH\n\nclass B:\n    pass\n\nWIDTH = 3\n"
    assert tree({"a.py": source}).module("sglang.srt.a")["A"].size == 3


def test_statements_that_change_a_name_belong_to_it(tree):
    source = "class A:\n    pass\n\nA.table = {}\nA.table.update(one=1)\nA.closed = True\n"
    cls = tree({"a.py": source}).module("sglang.srt.a")["A"]
    assert cls.table == {"one": 1}
    assert not hasattr(cls, "closed")


def test_frames_carry_the_file_and_line_of_the_source(tree):
    function = tree({"a.py": "\n\ndef f():\n    return 1 / 0\n"}).module("sglang.srt.a")["f"]
    assert function.__code__.co_filename == "sglang/srt/a.py"
    assert function.__code__.co_firstlineno == 3


def test_two_trees_share_no_globals(tree):
    files = {"a.py": "N = 0\n\ndef add():\n    global N\n    N += 1\n    return N\n"}
    first, second = tree(files).module("sglang.srt.a"), tree(files).module("sglang.srt.a")
    assert [first["add"](), first["add"](), second["add"]()] == [1, 2, 1]


def test_primitives_replace_functions_methods_and_packages(tree):
    source = (
        "import kernels\n\ndef f():\n    return 1\n\n"
        "class MyNorm:\n    def go(self):\n        return 1\n"
    )
    built = tree(
        {"a.py": source + "\ndef k():\n    return kernels.fast.run()\n"},
        primitives={"f": lambda: 2, "*Norm.go": lambda self: 3, "kernels.fast.run": lambda: 4},
    )
    module = built.module("sglang.srt.a")
    assert (module["f"](), module["MyNorm"]().go(), module["k"]()) == (2, 3, 4)
    assert built.replaced["sglang/srt/a.py:3 f"] == "ours"


@pytest.mark.parametrize("use", ["kernels.run()", "1 if kernels.flag else 2", "list(kernels.all)"])
def test_nothing_rests_on_a_stand_in(tree, use):
    function = tree({"a.py": f"import kernels\n\ndef f():\n    return {use}\n"}).module(
        "sglang.srt.a"
    )["f"]
    with pytest.raises(StandInError, match="kernels"):
        function()


def test_what_fails_to_load_says_why_when_it_is_used(tree):
    module = tree({"a.py": "x = 1 / 0\n\ndef f():\n    return bool(x)\n"}).module("sglang.srt.a")
    with pytest.raises(StandInError, match="ZeroDivisionError"):
        module["f"]()


def test_the_tree_never_reaches_pythons_own_modules(tree):
    source = "import importlib\n\ndef f():\n    return importlib.import_module('sglang.srt.b').x\n"
    module = tree({"a.py": source, "b.py": "x = 5\n"}).module("sglang.srt.a")
    assert module["f"]() == 5
    assert not hasattr(sys.modules.get("sglang.srt.b"), "x")


def test_an_absent_package_fails_to_import(tree):
    source = "try:\n    import aiter\n    has = True\nexcept ImportError:\n    has = False\n"
    assert (
        tree({"a.py": source}, absent=frozenset({"aiter"})).module("sglang.srt.a")["has"] is False
    )


def test_what_is_put_in_place_of_a_name_stays_there(tree):
    source = "from sglang.srt.b import one, two\n\ndef f():\n    return one, two\n"
    module = tree({"a.py": source, "b.py": "one = 1\ntwo = 2\n"}).module("sglang.srt.a")
    module.put("one", 5)
    assert module["f"]() == (5, 2)
