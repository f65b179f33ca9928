"""`python -m gpu_tests.measure`."""

import sys

from gpu_tests.entry import start

if __name__ == "__main__":
    sys.exit(start("gpu_tests.costs"))
