"""How long the scan of a whole release takes, as a ratio to parsing it; prints, never fails.

Every measurement is a process of its own: nothing that another one left behind, syntax trees least
of all, costs this one time or memory. The scan shares its layers out over the cores, parsing has
one: the ratio is told in the time that passes and in the processor time of all processes.
"""

import os
import subprocess
import sys

import pytest

from verify.engines.sources import open_source

VERSION = "0.5.23"
RUNS = 3
PARSED = {
    "mention": "the files that mention a reduction",
    "layers": "all models and layers",
    "tree": "all that the scan opens",
    "release": "every file of the release",
}

PARSE = """
import ast, sys, time, warnings
from verify.engines.sglang.vocabulary import COLLECTIVES, PRODUCER
from verify.engines.sources import open_source
warnings.simplefilter("ignore")
words = (*PRODUCER, *COLLECTIVES) if sys.argv[2] == "mention" else ("",)
with open_source(sys.argv[1], below="" if sys.argv[2] == "release" else None) as tree:
    paths = tree.under("sglang/srt/models/") + tree.under("sglang/srt/layers/")
    paths = tree.paths if sys.argv[2] in ("tree", "release") else paths
    texts = [text for text in map(tree.read, paths) if any(word in text for word in words)]
start, used = time.perf_counter(), time.process_time()
for text in texts:
    ast.parse(text)
print(time.perf_counter() - start, time.process_time() - used)
"""
SCAN = """
import os, sys, time
from verify.checks.scan.scan import scan
from verify.engines.sources import open_source
start, used = time.perf_counter(), sum(os.times()[:4])
with open_source(sys.argv[1]) as tree:
    scan(tree)
print(time.perf_counter() - start, sum(os.times()[:4]) - used)
"""
PEAK = """
import resource, sys
from verify.cli.command_line import main
main(["scan", sys.argv[1], "-q", "--output", "/dev/null"])
own, largest = (resource.getrusage(who).ru_maxrss // 1024 for who in (0, -1))
print(own, largest)
"""

pytestmark = [pytest.mark.bench, pytest.mark.network]


def measured(code: str, *arguments: str) -> tuple[float, float]:
    """The two numbers that a process that runs `code` on the release prints."""
    command = [sys.executable, "-c", code, f"sglang=={VERSION}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    first, second = map(float, done.stdout.split())
    return first, second


def fastest(code: str, *arguments: str) -> tuple[float, float]:
    """The least of each, seconds that pass and seconds of processors."""
    wall, used = zip(*(measured(code, *arguments) for _ in range(RUNS)), strict=True)
    return min(wall), min(used)


def test_time_as_a_ratio_to_parsing() -> None:
    # fetched once, so that no measurement waits for the network
    open_source(f"sglang=={VERSION}").close()
    scanning = fastest(SCAN)
    print(f"\nscan of {VERSION}, cores: {len(os.sched_getaffinity(0))}")
    for which, what in PARSED.items():
        wall, used = (a / b for a, b in zip(scanning, fastest(PARSE, which), strict=True))
        print(f"  {wall:.2f} x ast.parse of {what} ({used:.2f} x in processor time)")


def test_peak_memory() -> None:
    own, largest = measured(PEAK)
    print(f"\nscan of {VERSION}: {own:.0f} MiB at the most, each copy {largest:.0f} MiB")
