"""Compares the training speed of two single-threaded workers with the speed of one worker, on the MNIST networks.

Type    python -m benchmarks.scaling                        about 3 minutes on two cores
        python -m benchmarks.scaling --batches 100,1600     only these batch sizes
        python -m benchmarks.scaling --out FILE             also writes the numbers as JSON

The real training loop runs on the same batches in two ways. Either one process trains alone while the other process
waits, or both processes train together over gloo, each on half of the rows. The two ways take turns, block by block,
and their wall times are compared. Other programs distort the ratio, so leave the machine idle.

one         examples per second of one process
two         examples per second of both processes together
ratio       two divided by one: median (quartiles over blocks); at most 2
"""

from __future__ import annotations

import multiprocessing
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from pydantic import Field
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict
from torch.multiprocessing.spawn import spawn

from benchmarks.timing import FewSteps, Spread, random_data, write_comparison
from mvae.data import source
from mvae.models import arm
from mvae.training import loop as training
from mvae.training.data_parallel import DataParallel
from mvae.training.optimiser import Adam
from mvae.training.steps import Steps
from mvae.trial import Trial
from mvae.workers import ALONE, Workers

COUNT = 2
EXAMPLES = 20_000
CLAIM = 1.7
"""Claimed speed-up of two workers over one, at the largest batch."""


class Options(BaseSettings):
    """Options of the benchmark."""

    model_config = SettingsConfigDict(cli_kebab_case=True, cli_implicit_flags="toggle", use_attribute_docstrings=True)

    batches: str = "100,400,1600,3200"
    """Total batch sizes of both processes together, separated by commas."""
    blocks: int = Field(9, ge=3)
    """Blocks with one worker, and as many with two workers."""
    seconds: float = Field(1.0, gt=0)
    """Approximate seconds per block."""
    out: Path | None = None
    """JSON file for the numbers."""


@dataclass(frozen=True)
class Comparison:
    """One line of the printed table."""

    batch: int
    blocks: int
    steps: int
    """Steps per block."""
    one: Spread
    """Examples per second."""
    two: Spread
    ratio: Spread


class Side:
    """Training in this process, on this process's part of each batch."""

    def __init__(self, trial: Trial, workers: Workers) -> None:
        data = random_data(trial.dataset, source(trial.dataset).modalities, EXAMPLES)
        chosen = arm(trial.model)
        assert chosen.learner is not None
        self.trial, self.workers = trial, workers
        self.model = chosen.build(trial, data.modalities)
        workers.align(self.model.parameters())
        learner = chosen.learner(self.model, trial, data, workers)
        shared: Any = learner if workers.alone else DataParallel(learner, self.model)
        self.few: Any = FewSteps(shared)
        optimizer = Adam(self.model.parameters(), lr=trial.learning_rate, fused=True)
        self.steps = Steps(self.few, self.model, optimizer, trial)

    def run(self, steps: int) -> float:
        """Takes the given number of steps. Returns the wall time in seconds."""
        self.few.steps = steps
        began = time.perf_counter()
        training._train_epoch(self.steps, 0, self.workers)
        return time.perf_counter() - began


def work(rank: int, port: int, sizes: list[int], options: Options, comparisons: Any) -> None:
    """Runs one of the two processes. Process 0 puts the results into the queue `comparisons`."""
    torch.set_num_threads(training.THREADS)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=COUNT)
    for size in sizes:
        trial = Trial.create(dataset="mnist", model="mvae", pairing="proportional", batch_size=size)
        one = Side(trial, ALONE) if rank == 0 else None
        two = Side(trial, Workers(rank, COUNT))
        first = one.run(3) / 3 if one else 0.0
        two.run(3)
        steps = Workers(rank, COUNT).broadcast(max(2, round(options.seconds / max(first, 1e-9))))
        taken: list[tuple[float, float]] = []
        for _ in range(options.blocks):
            alone = one.run(steps) if one else 0.0
            dist.barrier()
            taken.append((alone, two.run(steps)))
        if rank == 0:
            alone_s, together_s = np.array(taken).T
            one_rate, two_rate = (Spread.of(size * steps / seconds) for seconds in (alone_s, together_s))
            comparisons.put(
                Comparison(size, options.blocks, steps, one_rate, two_rate, Spread.of(alone_s / together_s))
            )
    dist.destroy_process_group()


def measure(options: Options) -> list[Comparison]:
    """Measures all batch sizes, and prints the table line by line."""
    sizes = [int(size) for size in options.batches.split(",")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    comparisons = context.Queue()
    both = spawn(work, (port, sizes, options, comparisons), nprocs=COUNT, join=False)  # type: ignore[no-untyped-call]
    print(f"{'whole batch':<14}{'one, examples/s':>28}{'two, examples/s':>28}{'ratio':>20}")
    lines = []
    for _ in sizes:
        while comparisons.empty():
            both.join(timeout=0.1)  # raises if a process failed
        line = comparisons.get()
        print(f"{line.batch:<14}{line.one!s:>28}{line.two!s:>28}{line.ratio!s:>20}", flush=True)
        lines.append(line)
    while not both.join(timeout=10):
        pass
    return lines


def main(options: Options) -> None:
    """Runs the benchmark, prints the results, and writes them to `--out` if given."""
    lines = measure(options)
    reached = lines[-1].ratio.median
    print(
        f"claim: ratio at least {CLAIM} at a batch of {lines[-1].batch}: {'reached' if reached >= CLAIM else 'missed'}"
    )
    if options.out:
        write_comparison(options.out, CLAIM, lines)


if __name__ == "__main__":
    main(CliApp.run(Options))
