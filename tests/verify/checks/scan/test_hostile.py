"""Odd and hostile input: a line for what cannot be read, the rest is scanned, nothing is run."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from verify.checks.scan.scan import ScanResult, scan
from verify.engines.sources import open_source
from verify.source.source import MAX_FILE_BYTES, SourceTree

Scan = Callable[..., ScanResult]

UNREADABLE = {
    "not Python": b"this is ( not python: all_reduce(\n  tensor_model_parallel_all_reduce(x\n",
    "Python 2": b"print 'tensor_model_parallel_all_reduce(x)'\n",
    "binary": bytes(range(256)) + b"tensor_model_parallel_all_reduce(",
    "unknown encoding": b"# coding: no-such\nx = tensor_model_parallel_all_reduce(1)\n",
    "one long line": b"x = '" + b"a" * MAX_FILE_BYTES + b"'  # tensor_model_parallel_all_reduce(\n",
}
READABLE = {
    "a BOM": "\ufeffdef f(x):\n    return tensor_model_parallel_all_reduce(x)\n".encode(),
    "tabs": b"def f(x):\n\tif x:\n\t\treturn tensor_model_parallel_all_reduce(x)\n",
    "Windows line ends": b"def f(x):\r\n    return tensor_model_parallel_all_reduce(x)\r\n",
    "latin 1": "# coding: latin-1\n# é\n".encode("latin-1")
    + b"def f(x):\n    return tensor_model_parallel_all_reduce(x)\n",
    "a string that looks like code": b'def f(x):\n    """\nclass Not:\n    """\n'
    b"    return tensor_model_parallel_all_reduce(x)\n",
}


def with_file(source: Callable[..., SourceTree], sample: Any, raw: bytes) -> SourceTree:
    return source(sample.block, sample.layer, library={"models/odd.py": raw})  # type: ignore[dict-item]


@pytest.mark.parametrize("kind", UNREADABLE)
def test_bad_file_costs_a_line(source: Callable[..., SourceTree], sample: Any, kind: str) -> None:
    result = scan(with_file(source, sample, UNREADABLE[kind]))
    assert [s.verdict for s in result.sites if "sample" in s.site.file] == ["covered"]
    assert len(result.unread) == 1
    assert result.unread[0].startswith("sglang/srt/models/odd.py")
    assert "\n" not in result.unread[0]


@pytest.mark.parametrize("kind", READABLE)
def test_odd_file_is_read(source: Callable[..., SourceTree], sample: Any, kind: str) -> None:
    result = scan(with_file(source, sample, READABLE[kind]))
    assert [s.site.method for s in result.sites if "odd" in s.site.file] == ["f"]
    assert result.unread == ()


def test_deep_nesting_ends(source: Callable[..., SourceTree], sample: Any) -> None:
    deep = b"def f(x):\n    return tensor_model_parallel_all_reduce(" + b"(" * 5000 + b")" * 5000
    chain = "def g(x):\n    if x" + " + x" * 5000 + ":\n        return"
    chain += " tensor_model_parallel_all_reduce(x)\n"
    for raw in (deep + b")\n", chain.encode()):
        result = scan(with_file(source, sample, raw))
        assert [s.verdict for s in result.sites if "sample" in s.site.file] == ["covered"]


def test_calls_that_never_end_are_unresolved(scanned: Scan, sample: Any) -> None:
    loop = (
        "\nclass Loop(Layer):\n    def forward(self, positions, hidden_states, batch, residual):\n"
        "        return self.forward(positions, hidden_states, batch, residual)\n"
    )
    result = scanned(sample.block, sample.layer, loop)
    assert any("Loop cannot be followed" in line for line in result.unread)
    assert [s.verdict for s in result.sites] == ["covered"]


# asked for in this order, the pairs have twice as many cases with each of them
WITHOUT_END = f"""
        if {" or ".join(f"batch.a{n}" for n in range(20))}:
            pass
        if {" or ".join(f"batch.a{n} and batch.b{n}" for n in range(20))}:
            pass
"""


def test_condition_that_grows_without_end_is_unresolved(scanned: Scan, sample: Any) -> None:
    fuse = "        if fuse:\n"
    layer = sample.changed(sample.layer, fuse, f"{WITHOUT_END}{fuse}")
    start = time.monotonic()
    result = scanned(sample.block, layer)
    assert time.monotonic() - start < 60
    assert any("Layer cannot be followed: a condition of" in line for line in result.unread)
    # what it reduced before it was given up says nothing about who takes it
    assert [(s.verdict, s.why) for s in result.sites] == [
        ("unresolved", "Layer cannot be followed")
    ]


def test_method_that_cannot_be_followed_is_said(scanned: Scan, sample: Any) -> None:
    end = "        return out\n"
    block = sample.changed(sample.block, end, f"{WITHOUT_END}{end}")
    result = scanned(block, sample.layer)
    assert [site.verdict for site in result.sites] == ["unresolved"]
    assert sum("forward cannot be followed: a condition of" in line for line in result.unread) == 1


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        (
            "def loop():\n    return loop()\n\n\n",
            "should_use_dp_reduce_scatterv cannot be followed: calls nested deeper than 30",
        ),
        (
            f"def loop(batch=None):\n{WITHOUT_END}\n\n",
            "what the flags are cannot be followed: a condition of more than",
        ),
    ],
)
def test_flag_whose_definition_cannot_be_followed_is_free(
    scanned: Scan, sample: Any, definition: str, said: str
) -> None:
    start = "def should_use_dp_reduce_scatterv():\n"
    asks = f"{definition}{start}    if loop():\n        return True\n"
    utils = sample.changed(sample.utils, start, asks)
    # nobody sums: that is wrong unless DP holds always
    block = sample.changed(sample.block, "tensor_model_parallel_all_reduce(out)", "out")
    result = scanned(block, sample.layer, library={"layers/moe/utils.py": utils})
    assert any(said in line for line in result.unread)
    block, predicate = sorted(result.findings, key=lambda each: each.file, reverse=True)
    assert (block.rule, block.row) == ("lost-sum", "0000")
    # which answers yes without asking, whatever `loop` does
    assert (predicate.rule, predicate.method) == ("lost-sum", "should_use_dp_reduce_scatterv")


def test_backends_that_cannot_be_read_cost_a_line(scanned: Scan, sample: Any) -> None:
    broken = sample.changed(sample.utils, "return self == 1", "return self == = 1")
    result = scanned(sample.block, sample.layer, library={"layers/moe/utils.py": broken})
    assert [site.verdict for site in result.sites] == ["covered"]
    assert result.unread == ("sglang/srt/layers/moe/utils.py:7: not Python (invalid syntax)",)


def test_classes_that_inherit_from_each_other(scanned: Scan, sample: Any) -> None:
    circle = "\nclass A(B):\n    pass\n\nclass B(A):\n    pass\n\nclass C(C):\n    pass\n"
    assert scanned(sample.block, sample.layer, circle).findings == ()


def test_nothing_is_executed(scanned: Scan, sample: Any, tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    scanned(sample.block, f"\nopen({str(trap)!r}, 'w')\n", sample.layer)
    assert not trap.exists()


def test_empty_source(tmp_path: Path) -> None:
    (tmp_path / "sglang" / "srt").mkdir(parents=True)
    result = scan(open_source(str(tmp_path)))
    assert (result.sites, result.findings, result.generation) == ((), (), "unknown")


def mutated(text: str, draw: random.Random) -> str:
    """`text` with one line dropped, doubled, swapped or cut, or one character changed."""
    lines = text.splitlines(keepends=True)
    at = draw.randrange(len(lines))
    match draw.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[at])
        case 2:
            other = draw.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            lines[at] = lines[at][: draw.randrange(len(lines[at]) + 1)]
        case 4:
            lines[at] = lines[at].replace("self", draw.choice(("None", "x", "1", "*a", "lambda:")))
        case _:
            spot = draw.randrange(len(text))
            return text[:spot] + draw.choice("()[]:,.=*\n \t'\"#é\0") + text[spot + 1 :]
    return "".join(lines)


def test_mutations_of_the_sample_never_raise(
    source: Callable[..., SourceTree], sample: Any
) -> None:
    draw = random.Random(7)
    text = sample.block + sample.layer
    for _ in range(150):
        broken = mutated(text, draw)
        result = scan(source(broken))
        assert len(result.sites) == sum(result.counts.values()) - len(result.set_aside)
