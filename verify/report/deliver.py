"""Where output goes: standard output, or a file that is whole or not there at all."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from verify.errors import VerifyError

PLAIN = str.maketrans({"─": "-", "━": "-", "│": "|", "—": "-", "…": "...", "→": "->"})


def check_outputs(outputs: Sequence[Path | None]) -> None:
    """Raise `VerifyError` for what could not be written to, before any work is done.

    None stands for standard output.
    """
    seen: set[Path] = set()
    for output in outputs:
        if output is None:
            if sys.stdout is None:
                raise VerifyError("standard output is closed; give --output FILE")
            continue
        why = _unwritable(output)
        if why:
            raise VerifyError(f"cannot write {output}: {why}")
        place = output.resolve()
        if place in seen and not (output.exists() and not output.is_file()):
            raise VerifyError(f"cannot write {output}: two outputs would be one file")
        seen.add(place)


def _unwritable(output: Path) -> str | None:
    if str(output) == "-":
        return "standard output is where --format goes without --output; a file of that name is ./-"
    if output.is_dir():
        return "Is a directory"
    # a file is replaced, which its folder must allow; what is none is written to
    place = output if output.exists() and not output.is_file() else output.resolve().parent
    if not place.exists():
        return "No such file or directory"
    if place == output.resolve().parent and not place.is_dir():
        return "Not a directory"
    return None if os.access(place, os.W_OK) else "Permission denied"


def deliver(text: str, *, output: Path | None) -> None:
    """Write `text` to the file, or to standard output without one.

    What is not a regular file (a device, a pipe) is written to as it is. Raises `VerifyError`
    when writing fails, `BrokenPipeError` when standard output's reader has gone.
    """
    if output is None:
        _print(text)
        return
    try:
        if output.exists() and not output.is_file():
            output.write_text(text, encoding="utf-8", errors="backslashreplace")
        else:
            _replace(output.resolve(), text)
    except OSError as error:
        raise VerifyError(f"cannot write {output}: {error.strerror}") from error


def discard_stdout() -> None:
    """What could not be written must not be tried again when the interpreter exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(_encodable(text, encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_stdout()
        raise VerifyError(f"cannot write to standard output: {error.strerror}") from error


def _encodable(text: str, encoding: str) -> str:
    """The text in what the stream can hold: its lines and dots drawn plainly, the rest as `?`."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(PLAIN).encode(encoding, "replace").decode(encoding)
    return text


def _replace(output: Path, text: str) -> None:
    """Whole or not at all: the file is written beside its place and then moved there."""
    draft = output.with_name(f".{output.name}.{uuid4().hex}")
    try:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
