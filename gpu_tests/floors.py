"""What no step can be faster than, from the smallest and largest calls of the same run."""

from collections.abc import Iterable
from dataclasses import dataclass

from gpu_tests.timing import Choice, Floor, Item, Share, Step, Timings, norm_of, padded


@dataclass(frozen=True, kw_only=True)
class Floors:
    """This run's bounds: each step's `latency`, the `rate` of a link in bytes a microsecond.

    The latency is that of a call with next to nothing in it: a number a rank, or (the fused norm) a
    row of as many numbers as the second of its key says. The rate is bus bandwidth as NCCL's
    own tests define it (an all-reduce over n ranks carries 2 (n - 1) / n of its bytes on each
    link, a gather or a scatter half of that), the best that any step reached.
    """

    latency: dict[tuple[Step, int], float]
    rate: float
    ranks: int

    @classmethod
    def measured(cls, floors: Iterable[tuple[Floor, Timings]], ranks: int) -> "Floors":
        """From the smallest and the largest call of each step."""
        latency: dict[tuple[Step, int], float] = {}
        rate = 0.0
        for item, timings in floors:
            latency[smallest(item.step, item.hidden)] = timings["empty"]
            size = padded(item.rows, ranks) * item.hidden * WIDTH[item.dtype]
            rate = max(rate, carried(item.step, size, ranks) / timings["large"])
        return cls(latency=latency, rate=rate, ranks=ranks)

    def step(self, step: Step, size: int, *, hidden: int) -> float:
        """Microseconds of one step on `size` bytes: its latency or the link, what takes longer."""
        if self.ranks == 1:
            return 0.0
        return max(
            self.latency[smallest(step, hidden)], carried(step, size, self.ranks) / self.rate
        )

    def of(self, item: Item, timings: Timings) -> float | None:
        """The floor of a measured step; of a choice's right one; None of a floor itself.

        A layer's is its experts, as they were timed by themselves, and the floor of its two sums.
        """
        match item:
            case Floor():
                return None
            case Share():
                size = item.tokens * item.hidden * WIDTH[item.dtype]
                return timings["experts"] + 2 * self.step("all-reduce", size, hidden=item.hidden)
            case Choice():
                steps = steps_of(item, self.ranks)
            case _:
                steps = (item.collective,)
        size = padded(item.tokens, self.ranks) * item.hidden * WIDTH[item.dtype]
        return sum(self.step(each, size, hidden=item.hidden) for each in steps)


def smallest(step: Step, hidden: int) -> tuple[Step, int]:
    """The key of a step's latency: of the fused norm, rows are as wide as the model."""
    return (step, hidden if step == "fused norm" else 1)


def carried(step: Step, size: int, ranks: int) -> float:
    """Bytes on each rank's link, whatever the algorithm."""
    rounds = 1 if step in ("all-gather", "reduce-scatter") else 2
    return rounds * (ranks - 1) / ranks * size


def steps_of(item: Choice, ranks: int) -> tuple[Step, ...]:
    """What completes the sum in a row."""
    match item.row:
        case "0001":
            return ("all-gather", "reduce-scatter")
        case "0010" | "0100":
            return ("reduce-scatter",)
        case "1000" if norm_of(item, ranks) == "flashinfer":
            return ("fused norm",)
    # in row 0000 nobody sums but the block: what is measured is its own
    return ("all-reduce",)


WIDTH = {"float32": 4, "bfloat16": 2}
