"""Measures CPU time and memory of this process per epoch. The numbers depend on the machine and are not reproducible.

Reading the numbers takes microseconds and needs no thread and no further package. GPU load is left out, because torch
needs another package to read it.
"""

import os
import time
from pathlib import Path

import torch

PAGES = Path("/proc/self/statm")
"""File with the process's memory in pages; the second number is the resident memory. Only Linux has this file."""

MEGABYTE = 2**20


class Usage:
    """Measures CPU time and memory of this process from one call to the next.

    Args:
        device: device that trains.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._reset()

    def __call__(self) -> dict[str, float]:
        """Returns the usage since the last call, under MLflow's metric names without the prefix `system/`.

        process_cpu_percentage: CPU time of all threads per wall time; 100 is one core
        process_memory_megabytes: resident memory now
        gpu_memory_megabytes: largest memory that torch allocated on the GPU
        """
        seconds = max(time.perf_counter() - self._wall, 1e-9)
        used = {"process_cpu_percentage": 100 * (time.process_time() - self._cpu) / seconds}
        if PAGES.exists():
            pages = int(PAGES.read_bytes().split()[1])
            used["process_memory_megabytes"] = pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE
        if self._cuda is not None:
            used["gpu_memory_megabytes"] = torch.cuda.max_memory_allocated(self._cuda) / MEGABYTE
        self._reset()
        return used

    def _reset(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        if self._cuda is not None:
            torch.cuda.reset_peak_memory_stats(self._cuda)
