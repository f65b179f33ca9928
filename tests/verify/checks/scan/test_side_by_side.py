"""Several processes give what one gives; what a copy does not bring back is done all the same.

Each test is a process of its own: one with threads, as a test worker may be, is never copied.
"""

import json
import subprocess
import sys
import textwrap
import time
import zipfile
from ast import literal_eval
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest

from verify.checks.scan.scan import scan
from verify.checks.scan.side_by_side import side_by_side
from verify.engines.sources import open_source

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="copies are made on Linux only")

START = """
import os, signal, sys, threading, time
from verify.checks.scan import side_by_side as module
from verify.checks.scan.side_by_side import side_by_side
module._free_cores = lambda: 3
HERE = os.getpid()
"""
ITEMS = list(range(8))
END = """
with side_by_side(of, range(8), what="items done") as results:
    print(results())
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no child left")
"""
FAILURES = {
    "is killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "raises": "raise ValueError",
    "ends": "os._exit(0)",
    "hangs": "time.sleep(600)",
    "has a result that cannot be sent": "return lambda: None",
}


def printed(code: str, *arguments: str) -> list[str]:
    """What a process that runs `code` prints; nothing may come on standard error."""
    command = [sys.executable, "-c", START + textwrap.dedent(code), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_results_are_in_order_and_from_several_processes() -> None:
    code = "def of(item):\n    time.sleep(0.05)\n    return item, os.getpid()\n" + END
    results, children = printed(code)
    pairs = literal_eval(results)
    assert [item for item, _ in pairs] == ITEMS
    assert len({process for _, process in pairs}) > 1
    assert children == "no child left"


@pytest.mark.parametrize("failure", FAILURES)
def test_what_a_copy_does_not_bring_back_is_done_here(failure: str) -> None:
    code = f"""
module.PATIENCE = 0.3
def of(item):
    if os.getpid() != HERE:
        {FAILURES[failure]}
    time.sleep(0.02)
    return item
"""
    assert printed(code + END) == [str(ITEMS), "no child left"]


def test_copy_that_cannot_be_made() -> None:
    code = """
    def no_room():
        raise BlockingIOError("resource temporarily unavailable")
    os.fork = no_room
    def of(item):
        return item
    """
    assert printed(textwrap.dedent(code) + END) == [str(ITEMS), "no child left"]


def test_what_fails_everywhere_fails_here() -> None:
    code = """
    def of(item):
        raise ValueError(f"not {item}")
    try:
        with side_by_side(of, range(8), what="items done") as results:
            results()
    except ValueError as error:
        print(error)
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        print("no child left")
    """
    said, children = printed(code)
    assert said.startswith("not ")
    assert children == "no child left"


def test_copies_end_when_the_process_that_made_them_is_killed() -> None:
    code = """
    def of(item):
        if item == 0:
            return "before there are copies"
        time.sleep(0.1)
        if os.getpid() == HERE:
            os.kill(HERE, signal.SIGKILL)
        os.write(1, f"{os.getpid()}\\n".encode())
        return "x" * 1_000_000
    with side_by_side(of, range(8), what="items done") as results:
        results()
    """
    copies = {int(line) for line in printed(code)}
    assert copies
    ends = time.monotonic() + 20
    while any(map(psutil.pid_exists, copies)) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, copies))


def test_process_with_threads_is_not_copied() -> None:
    code = """
    from importlib import reload
    reload(module)
    print(module._free_cores() == len(os.sched_getaffinity(0)))
    threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
    print(module._free_cores())
    """
    assert printed(code) == ["True", "1"]


def test_nothing_to_do() -> None:
    with side_by_side(len, [], what="items done") as results:
        assert results() == []


@pytest.fixture
def wheel(sample: Any, tmp_path: Path) -> Path:
    """A wheel with five layers, the last of which asks for a file that cannot be read."""
    fuse = "        if fuse:\n"
    asks = sample.changed(sample.layer, fuse, f"        helper(hidden_states)\n{fuse}")
    asks = "from sglang.srt.layers.odd import helper\n" + asks
    layers = {f"models/sample{n}.py": sample.layer for n in range(4)} | {"models/zz.py": asks}
    models = {name: sample.head + sample.block + layer for name, layer in layers.items()}
    files = {**sample.library, **models, "layers/odd.py": "# coding: odd\n"}
    path = tmp_path / "sglang-0.5.99-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(f"sglang/srt/{name}", text)
    return path


def plain(result: Any) -> Any:
    return json.loads(json.dumps(asdict(result), default=str))


def test_scan_is_the_same_in_one_process_and_in_several(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
    import json
    from dataclasses import asdict
    from verify.checks.scan import scan
    from verify.engines.sources import open_source
    def slowly(items, *, what):
        time.sleep(0.5)
        yield from items
    # the copies take all of it
    module.track = slowly
    with open_source(sys.argv[1]) as tree:
        print(json.dumps(asdict(scan.scan(tree)), default=str))
    """
    (several,) = printed(code, str(wheel))
    monkeypatch.setattr("verify.checks.scan.side_by_side._free_cores", lambda: 1)
    with open_source(str(wheel)) as tree:
        alone = scan(tree)
    assert alone.layers == 5
    assert any("odd.py" in line for line in alone.unread)
    assert json.loads(several) == plain(alone)
