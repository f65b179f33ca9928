"""Python's cycle collector, paused while a lot is built that stays."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Leave the cycle collector off inside: syntax trees and conditions are no garbage.

    It would walk them again and again, for a quarter of the whole time; what a run is done with
    goes without it, because conditions and states hold no reference to themselves.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
