"""`python -m adamw_book`; its commands are those of :mod:`adamw_book.command_line`."""

import sys

from .command_line import main

if __name__ == "__main__":
    sys.exit(main())
