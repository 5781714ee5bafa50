"""Runs the command `benchmarks/gpu` as `python -m benchmarks.gpu_runs`."""

import sys

from benchmarks.gpu_runs.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
