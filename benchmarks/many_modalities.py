"""Compares a training step of MVAE19 with a plain loop over its ELBO terms: time, growth with k, memory.

Type    python -m benchmarks.many_modalities               about 6 minutes on one core
        python -m benchmarks.many_modalities --quick       about a minute, a rough estimate
        python -m benchmarks.many_modalities --out FILE    also writes the numbers as JSON

The data are random: 19 modalities (the image and 18 attributes), batches of 100, no missing values. The benchmark
measures two sets of networks:

mnist19     MLP, 28x28 images, 64 latents, attribute networks of width 64
CelebA      DCGAN, 64x64 images, 100 latents, attribute networks of width 512

Our step runs in the real training loop, with its checks. The plain loop, benchmarks/plain_many.py, runs encoders and
all 19 decoders separately for each of the 1 + 19 + k terms. Its images are converted to floats beforehand. Our loop and
the plain loop use the same subsets at the same step, and take turns in one process with one thread. Their CPU times
are compared block by block.

step        CPU milliseconds of our step
every       CPU time of the plain loop that runs all 19 encoders at every term, divided by ours: median (quartiles over
            blocks)
given       the same ratio for a plain loop that runs only the encoders of a term's own modalities
modern      like given, with torch's SiLU and cross-entropies
linear fit  line fitted to the medians over blocks at k = 0, 8, 16, 32, 50: its slope is the milliseconds that one more
            subset adds to our step; R^2 measures how well the line fits
peak        largest resident memory of a process that takes two of our steps at k = 50 on 64x64 images
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

from benchmarks import plain
from benchmarks.plain_many import ATTRIBUTES, PlainMvae19, PlainTraining19
from benchmarks.timing import FewSteps, Spread, in_turn, random_data, write_comparison
from mvae.data import source
from mvae.models.elbo import elbo_terms
from mvae.models.mvae import ElboLearner, build_mvae
from mvae.networks.attribute import attribute_width
from mvae.streams import numpy_generator
from mvae.training import loop as training
from mvae.training.optimiser import Adam
from mvae.training.steps import Steps
from mvae.trial import Trial

BATCH = 100
BATCHES = 4
"""Batches in the data set; few suffice, because repeating examples does not change the cost of a step."""
KS = (0, 8, 16, 32, 50)
CLAIM = 4.5
"""Claimed CPU time of the plain loop with every encoder, divided by our CPU time, on 64x64 images at k = 1."""
CLAIM_MANY = 1.8
"""Claimed CPU time of the plain loop with a term's own encoders, divided by ours, on mnist19's networks at k = 50."""
CLAIM_GIB = 8.0
"""Claimed upper limit of peak memory in GiB, at k = 50 on 64x64 images."""


class Options(BaseSettings):
    """Options of the benchmark."""

    model_config = SettingsConfigDict(cli_kebab_case=True, cli_implicit_flags="toggle", use_attribute_docstrings=True)

    quick: bool = False
    """Fewer and shorter blocks."""
    blocks: int | None = Field(None, ge=3)
    """Blocks for each training loop (default 11 for the MLP and 7 for the DCGAN; quick: 3)."""
    batch: int = Field(BATCH, ge=2)
    """Rows per step. The claims hold for 100 rows."""
    out: Path | None = None
    """JSON file for the numbers."""


@dataclass(frozen=True)
class Comparison:
    """One line of the printed table."""

    networks: str
    k: int
    blocks: int
    steps: int
    """Steps per block."""
    ours_ms: Spread
    """CPU time per step."""
    every_ms: Spread
    given_ms: Spread
    modern_ms: Spread
    every: Spread
    """CPU time of the plain loop divided by our CPU time."""
    given: Spread
    modern: Spread


@dataclass(frozen=True)
class Growth:
    """CPU time of our step at several k, and a fitted line."""

    networks: str
    blocks: int
    steps: int
    ks: tuple[int, ...]
    ours_ms: tuple[Spread, ...]
    """CPU time per step at each k."""
    term_ms: float
    """Slope of the line through the medians."""
    at_0_ms: float
    """Value of the line at k = 0."""
    r_squared: float


@dataclass(frozen=True)
class Report:
    """All measurements."""

    lines: tuple[Comparison, ...]
    growth: Growth
    peak_gib: float
    """Peak memory of two steps at k = 50 on 64x64 images, in a separate process."""


def trial_of(dataset: str, k: int, batch: int) -> Trial:
    """Returns an MVAE19 trial with the data set's default settings."""
    return Trial.create(dataset=dataset, model="mvae", k=k, batch_size=batch)


def our_training(trial: Trial) -> Callable[[int], object]:
    """Returns a function that runs our training loop for a given number of steps, on random data."""
    data = random_data(trial.dataset, source(trial.dataset).modalities, BATCHES * trial.batch_size)
    model = build_mvae(trial, data.modalities)
    few = FewSteps(ElboLearner(model, trial, data))
    steps_of_ours = Steps(few, model, Adam(model.parameters(), lr=trial.learning_rate, fused=True), trial)

    def run(steps: int) -> None:
        few.steps = steps
        training._train_epoch(steps_of_ours, 0)

    return run


def terms_of_steps(trial: Trial) -> Iterator[list[list[int]]]:
    """Yields the terms that our learner draws for each step. A term is the list of modalities that it conditions on."""
    modalities = len(source(trial.dataset).modalities)
    for epoch in count():
        generator = numpy_generator(trial.seed, "subsets", epoch)
        for _ in range(BATCHES):
            yield [np.flatnonzero(term).tolist() for term in elbo_terms(modalities, trial.k, generator)]


def plain_model(trial: Trial, hand: plain.Hand, *, every_encoder: bool) -> PlainMvae19:
    """Returns the plain loop's model, with networks as large as those of `trial`."""
    hidden = attribute_width(source(trial.dataset).modalities[0].shape)
    return PlainMvae19(trial.image_network, trial.latents, hidden, hand, every_encoder=every_encoder)


def compare(networks: str, dataset: str, k: int, *, steps: int, blocks: int, batch: int) -> Comparison:
    """Measures our step and three plain loops, on the networks of one data set."""
    trial = trial_of(dataset, k, batch)
    images, *attributes = random_data(dataset, source(dataset).modalities, BATCHES * batch).train.values
    assert len(attributes) == ATTRIBUTES

    def loop(hand: plain.Hand, *, every_encoder: bool) -> PlainTraining19:
        model = plain_model(trial, hand, every_encoder=every_encoder)
        return PlainTraining19(model, hand, images, torch.stack(attributes, 1), terms_of_steps(trial), batch)

    taken = in_turn(
        {
            "ours": our_training(trial),
            "every": loop(plain.RELEASED, every_encoder=True).run,
            "given": loop(plain.RELEASED, every_encoder=False).run,
            "modern": loop(plain.MODERN, every_encoder=False).run,
        },
        steps=steps,
        blocks=blocks,
    )
    spread = {name: Spread.of(values) for name, values in taken.items()}
    ratio = {name: Spread.of(values / taken["ours"]) for name, values in taken.items()}
    return Comparison(
        networks=networks,
        k=k,
        blocks=blocks,
        steps=steps,
        ours_ms=spread["ours"],
        every_ms=spread["every"],
        given_ms=spread["given"],
        modern_ms=spread["modern"],
        every=ratio["every"],
        given=ratio["given"],
        modern=ratio["modern"],
    )


def growth(networks: str, dataset: str, *, steps: int, blocks: int, batch: int) -> Growth:
    """Measures our step at each k of KS, and fits a line."""
    contenders = {str(k): our_training(trial_of(dataset, k, batch)) for k in KS}
    taken = in_turn(contenders, steps=steps, blocks=blocks)
    spreads = tuple(Spread.of(taken[str(k)]) for k in KS)
    slope, start, r_squared = line_through(KS, [spread.median for spread in spreads])
    return Growth(networks, blocks, steps, KS, spreads, slope, start, r_squared)


def line_through(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Returns slope, intercept and R^2 of the least-squares line through the points."""
    slope, start = np.polyfit(x, y, 1)
    missed = np.square(np.array(y) - start - slope * np.array(x)).mean()
    return float(slope), float(start), float(1 - missed / np.var(y))


def print_peak(dataset: str, k: int, batch: int) -> None:
    """Takes two steps, so that Adam's moments exist, and prints this process's peak memory in GiB."""
    torch.set_num_threads(training.THREADS)
    our_training(trial_of(dataset, k, batch))(2)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30)


def peak_of_its_own_process(dataset: str, k: int, batch: int) -> float:
    """Returns the peak memory of two steps in a new process, in GiB.

    A process inherits its parent's peak. So call this function before all other measurements.
    """
    code = f"from benchmarks.many_modalities import print_peak; print_peak({dataset!r}, {k}, {batch})"
    root = Path(__file__).resolve().parents[1]
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=root, check=True, stdout=subprocess.PIPE, encoding="utf-8"
    )
    return float(printed.stdout)


def measure(options: Options) -> Report:
    """Runs all measurements, and prints the table line by line."""
    torch.set_num_threads(training.THREADS)
    peak = peak_of_its_own_process("celeba19", KS[-1], options.batch)
    heads = ("step, ms", "every / ours", "given / ours", "modern / ours")
    print(f"{'networks':<26}{''.join(f'{head:>26}' for head in heads)}")
    lines = []
    for networks, dataset, k, steps, blocks in (
        (f"mnist19 (MLP), k = {KS[-1]}", "mnist19", KS[-1], 2, 11),
        ("64x64 (DCGAN), k = 1", "celeba19", 1, 2, 7),
    ):
        blocks, steps = options.blocks or (3 if options.quick else blocks), 1 if options.quick else steps
        line = compare(networks, dataset, k, steps=steps, blocks=blocks, batch=options.batch)
        shown = (line.ours_ms, line.every, line.given, line.modern)
        print(f"{line.networks:<26}{''.join(f'{value!s:>26}' for value in shown)}", flush=True)
        lines.append(line)
    blocks, steps = options.blocks or (3 if options.quick else 11), 1 if options.quick else 4
    grown = growth("mnist19 (MLP)", "mnist19", steps=steps, blocks=blocks, batch=options.batch)
    for k, spread in zip(grown.ks, grown.ours_ms, strict=True):
        print(f"{f'mnist19 (MLP), k = {k}':<26}{spread!s:>26}")
    fitted = f"{grown.at_0_ms:.1f} ms + k * {grown.term_ms:.2f} ms"
    print(f"linear fit over k: step time = {fitted} (R^2 = {grown.r_squared:.4f})")
    print(f"peak at k = {KS[-1]} on 64x64 images: {peak:.2f} GiB")
    return Report(tuple(lines), grown, peak)


def main(options: Options) -> None:
    """Runs the benchmark, prints the results, and writes them to `--out` if given."""
    report = measure(options)
    many, images = report.lines
    for what, reached in (
        (f"every / ours at least {CLAIM} on 64x64 images", images.every.median >= CLAIM),
        (f"given / ours at least {CLAIM_MANY} at k = {KS[-1]} on mnist19", many.given.median >= CLAIM_MANY),
        (f"peak at most {CLAIM_GIB:g} GiB", report.peak_gib <= CLAIM_GIB),
    ):
        print(f"claim: {what}: {'reached' if reached else 'missed'}")
    if options.out:
        write_comparison(options.out, CLAIM, report)


if __name__ == "__main__":
    main(CliApp.run(Options))
