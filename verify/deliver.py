"""Where output goes: standard output, or a file that is whole or not there at all."""

import os
import sys
from pathlib import Path
from uuid import uuid4

from verify.errors import VerifyError


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
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_stdout()
        raise VerifyError(f"cannot write to standard output: {error.strerror}") from error


def _replace(output: Path, text: str) -> None:
    """Whole or not at all: the file is written beside its place and then moved there."""
    draft = output.with_name(f".{output.name}.{uuid4().hex}")
    try:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
