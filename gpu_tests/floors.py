"""What no collective can be faster than, measured in the same run as the collectives."""

from dataclasses import dataclass

from gpu_tests.timing import Choice, Floor, Item, Share, Timings


@dataclass(frozen=True, kw_only=True)
class Floors:
    """This run's bounds: `latency` of an empty collective, `rate` of a link in bytes a microsecond.

    The rate is bus bandwidth as NCCL's own tests define it: an all-reduce over n ranks carries
    2 (n - 1) / n of its bytes on each link, a gather or a scatter half of that.
    """

    latency: float
    rate: float
    ranks: int

    @classmethod
    def measured(cls, item: Floor, timings: Timings, ranks: int) -> "Floors":
        """From the two all-reduces of `item`."""
        size = item.elements * WIDTH[item.dtype]
        carried = 2 * (ranks - 1) / ranks * size
        return cls(latency=timings["empty"], rate=carried / timings["large"], ranks=ranks)

    def collective(self, rounds: int, size: int) -> float:
        """Microseconds of one collective on `size` bytes; an all-reduce has two rounds."""
        if self.ranks == 1:
            return 0.0
        carried = rounds * (self.ranks - 1) / self.ranks * size
        return max(self.latency, carried / self.rate)

    def of(self, item: Item) -> float | None:
        """The floor of a measured step, of a choice's right one; None where compute is in it."""
        if isinstance(item, Share | Floor):
            return None
        size = item.tokens * item.hidden * WIDTH[item.dtype]
        rounds = ROUNDS_OF[item.row if isinstance(item, Choice) else item.collective]
        return sum(self.collective(each, size) for each in rounds)


WIDTH = {"float32": 4, "bfloat16": 2}
# of the collectives that a step has: two for an all-reduce, one for a gather or a scatter
ROUNDS_OF: dict[str, tuple[int, ...]] = {
    # nobody sums but the block: what is measured is its own
    "0000": (2,),
    "0001": (1, 1),
    "0010": (1,),
    "0100": (1,),
    "1000": (2,),
    "all-reduce": (2,),
    "all-gather": (1,),
    "reduce-scatter": (1,),
}
