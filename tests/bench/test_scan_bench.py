"""How long the scan of a whole release takes, as a ratio to parsing it; prints, never fails."""

import ast
import gc
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import pytest

from verify.scan.primitives import COLLECTIVES, PRODUCER
from verify.scan.scan import scan
from verify.source import open_source

VERSION = "0.5.23"
RUNS = 3

pytestmark = [pytest.mark.bench, pytest.mark.network]


def fastest(work: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS):
        # what an earlier measurement left behind is not this one's cost
        gc.collect()
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def parse(texts: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for text in texts:
            ast.parse(text)


def test_time_as_a_ratio_to_parsing() -> None:
    with open_source(f"sglang=={VERSION}") as tree:
        paths = tree.under("sglang/srt/models/") + tree.under("sglang/srt/layers/")
        texts = [tree.read(path) for path in paths]
        words = (*PRODUCER, *COLLECTIVES)
        mention = [text for text in texts if any(word in text for word in words)]
        some, everything = fastest(lambda: parse(mention)), fastest(lambda: parse(texts))
        scanning = fastest(lambda: scan(tree))
    print(
        f"\nscan of {VERSION}: {scanning / some:.2f} x ast.parse of the {len(mention)} files that "
        f"mention a reduction, {scanning / everything:.2f} x of all {len(texts)}"
    )


def test_peak_memory() -> None:
    code = (
        "import resource, sys\nfrom verify._cli import main\n"
        f"main(['scan', 'sglang=={VERSION}', '-q', '--output', '/dev/null'])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True
    )
    print(f"\nscan of {VERSION}: {done.stdout.strip()} MiB at the most")
