"""No file outside `engines/` and the pull request's check names anything of an engine.

The names are the engines' own, read from them: what they are called and what can be fetched, their
servers' options about ranks, their environment, and every name in what their libraries say. What a
rule quotes as its example is a source's line and no name of ours.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from verify.engines import sources
from verify.engines.registry import engines
from verify.engines.sglang import vocabulary
from verify.logic.flags import flag_names

ROOT = Path(__file__).parents[2] / "verify"
EXEMPT = ("engines/", "checks/pull_request/")
# words of the field or of PyTorch, which engines use as well, and a key of a deployment in JSON
SHARED = frozenset(
    {
        *vocabulary.SIZES.values(),
        *vocabulary.GROUP_METHODS,
        "world_size",
        "is_none",
        vocabulary.ALLOW,
    }
)
WORD = re.compile(r"[A-Za-z_]\w+")
OF_CODE = re.compile(r"[a-z]_+[a-z]|[a-z][A-Z]|[A-Z]{2}[a-z]")


def words(value: object) -> Iterator[str]:
    """The names in a constant: words of code (`tp_group`, `FusedMoE`) and not of English."""
    if isinstance(value, str):
        yield from (word for word in WORD.findall(value) if OF_CODE.search(word))
    elif isinstance(value, Iterable):
        # of a mapping its keys
        for item in value:
            yield from words(item)


def names() -> frozenset[str]:
    found = {sources.package().inside}
    for engine in engines():
        found |= {engine.name, engine.package, *engine.distributions, *engine.parallel}
        found |= {name for name in engine.variables if name.lower().startswith(engine.name)}
    constants = (value for name, value in vars(vocabulary).items() if name.isupper())
    return frozenset(found | set(words(constants))) - SHARED


NAMES = names()
FLAG = "|".join(flag_names())
NAMED = re.compile(
    rf"(?<![\w-])(?i:{'|'.join(engine.name for engine in engines())})(?!\w)"
    rf"|(?<![\w-])(?:{'|'.join(sorted(map(re.escape, NAMES)))})(?![\w-])"
    rf"|[\"'](?:{FLAG})[\"']"
)


def named(text: str) -> set[str]:
    return set(NAMED.findall(text))


def files() -> dict[str, str]:
    paths = ((path.relative_to(ROOT).as_posix(), path) for path in sorted(ROOT.rglob("*.py")))
    return {
        name: without_example(text) if "/rules/" in name else text
        for name, path in paths
        if not name.startswith(EXEMPT)
        for text in [path.read_text(encoding="utf-8")]
    }


def without_example(text: str) -> str:
    """A rule's file less the lines of its `example=`."""
    lines = text.splitlines(keepends=True)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.keyword) and node.arg == "example":
            assert node.end_lineno is not None
            lines[node.lineno - 1 : node.end_lineno] = ["\n"] * (node.end_lineno - node.lineno + 1)
    return "".join(lines)


def test_no_file_names_an_engine() -> None:
    found = {name: named(text) for name, text in files().items()}
    assert {name: sorted(said) for name, said in found.items() if said} == {}


def test_it_looks_at_every_folder() -> None:
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert {name.partition("/")[0] for name in files()} >= folders - {"engines"}


@pytest.mark.parametrize(
    "line",
    [
        "x = tensor_model_parallel_all_reduce(x)",
        "if cls.named('FusedMoE'):",
        "# as SGLang does",
        "arguments = ['--enable-dp-attention']",
        "path = 'srt/models'",
        "import verify.engines.vllm.serving",
        "flag = 'AF'",
    ],
)
def test_a_name_is_noticed(line: str) -> None:
    assert named(line)


def test_only_a_rules_example_may_quote() -> None:
    rule = 'RULE = Rule(\n    why="{}",\n    example=Example(\n        wrong="{}",\n    ),\n)\n'
    assert named(without_example(rule.format("FusedMoE", "oak"))) == {"FusedMoE"}
    assert not named(without_example(rule.format("oak", "FusedMoE")))


@pytest.mark.parametrize("line", ["the DP row", "torch.distributed.all_reduce(x)", "tp_size > 1"])
def test_the_fields_own_words_are_free(line: str) -> None:
    assert not named(line)
