"""`python -m benchmarks.gpu_runs`, the same as `benchmarks/gpu`."""

import sys

from benchmarks.gpu_runs.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
