"""Ranks that go wrong for real: one message, in time, nothing left behind, results kept."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from gpu_tests.pool import LONGEST_TEMPORARY, RankFaultError, rank_pool

pytestmark = [pytest.mark.ranks]

DEADLINE = 3.0
# an item's deadline, a second for the ranks' exit codes, another to stop them, and a busy machine
STATED_SECONDS = DEADLINE + 7

GOOD = ("nothing", -1)

MESSAGES = {
    "raise": "rank 1 raised ValueError: seven experts of eight in case faulty, while experts",
    "out of memory": (
        "rank 1 raised MemoryError: cannot allocate 3 GiB in case faulty, while experts"
    ),
    "kill": "rank 1 was killed by SIGKILL in case faulty, while experts",
    "leave": "rank 1 left early with exit code 3 in case faulty, while experts",
    "hang": "rank 1 hangs: no progress for 3 s in case faulty, while experts",
    "shape": (
        "rank 1 called all-reduce of [3, 4] over ranks 0,1,2 "
        "where the others called all-reduce of [2, 4] over ranks 0,1,2 in case faulty"
    ),
}


def provoke(drill, what: str, *, world_size: int = 3) -> tuple[str, list[int], list[float]]:
    """The message, the rank processes' ids, and the first rank's results until then."""
    results: list[float] = []
    items = [GOOD, GOOD, (what, 1), GOOD]
    with rank_pool(drill, world_size=world_size, deadline=DEADLINE) as pool:
        pids = [child.pid for child in multiprocessing.active_children()]
        begun = time.monotonic()
        answers = pool.run(items, titles=["first", "second", "faulty", "last"])
        with pytest.raises(RankFaultError) as caught:
            results.extend(ranks[0] for _, ranks in answers)
    assert time.monotonic() - begun < STATED_SECONDS
    return str(caught.value), pids, results


def leftovers(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid)]


def shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm"))


@pytest.mark.parametrize("what", MESSAGES)
def test_fault_is_named_in_time_and_nothing_is_left(drill, what):
    before = shared_memory()
    message, pids, results = provoke(drill, what)
    assert message == MESSAGES[what]
    assert results == [3.0, 3.0]
    assert leftovers(pids) == []
    assert not [c for c in psutil.Process().net_connections() if c.status == "LISTEN"]
    # other tests of this machine may hold shared memory of their own, but not torch's
    assert not {name for name in shared_memory() - before if "torch" in name}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("what", MESSAGES)
def test_twenty_times_without_a_flake(drill, what):
    for _ in range(20):
        message, pids, results = provoke(drill, what)
        assert message == MESSAGES[what]
        assert results == [3.0, 3.0]
        assert leftovers(pids) == []


def test_a_fault_does_not_reach_the_next_pool(drill):
    provoke(drill, "kill", world_size=2)
    with rank_pool(drill, world_size=2, deadline=DEADLINE) as pool:
        assert [ranks for _, ranks in pool.run([GOOD], titles=["after"])] == [[2.0, 2.0]]


def test_one_start_serves_several_runs(drill):
    with rank_pool(drill, world_size=2, deadline=DEADLINE) as pool:
        for _ in range(2):
            assert [n for n, _ in pool.run([GOOD] * 3, titles=["case"] * 3)] == [0, 1, 2]


def test_ranks_leave_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import multiprocessing\n"
        "from drills import drill\n"
        "from gpu_tests.pool import rank_pool\n"
        "if __name__ == '__main__':\n"
        "    with rank_pool(drill, world_size=2) as pool:\n"
        "        print(*[c.pid for c in multiprocessing.active_children()], flush=True)\n"
        "        list(pool.run([('hang', 1)], titles=['hangs']))\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    limit = time.monotonic() + 10
    while leftovers(pids) and time.monotonic() < limit:
        time.sleep(0.1)
    assert leftovers(pids) == []


@pytest.mark.parametrize("length", [LONGEST_TEMPORARY, LONGEST_TEMPORARY + 1])
def test_a_temporary_folder_with_a_long_path_is_no_reason_to_stop(length):
    """A socket's path is short: ranks start another way where it does not fit."""
    words = ("--world-size", "1", "--model", "qwen3_moe", "--dtype", "float32", "-q")
    # pytest's own folder may be longer than the shortest of these already
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        folder = Path(short, "x" * (length - len(short) - 1))
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-m", "gpu_tests", *words, "--format", "concise"],
            env={**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
