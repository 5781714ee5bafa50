"""Compares our training step with a plain loop over the ELBO terms, with a DataLoader and torch's default Adam.

Type    python -m benchmarks.training               about 4 minutes on one core
        python -m benchmarks.training --quick       half a minute, a rough estimate
        python -m benchmarks.training --out FILE    also writes the numbers as JSON

Each step does the same work: the joint, the image and the label term on one batch of 100 paired examples. The networks
are those of MNIST (MLP) and FashionMNIST (miniature DCGAN). Our step runs in the real training loop, with its checks.
The plain loop, benchmarks/plain.py, has three variants: released, modern and loaded. With the MLP,
`released` should take at least twice our CPU time. Our loop and the variants take turns in one process with one thread.
Their CPU times are compared block by block.

step        CPU milliseconds of our step
released    CPU time of a plain loop that writes out the formulas of activation and cross-entropies, divided by our CPU
            time: median (quartiles over blocks). All images are converted to floats before the loop starts.
modern      like released, but with torch's SiLU and cross-entropies
loaded      like released, but each access converts an image to a picture and then to floats, as in torchvision
of peak     floating-point operations per CPU second of our step, divided by the rate of one large matrix product
            (only the operations of our step's matrix products and convolutions count)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import plain
from benchmarks.timing import FewSteps, MatrixProduct, Spread, in_turn, random_data, write_comparison
from mvae.data import source
from mvae.models import arm
from mvae.training import loop as training
from mvae.training.optimiser import Adam
from mvae.training.steps import Steps
from mvae.trial import Trial

EXAMPLES = 50_000
BATCH = 100
CLAIM = 2.0
"""Claimed ratio of the released plain loop's CPU time to our CPU time, on MNIST's networks."""


class Options(BaseSettings):
    """Options of the benchmark."""

    model_config = SettingsConfigDict(cli_kebab_case=True, cli_implicit_flags="toggle", use_attribute_docstrings=True)

    quick: bool = False
    """Fewer and shorter blocks, and less data."""
    blocks: int | None = Field(None, ge=3)
    """Blocks for each training loop (default 25; quick: 5)."""
    out: Path | None = None
    """JSON file for the numbers."""


@dataclass(frozen=True)
class Comparison:
    """One line of the printed table."""

    networks: str
    blocks: int
    steps: int
    """Steps per block."""
    ours_ms: Spread
    """CPU time per step."""
    released_ms: Spread
    modern_ms: Spread
    loaded_ms: Spread
    released: Spread
    """CPU time of the plain loop divided by our CPU time."""
    modern: Spread
    loaded: Spread
    peak_gflops: Spread
    of_peak: Spread
    gflop: float
    """Operations (10^9) of our step, forward and backward."""


def our_training(trial: Trial, examples: int) -> tuple[Callable[[int], object], float]:
    """Returns a function that runs our training loop for a given number of steps, and one step's operations in 10^9.

    Only the operations of matrix products and convolutions are counted.
    """
    data = random_data(trial.dataset, source(trial.dataset).modalities, examples)
    chosen = arm(trial.model)
    assert chosen.learner is not None
    model = chosen.build(trial, data.modalities)
    few = FewSteps(chosen.learner(model, trial, data))
    steps_of_ours = Steps(few, model, Adam(model.parameters(), lr=trial.learning_rate, fused=True), trial)

    def run(steps: int) -> None:
        few.steps = steps
        training._train_epoch(steps_of_ours, 0)

    with FlopCounterMode(display=False) as counter:
        run(1)
    return run, counter.get_total_flops() / 1e9


def compare(networks: str, dataset: str, image_network: str, *, steps: int, blocks: int, examples: int) -> Comparison:
    """Measures our step and three plain loops, on the networks of one data set."""
    trial = Trial.create(
        dataset=dataset, model="mvae", image_network=image_network, pairing="proportional", batch_size=BATCH
    )
    ours, gflop = our_training(trial, examples)
    data = random_data(dataset, source(dataset).modalities, examples)
    in_memory, one_by_one = plain.in_memory(*data.train.values), plain.OneByOne(*data.train.values)
    product = MatrixProduct()
    taken = in_turn(
        {
            "ours": ours,
            "released": plain.PlainTraining(image_network, in_memory, BATCH, plain.RELEASED).run,
            "modern": plain.PlainTraining(image_network, in_memory, BATCH, plain.MODERN).run,
            "loaded": plain.PlainTraining(image_network, one_by_one, BATCH, plain.RELEASED).run,
            "peak": product.run,
        },
        steps=steps,
        blocks=blocks,
    )
    peak = product.gflop / taken["peak"] * 1e3
    return Comparison(
        networks=networks,
        blocks=blocks,
        steps=steps,
        ours_ms=Spread.of(taken["ours"]),
        released_ms=Spread.of(taken["released"]),
        modern_ms=Spread.of(taken["modern"]),
        loaded_ms=Spread.of(taken["loaded"]),
        released=Spread.of(taken["released"] / taken["ours"]),
        modern=Spread.of(taken["modern"] / taken["ours"]),
        loaded=Spread.of(taken["loaded"] / taken["ours"]),
        peak_gflops=Spread.of(peak),
        of_peak=Spread.of(gflop / taken["ours"] * 1e3 / peak),
        gflop=gflop,
    )


def measure(options: Options) -> list[Comparison]:
    """Measures the MLP and the DCGAN, and prints the table line by line."""
    torch.set_num_threads(training.THREADS)
    blocks = options.blocks or (5 if options.quick else 25)
    examples = 2_000 if options.quick else EXAMPLES
    heads = ("step, ms", "released / ours", "modern / ours", "loaded / ours", "of peak")
    print(f"{'networks':<22}{''.join(f'{head:>20}' for head in heads)}")
    lines = []
    for networks, dataset, image_network, steps in (
        ("MNIST (MLP)", "mnist", "mlp", 10),
        ("FashionMNIST (DCGAN)", "fashion_mnist", "dcgan", 2),
    ):
        line = compare(networks, dataset, image_network, steps=steps, blocks=blocks, examples=examples)
        shown = (line.ours_ms, line.released, line.modern, line.loaded, line.of_peak)
        print(f"{line.networks:<22}{''.join(f'{value!s:>20}' for value in shown)}", flush=True)
        lines.append(line)
    return lines


def main(options: Options) -> None:
    """Runs the benchmark, prints the results, and writes them to `--out` if given."""
    lines = measure(options)
    reached = lines[0].released.median
    print(
        f"claim: on MNIST's networks, the ratio `released / ours` is at least {CLAIM}:"
        f" {'reached' if reached >= CLAIM else 'missed'}"
    )
    if options.out:
        write_comparison(options.out, CLAIM, lines)


if __name__ == "__main__":
    main(CliApp.run(Options))
