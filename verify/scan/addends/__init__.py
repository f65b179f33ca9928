"""Rules about what is added into a partial sum: is the addend of the right kind?

A value that every rank holds in full must not go into a sum that is completed later; a value that
is sharded must not stay where nobody completes its sum. Run by `verify.scan.layers` on each layer.
"""

from verify.scan.addends.findings import Addends
from verify.scan.addends.judge import Fault, Judge, known_backends
from verify.scan.addends.machine import AddendMachine

__all__ = ["AddendMachine", "Addends", "Fault", "Judge", "known_backends"]
