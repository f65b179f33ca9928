"""How long the scan of a whole release takes, as a ratio to parsing it; prints, never fails.

Every measurement is a process of its own: nothing that another one left behind, syntax trees least
of all, costs this one time or memory.
"""

import subprocess
import sys

import pytest

from verify.source import open_source

VERSION = "0.5.23"
RUNS = 3

PARSE = """
import ast, sys, time, warnings
from verify.scan.primitives import COLLECTIVES, PRODUCER
from verify.source import open_source
warnings.simplefilter("ignore")
words = (*PRODUCER, *COLLECTIVES) if sys.argv[2] == "mention" else ("",)
with open_source(sys.argv[1]) as tree:
    paths = tree.under("sglang/srt/models/") + tree.under("sglang/srt/layers/")
    paths = tree.paths if sys.argv[2] == "tree" else paths
    texts = [text for text in map(tree.read, paths) if any(word in text for word in words)]
start = time.process_time()
for text in texts:
    ast.parse(text)
print(time.process_time() - start)
"""
SCAN = """
import sys, time
from verify.scan.scan import scan
from verify.source import open_source
start = time.process_time()
with open_source(sys.argv[1]) as tree:
    scan(tree)
print(time.process_time() - start)
"""
PEAK = """
import resource, sys
from verify._cli import main
main(["scan", sys.argv[1], "-q", "--output", "/dev/null"])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""

pytestmark = [pytest.mark.bench, pytest.mark.network]


def measured(code: str, *arguments: str) -> float:
    """What a process that runs `code` on the release prints last."""
    command = [sys.executable, "-c", code, f"sglang=={VERSION}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    return float(done.stdout.split()[-1])


def fastest(code: str, *arguments: str) -> float:
    return min(measured(code, *arguments) for _ in range(RUNS))


def test_time_as_a_ratio_to_parsing() -> None:
    # fetched once, so that no measurement waits for the network
    open_source(f"sglang=={VERSION}").close()
    mention, layers, tree = (fastest(PARSE, which) for which in ("mention", "layers", "tree"))
    scanning = fastest(SCAN)
    print(
        f"\nscan of {VERSION}: {scanning / mention:.2f} x ast.parse of the files that mention a "
        f"reduction, {scanning / layers:.2f} x of all models and layers, "
        f"{scanning / tree:.2f} x of the whole tree"
    )


def test_peak_memory() -> None:
    print(f"\nscan of {VERSION}: {measured(PEAK):.0f} MiB at the most")
