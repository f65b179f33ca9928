"""`python -m gpu_tests`."""

import sys

from gpu_tests._cli import main

if __name__ == "__main__":
    sys.exit(main())
