"""What `python -m gpu_tests...` does before anything that needs torch is imported."""

import sys
from importlib import import_module
from importlib.util import find_spec


def start(module: str) -> int:
    """Run `module`'s main and return its exit code; 2, with one line, where torch is missing."""
    if find_spec("torch") is None:
        sys.stderr.write("gpu_tests: needs torch, which is not installed: pip install torch\n")
        return 2
    code: int = import_module(module).main()
    return code
