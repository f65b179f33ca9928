"""What keeps third-party code in its place: limits, no network, one folder to write to.

Applied by the child process to itself before it loads anything of a source. It bounds accidents
and carelessness; it is no wall against code written to break out of an interpreter.
"""

import ctypes
import os
import resource
import sys
from collections.abc import Collection
from pathlib import Path

MEMORY_BYTES = 12 << 30
FILE_BYTES = 16 << 20
CPU_SECONDS = 1800

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_REFUSED = (
    ("socket.", "the network"),
    ("subprocess.Popen", "a program"),
    ("os.system", "a program"),
    ("os.exec", "a program"),
    ("os.posix_spawn", "a program"),
    ("os.fork", "a process"),
    ("os.kill", "a signal"),
)
_ON_PATHS = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod")


def leave_network(
    *, otherwise: str = "refused by an audit hook (no network namespace can be made here)"
) -> str:
    """Move into a network of its own with nothing in it; says what is in force.

    To be called while the process has one thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_USER | _NEW_NET) == 0 or libc.unshare(_NEW_NET) == 0:
        return "an empty network namespace"
    return otherwise


def limit(*, file_bytes: int = FILE_BYTES) -> None:
    """Bound memory, processor time and the size of files."""
    for kind, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (value, value))


def refuse(*, scratch: Path, allow: Collection[str] = (), programs: Collection[str] = ()) -> None:
    """From now on, refuse programs, sockets, and writing anywhere but under `scratch`.

    `allow` are the events of `_REFUSED` that are not; `programs` may be run, by these names.
    """
    folder = f"{scratch.resolve()}{os.sep}"
    refused = {prefix: what for prefix, what in _REFUSED if prefix not in allow}
    prefixes = tuple(refused)

    def audit(event: str, details: tuple[object, ...]) -> None:
        # asked at every `id`, `exec` and import: of nearly all it is one question
        if event.startswith(prefixes):
            what = next(refused[prefix] for prefix in prefixes if event.startswith(prefix))
            if not (event == "subprocess.Popen" and details[0] in programs):
                raise PermissionError(f"the source asked for {what} ({event}): refused")
        if event in _ON_PATHS and not _below(details[0], folder):
            raise PermissionError(f"the source would change {details[0]!r}: refused")
        if event == "open" and _writes(details) and not _below(details[0], folder):
            raise PermissionError(f"the source would write {details[0]!r}: refused")

    sys.addaudithook(audit)


def _writes(details: tuple[object, ...]) -> bool:
    flags = details[2] if len(details) > 2 else 0
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _below(path: object, folder: str) -> bool:
    if isinstance(path, int):
        return True  # a descriptor: it was opened before
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    # makedirs asks for the folder itself
    return isinstance(path, str) and (
        f"{os.path.realpath(path)}{os.sep}".startswith(folder) or path == os.devnull
    )
