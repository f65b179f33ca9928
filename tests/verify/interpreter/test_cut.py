"""Cutting a class by its lines finds what parsing it whole finds."""

import ast
import pickle
from pathlib import Path

import pytest

from verify.engines.sglang.library import LIBRARY
from verify.engines.sources import open_source
from verify.interpreter.cut import Piece, definitions, methods
from verify.interpreter.index import Class, FunctionNode, Index, UnreadableError

REGULAR = {
    "plain": "class A:\n    x = 1\n\n    def f(self):\n        return 1\n\n    y = 2\n",
    "bases over lines": "class A(\n    B,\n    C,\n):\n    def f(self): pass\n",
    "decorators": "class A:\n    @property\n    def f(self): pass\n    @f.setter\n"
    "    # a comment between\n    def f(self, v): pass\n    @staticmethod\n    def g(\n"
    "        x,\n    ) -> int:\n        return x\n",
    "async and tabs": "class A:\n\tasync def f(self):\n\t\tdef g():\n\t\t\tpass\n"
    "\tdef h(self): pass\n",
    "a nested class": "class A:\n    class B:\n        def f(self): pass\n    def g(self): pass\n",
    "a conditional method": "class A:\n    if X:\n        def f(self): pass\n"
    "    def g(self): pass\n",
    "a long string": 'class A:\n    """Text\n\nin the first column"""\n    def f(self): pass\n',
    "comments in the first column": "class A:\n    def f(self):\n        pass\n# here\n    x = 3\n",
    "Windows line ends": "class A:\r\n    def f(self):\r\n        pass\r\n"
    "    def g(self): pass\r\n",
    "no methods": "class A:\n    x: int = 1\n",
}
IRREGULAR = {
    "a method in a string": 'class A:\n    """\n    def not_one(): pass\n    """\n'
    "    def f(self): pass\n",
    "triple quotes in a comment": 'class A:\n    def f(self): pass  # """\n    def g(self): pass\n',
    "only a conditional method": "class A:\n    if X:\n        def f(self): pass\n",
    "a call among the bases": "class A(make(B)):\n    def f(self): pass\n",
}
# files, of which the class A has a method `last`
UNTOLD = {
    "a class in a string": 'TEXT = """\nclass Not:\n    pass\n"""\n\n\nclass A:\n'
    "    def last(self): pass\n",
    "triple quotes in a comment before": '# """\nclass A:\n    def last(self): pass\n',
    "triple quotes in a comment inside": 'def f():\n    pass  # """\n\n\nclass A:\n'
    '    def last(self):\n        """Text."""\n',
    "triple quotes in a string": 'QUOTES = \'"""\'\n\n\n@d\nclass A:\n    def last(self): pass\n',
}


IN_FILE = "sglang/srt/models/odd.py"


def shown(node: ast.AST) -> str:
    """The tree with every line and column in it."""
    return ast.dump(node, include_attributes=True)


def parsed_whole(text: str) -> dict[str, str]:
    cls = ast.parse(text).body[-1]
    assert isinstance(cls, ast.ClassDef)
    functions = (m for m in cls.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef))
    return {method.name: shown(method) for method in functions}


def read(tmp_path: Path, text: str) -> Class:
    file = tmp_path / IN_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode())
    module = Index(open_source(str(tmp_path)), LIBRARY).module(IN_FILE)
    assert module is not None
    cls = module.lookup("A")
    assert isinstance(cls, Class)
    return cls


@pytest.mark.parametrize("kind", [*REGULAR, *IRREGULAR])
def test_methods_are_those_of_the_whole_class(tmp_path: Path, kind: str) -> None:
    text = "import x\n\n\n" + {**REGULAR, **IRREGULAR}[kind]
    cls = read(tmp_path, text)
    assert {name: shown(node) for name, node in cls.methods.items()} == parsed_whole(text)


def test_a_method_read_from_the_wrong_line_would_show() -> None:
    text = REGULAR["plain"]
    assert parsed_whole(text) != parsed_whole(f"\n{text}")


@pytest.mark.parametrize("kind", REGULAR)
def test_a_regular_class_is_not_parsed_as_a_whole(kind: str) -> None:
    assert methods(Piece(text=REGULAR[kind], line=1)) is not None


@pytest.mark.parametrize("kind", IRREGULAR)
def test_an_irregular_class_is(kind: str) -> None:
    assert methods(Piece(text=IRREGULAR[kind], line=1)) is None


def test_class_attributes_are_found_between_methods(tmp_path: Path) -> None:
    assert set(read(tmp_path, REGULAR["plain"]).assigned) == {"x", "y"}
    (tmp_path / "other").mkdir()
    assert set(read(tmp_path / "other", REGULAR["no methods"]).assigned) == {"x"}


def test_only_the_method_asked_for_is_parsed(tmp_path: Path) -> None:
    cls = read(tmp_path, "class A:\n    def f(self): pass\n    def g(self): (\n")
    assert cls.methods["f"].name == "f"
    with pytest.raises(UnreadableError, match=r"odd\.py:3"):
        cls.methods["g"]


def test_definitions_end_where_the_next_statement_begins() -> None:
    text = 'class A:\n    """\nwords\n    """\n\n\n@d\ndef f():\n    pass\n)\nx = 1\n'
    cut = definitions(text)
    assert cut is not None
    assert {name: piece.lines for name, piece in cut.items()} == {
        "A": range(1, 8),
        "f": range(8, 12),
    }


@pytest.mark.parametrize("kind", UNTOLD)
def test_definitions_that_lines_do_not_tell_are_those_of_the_whole_file(
    tmp_path: Path, kind: str
) -> None:
    assert definitions(UNTOLD[kind]) is None
    assert read(tmp_path, UNTOLD[kind]).method("last") is not None
    module = read(tmp_path, UNTOLD[kind]).module
    assert module.lookup("Not") is None


def test_file_whose_definitions_nobody_can_tell_is_said(tmp_path: Path) -> None:
    file = tmp_path / IN_FILE
    file.parent.mkdir(parents=True)
    file.write_text('# """\nclass A:\n    def f(self): (\n')
    index = Index(open_source(str(tmp_path)), LIBRARY)
    module = index.module(IN_FILE)
    assert module is not None
    assert module.pieces == {}
    assert list(index.unread) == [IN_FILE]


def same(one: ast.AST, other: ast.AST) -> bool:
    """Whether both trees are shown alike. A pickle holds all that is shown, and is far quicker."""
    return pickle.dumps(one) == pickle.dumps(other) or shown(one) == shown(other)


def test_trees_that_are_shown_apart_are_not_the_same() -> None:
    text = REGULAR["plain"]
    assert same(ast.parse(text), ast.parse(text))
    for other in (f"\n{text}", text.replace("x = 1", "x =  1"), text.replace("1", "1.0")):
        assert not same(ast.parse(text), ast.parse(other))


@pytest.mark.network
def test_every_class_of_a_release_is_cut_as_it_is_parsed() -> None:
    with open_source("sglang==0.5.23") as tree:
        index = Index(tree, LIBRARY)
        modules = [index.module(path) for path in tree.under("sglang/srt/models/")]
        classes = [
            cls
            for module in modules
            if module
            for cls in map(module.lookup, module.pieces)
            if isinstance(cls, Class)
        ]
        assert len(classes) > 1000
        for cls in classes:
            functions = (m for m in cls.node.body if isinstance(m, FunctionNode))
            expected = {method.name: method for method in functions}
            assert list(cls.methods) == list(expected)
            for name, method in expected.items():
                assert same(cls.methods[name], method), f"{cls.name}.{name}"
