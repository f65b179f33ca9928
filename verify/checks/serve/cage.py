"""What keeps a served engine in its place: replay's limits, and no network but its own loopback.

Applied by the engine's process to itself before it imports anything of a source; its ranks inherit
it. It bounds accidents and carelessness; it is no wall against code written to break out of an
interpreter. Standard library only.
"""

import fcntl
import socket
import struct
from collections.abc import Collection
from pathlib import Path

from verify.emulator import cage

# what ranks are and do: processes of ours that talk to each other, and are ended by us
NEEDED = ("socket.", "os.fork", "os.kill")
# ranks share memory, which counts as files
FILE_BYTES = 1 << 30
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 1  # linux/sockios.h, linux/if.h


def enter(*, scratch: Path, programs: Collection[str] = ()) -> str:
    """Be caged, with `scratch` to write to and `programs` to run; says what became of the network.

    To be called while the process has one thread.
    """
    network = cage.leave_network(otherwise="the machine's (no network namespace can be made here)")
    if network.startswith("an empty"):
        _raise_loopback()
        network = "loopback only"
    cage.limit(file_bytes=FILE_BYTES)
    cage.refuse(scratch=scratch, allow=NEEDED, programs=programs)
    return network


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh22x", b"lo", 0)
        answer = fcntl.ioctl(any_socket, GET_FLAGS, request)
        flags = struct.unpack("16sh22x", answer)[1]
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sh22x", b"lo", flags | UP))
