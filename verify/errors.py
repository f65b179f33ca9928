"""What stops a command: one line for the person, exit code 2."""

import sys
from contextlib import suppress


class VerifyError(Exception):
    """Says in one line what was wrong, where, and what to do."""


def interrupted() -> int:
    """Say so; the exit code, which is then this process's.

    Where an interrupt met text that is executed (a dataclass while it is made), Python would end
    the process by the signal, although the interrupt was caught; text that ends undoes that.
    """
    exec("")
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write("verify: interrupted\n")
    return 2
