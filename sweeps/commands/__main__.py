"""Runs `mvae` from a checkout that is not installed: python -m sweeps.commands."""

import sys

from sweeps.commands.entry import main

if __name__ == "__main__":
    sys.exit(main())
