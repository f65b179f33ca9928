"""Lines of JSON with a child process: one sent, one awaited, within a time limit."""

import json
import select
import subprocess
from typing import Any


def exchange(
    process: subprocess.Popen[str] | None, line: str, *, seconds: float
) -> dict[str, Any] | None:
    """Send a line unless it is empty; the next answer, None when none came in time."""
    if process is None or process.stdin is None or process.stdout is None:
        return None
    try:
        if line:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        if not select.select([process.stdout], [], [], seconds)[0]:
            return None
        answer = process.stdout.readline()
    except OSError:
        return None
    return dict(json.loads(answer)) if answer else None
