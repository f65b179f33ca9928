"""On the GPUs of one host, over NCCL: ranks that go wrong, torchrun, and gloo beside it.

Skipped with a word where the machine has fewer than two GPUs.
"""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from gpu_tests._cli import main
from gpu_tests.pool import RankFaultError, rank_pool

GPUS = torch.cuda.device_count()

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.timeout(600),
    pytest.mark.skipif(GPUS < 2, reason=f"needs two GPUs, this machine has {GPUS}"),
]

ROOT = Path(__file__).parents[2]
DEADLINE = 15.0
# a context and NCCL's buffers take hundreds of MiB on a GPU; an idle driver's figure moves by a few
A_RANK_MIB = 200
IDLE_MIB = 64

MESSAGES = {
    "raise": "rank 1 raised ValueError: seven experts of eight in case faulty, while experts",
    "kill": "rank 1 was killed by SIGKILL in case faulty, while experts",
    "hang": "rank 1 hangs: no progress for 15 s in case faulty, while experts",
}


def memory_in_use() -> list[int]:
    """MiB in use on each GPU: what a container's nvidia-smi shows where it lists no processes."""
    query = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits")
    said = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)
    return [int(line) for line in said.stdout.split()][:GPUS]


def added(before: list[int]) -> list[int]:
    """MiB more than `before` on each GPU."""
    return [now - then for now, then in zip(memory_in_use(), before, strict=True)]


@pytest.mark.parametrize("what", MESSAGES)
def test_fault_on_gpus_is_named_in_time_and_nothing_is_left(drill, what, capsys):
    before = memory_in_use()
    items = [("nothing", -1), (what, 1), ("nothing", -1)]
    with rank_pool(drill, world_size=GPUS, backend="nccl", deadline=60.0) as pool:
        # the first case starts GPU libraries; the deadline of the fault is its own pool's
        list(pool.run(items[:1], titles=["first"]))
        running = added(before)
    assert min(running) > A_RANK_MIB, f"nvidia-smi does not see running ranks: {running} MiB"
    with rank_pool(drill, world_size=GPUS, backend="nccl", deadline=DEADLINE) as pool:
        pids = [child.pid for child in multiprocessing.active_children()]
        answers = pool.run(items, titles=["first", "faulty", "last"])
        _, ranks = next(answers)
        begun = time.monotonic()
        with pytest.raises(RankFaultError) as caught:
            list(answers)
    took = time.monotonic() - begun
    assert str(caught.value) == MESSAGES[what]
    assert ranks[0] == GPUS
    assert took < DEADLINE + 15
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    left = added(before)
    assert max(left) < IDLE_MIB, f"left on the GPUs: {left} MiB"
    with capsys.disabled():
        print(f"\n{what}: named after {took:.0f} s; ranks held {running} MiB, then {left} MiB")


def report(output: Path, *words: str, start: tuple[str, ...] = ()) -> Path:
    """What `python -m gpu_tests` said of one model on all GPUs' ranks, as JSON in `output`."""
    words = ("--model", "qwen3_moe", *words, "--format", "json", "-q", "--output", str(output))
    if not start:
        assert main(("--world-size", str(GPUS), *words)) == 0
    else:
        command = (sys.executable, *start, "-m", "gpu_tests", *words)
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, timeout=300, cwd=ROOT, env=env)
    return output


def test_torchrun_on_gpus_gives_the_same_report(tmp_path, without_rounding):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(GPUS))
    alone = report(tmp_path / "alone.json", "--backend", "nccl")
    together = report(tmp_path / "together.json", "--backend", "nccl", start=torchrun)
    assert without_rounding(together)["cases"] == without_rounding(alone)["cases"]


def test_gloo_and_nccl_agree_case_by_case(tmp_path, without_rounding):
    nccl, gloo = (
        report(tmp_path / f"{backend}.json", "--backend", backend, "--norm", "torch")
        for backend in ("nccl", "gloo")
    )
    assert without_rounding(gloo)["cases"] == without_rounding(nccl)["cases"]
