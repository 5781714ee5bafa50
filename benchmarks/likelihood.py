"""Compares the speed of our likelihood estimates with simple loops over samples.

Type    python -m benchmarks.likelihood               about a minute on one core
        python -m benchmarks.likelihood --quick       a few seconds, a rough estimate
        python -m benchmarks.likelihood --out FILE    also writes the numbers as JSON

Our estimator and two loops, literal and batched, do the same work per example. They draw S samples from q(z|x1,x2).
For each sample they compute the marginal, joint and conditional log-weights, in float32 with sums in float64. The
networks are those of MNIST (MLP) and FashionMNIST (miniature DCGAN), untrained. The time does not include log p(x2),
which is computed once per model. The estimator and the loops take turns in one process with one thread. Their CPU times
are compared block by block.

example     CPU milliseconds of our estimator per example
literal     CPU time of a loop with one decoder call per sample, divided by ours: median (quartiles over blocks)
batched     the same ratio for a loop over samples with 100 examples per decoder call
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict
from torch import Tensor

from benchmarks.timing import Spread, in_turn, random_data, write_comparison
from mvae.data import source
from mvae.data.examples import Split
from mvae.evaluation.estimator import FROM_BOTH
from mvae.evaluation.importance import Noise
from mvae.evaluation.likelihood_estimates import split_likelihoods
from mvae.models.gaussian import standard_log_prob
from mvae.models.mvae import MVAE, build_mvae
from mvae.streams import global_stream
from mvae.training import loop as training
from mvae.trial import Trial

BATCH = 100
CLAIM = 15.0
"""Claimed ratio of the literal loop's CPU time to our CPU time, on MNIST's networks."""
SEED = 0


class Options(BaseSettings):
    """Options of the benchmark."""

    model_config = SettingsConfigDict(cli_kebab_case=True, cli_implicit_flags="toggle", use_attribute_docstrings=True)

    quick: bool = False
    """Fewer blocks and samples."""
    samples: int | None = Field(None, ge=2)
    """Samples per example (default 1000, the paper's number; quick: 200)."""
    blocks: int | None = Field(None, ge=3)
    """Blocks for our estimator, and as many for each loop (default 11 for the MLP and 7 for the DCGAN; quick: 3)."""
    out: Path | None = None
    """JSON file for the numbers."""


@dataclass(frozen=True)
class Comparison:
    """One line of the printed table."""

    networks: str
    blocks: int
    steps: int
    """Examples per block."""
    samples: int
    ours_ms: Spread
    """CPU time per example."""
    literal_ms: Spread
    batched_ms: Spread
    literal: Spread
    """CPU time of the literal loop divided by our CPU time."""
    batched: Spread


class Contenders:
    """Our estimator and the two loops, on one model and one data set."""

    def __init__(self, dataset: str, image_network: str, samples: int) -> None:
        trial = Trial.create(dataset=dataset, model="mvae", image_network=image_network)
        data = random_data(dataset, source(dataset).modalities, BATCH)
        with global_stream(SEED, "benchmark"):
            self.model: MVAE = build_mvae(trial, data.modalities).eval()
        self.split: Split = data.train
        self.samples = samples
        self._next = count()

    def ours(self, examples: int) -> dict[str, Tensor]:
        """Runs our estimator on the next examples, as evaluation does."""
        chosen = [next(self._next) % BATCH for _ in range(examples)]
        return split_likelihoods(
            self.model,
            self.split,
            samples=self.samples,
            seed=SEED,
            examples=chosen,
            proposals=[FROM_BOTH],
            prior_samples=2,
        )

    def literal(self, examples: int) -> list[Tensor]:
        """Runs a loop over the next examples, with one example and one sample per decoder call."""
        return [self.loop([next(self._next) % BATCH], self.samples) for _ in range(examples)]

    def batched(self, examples: int) -> Tensor:
        """Runs a loop with 100 examples per decoder call, which decodes as many rows as `ours(examples)`."""
        return self.loop(list(range(BATCH)), max(2, examples * self.samples // BATCH))

    @torch.no_grad()
    def loop(self, examples: list[int], samples: int) -> Tensor:
        """Loops over samples. Returns log p(x1), log p(x1, x2), and three variances of log-weights, as [5, n]."""
        image, label = (self.split.take(m, torch.tensor(examples)) for m in (0, 1))
        q, of_label = self.model.infer_at({0: image, 1: label}), self.model.infer_at({1: label})
        noise = Noise(SEED, "likelihood", examples, self.model.latents, torch.device("cpu")).next(samples).float()
        weights = []
        for s in range(samples):
            z = q.rsample(noise[:, s])
            pixels = F.binary_cross_entropy_with_logits(self.model.decoders[0](z), image, reduction="none")
            log_image = -pixels.flatten(1).sum(1, dtype=torch.float64)
            log_label = -F.cross_entropy(self.model.decoders[1](z), label, reduction="none")
            log_r = q.log_prob(z)
            marginal = log_image + standard_log_prob(z) - log_r
            weights.append(torch.stack([marginal, marginal + log_label, log_image + of_label.log_prob(z) - log_r]))
        log_w = torch.stack(weights)
        return torch.cat([torch.logsumexp(log_w[:, :2], 0) - math.log(samples), log_w.var(0)])


def compare(networks: str, dataset: str, image_network: str, *, samples: int, steps: int, blocks: int) -> Comparison:
    """Measures one line of the table."""
    contenders = Contenders(dataset, image_network, samples)
    taken = in_turn(
        {"ours": contenders.ours, "literal": contenders.literal, "batched": contenders.batched},
        steps=steps,
        blocks=blocks,
    )
    return Comparison(
        networks=networks,
        blocks=blocks,
        steps=steps,
        samples=samples,
        ours_ms=Spread.of(taken["ours"]),
        literal_ms=Spread.of(taken["literal"]),
        batched_ms=Spread.of(taken["batched"]),
        literal=Spread.of(taken["literal"] / taken["ours"]),
        batched=Spread.of(taken["batched"] / taken["ours"]),
    )


def measure(options: Options) -> list[Comparison]:
    """Measures the MLP and the DCGAN, and prints the table line by line."""
    torch.set_num_threads(training.THREADS)
    samples = options.samples or (200 if options.quick else 1000)
    print(f"{'networks':<22}{''.join(f'{head:>24}' for head in ('example, ms', 'literal / ours', 'batched / ours'))}")
    lines = []
    for networks, dataset, image_network, steps, blocks in (
        ("MNIST (MLP)", "mnist", "mlp", 4, 11),
        ("FashionMNIST (DCGAN)", "fashion_mnist", "dcgan", 1, 7),
    ):
        blocks = options.blocks or (3 if options.quick else blocks)
        line = compare(networks, dataset, image_network, samples=samples, steps=steps, blocks=blocks)
        shown = (line.ours_ms, line.literal, line.batched)
        print(f"{line.networks:<22}{''.join(f'{value!s:>24}' for value in shown)}", flush=True)
        lines.append(line)
    return lines


def main(options: Options) -> None:
    """Runs the benchmark, prints the results, and writes them to `--out` if given."""
    lines = measure(options)
    reached = lines[0].literal.median
    print(
        f"claim: on MNIST's networks, the ratio `literal / ours` is at least {CLAIM:g}:"
        f" {'reached' if reached >= CLAIM else 'missed'}"
    )
    if options.out:
        write_comparison(options.out, CLAIM, lines)


if __name__ == "__main__":
    main(CliApp.run(Options))
