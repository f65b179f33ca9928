"""`python -m gpu_tests`."""

import sys

from gpu_tests.entry import start

if __name__ == "__main__":
    sys.exit(start("gpu_tests._cli"))
