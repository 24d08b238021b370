"""`python -m unitweave`, which is also how torchrun starts it."""

import sys

from unitweave.cli import main

if __name__ == "__main__":
    sys.exit(main())
