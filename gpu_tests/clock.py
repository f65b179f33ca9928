"""How long something takes on a device: events on a GPU, the wall clock on a CPU.

In eager mode a small collective costs its launch, not the wire. Engines decode inside CUDA graphs:
what they see is a replay.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from statistics import median

import torch

WARM_UP = 5
REPEATS = 20
# steps in one captured graph, so that starting the replay is shared out
CAPTURED = 10

Step = Callable[[], object]
# what stands for all turns: their median, or for a bound the fastest
Choose = Callable[[Iterable[float]], float]


def timings(
    steps: Mapping[str, Step], device: torch.device, *, choose: Choose = median
) -> dict[str, float]:
    """Microseconds of each step by its name, and under `NAME eager` as launched one by one.

    On a GPU the first is a replay inside a CUDA graph; on a CPU both are the same figure. The
    steps take turns, so that a machine that grows slower is slower for all of them. All ranks of
    a collective time the same steps in the same order.
    """
    eager = taking_turns(steps, device, choose=choose)
    times = eager
    if device.type == "cuda":
        graphs = {name: _captured(step, device).replay for name, step in steps.items()}
        times = {
            name: time / CAPTURED
            for name, time in taking_turns(graphs, device, choose=choose).items()
        }
    return {**times, **{f"{name} eager": time for name, time in eager.items()}}


def taking_turns(
    steps: Mapping[str, Step], device: torch.device, *, choose: Choose = median
) -> dict[str, float]:
    """Each step's time in microseconds, after a few turns to warm up (and to compile)."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARM_UP + REPEATS):
        for name, step in steps.items():
            time = _once(step, device)
            if turn >= WARM_UP:
                times[name].append(time)
    return {name: choose(each) for name, each in times.items()}


def _captured(step: Step, device: torch.device) -> torch.cuda.CUDAGraph:
    """A CUDA graph of several `step`s. It must have run before."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream(device).wait_stream(stream)
    torch.cuda.synchronize(device)
    with torch.cuda.graph(graph):
        for _ in range(CAPTURED):
            step()
    return graph


def _once(step: Step, device: torch.device) -> float:
    watch = Stopwatch(device=device)
    with watch:
        step()
    return watch.total()


class Stopwatch:
    """Adds up the time inside its `with` blocks, without waiting for the device in between."""

    def __init__(self, *, device: torch.device) -> None:
        self._device = device
        self._pairs: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._seconds = 0.0
        self._begun = 0.0

    def __enter__(self) -> None:
        if self._device.type == "cuda":
            begin = torch.cuda.Event(enable_timing=True)
            begin.record()
            self._pairs.append((begin, torch.cuda.Event(enable_timing=True)))
        else:
            self._begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self._device.type == "cuda":
            self._pairs[-1][1].record()
        else:
            self._seconds += time.perf_counter() - self._begun

    def total(self) -> float:
        """Microseconds so far; waits for the device."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        milliseconds: float = sum(begin.elapsed_time(end) for begin, end in self._pairs)
        return milliseconds * 1e3 + self._seconds * 1e6
