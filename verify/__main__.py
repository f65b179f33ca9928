"""`python -m verify` and the installed command, which may be interrupted while it is loaded."""

import sys

from verify.errors import interrupted


def main() -> int:
    """Load the command line and run it; returns the exit code."""
    try:
        from verify.cli.command_line import main as run  # noqa: PLC0415 (inside `try`)
    except KeyboardInterrupt:
        return interrupted()
    return run()


if __name__ == "__main__":
    sys.exit(main())
