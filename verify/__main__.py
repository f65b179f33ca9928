"""`python -m verify`."""

import sys

from verify._cli import main

if __name__ == "__main__":
    sys.exit(main())
