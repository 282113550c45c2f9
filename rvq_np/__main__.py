"""``python -m rvq_np`` is the command ``rvq-np``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
