"""What stops a command: one line for the person, exit code 2."""


class VerifyError(Exception):
    """Says in one line what was wrong, where, and what to do."""
