"""Does the paper's own objective keep an accuracy that it is handed? (Table 4: why the MVAE row is not reproduced.)

Type    python -m benchmarks.own_targets --data-root DIR               about four minutes on one core
        python -m benchmarks.own_targets --data-root DIR --out FILE    the numbers as JSON too

An MVAE is trained on FashionMNIST, all pairs kept, with every term reconstructing all that an example has (`all`): its
image posterior learns to predict the label. Then it is trained on with terms that reconstruct what they condition on
(`own`, the paper's formula), beside a twin that goes on with `all` and one that has had `own` from the start. After
each epoch: accuracy at argmax p(x2 | z), z = the mean of q(z | x1), and the `own` loss, both on the validation split.
If the loss falls while the accuracy falls, it is the objective that gives the accuracy up, and no want of training.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import Field
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict
from torch import nn

from mvae.data import Dataset, Split, load
from mvae.evaluation.accuracy import evaluated, label_accuracy
from mvae.files import write_atomically
from mvae.models import arm
from mvae.models.mvae import ElboLearner
from mvae.optimiser import Adam
from mvae.streams import global_stream
from mvae.training import THREADS
from mvae.trial import Targets, Trial


class Options(BaseSettings):
    """Does the own-targets objective keep an accuracy that it is handed?"""

    model_config = SettingsConfigDict(cli_kebab_case=True, cli_hide_none_type=True, use_attribute_docstrings=True)

    data_root: Path | None = None
    """Folder with FashionMNIST's raw files (default: $MVAE_DATA)."""
    cache: Path | None = None
    """Folder for the converted data (default: ~/.cache/mvae)."""
    images: int = Field(20_000, ge=100)
    """Training images: the first so many."""
    before: int = Field(8, ge=1)
    """Epochs with targets all."""
    after: int = Field(6, ge=1)
    """Epochs after that, with own or with all."""
    out: Path | None = None
    """File for the numbers as JSON."""


@dataclass(frozen=True)
class Epoch:
    """What holds after an epoch."""

    training: str
    """all; all, then own; all, then all; own."""
    epoch: int
    accuracy: float
    """On the validation split."""
    own_loss: float
    """Of the validation split with targets own and beta 1, in nats an example, always with the same noise."""


class Run:
    """One model in training."""

    def __init__(self, data: Dataset, epochs: int) -> None:
        self.data, self.epochs, self.done = data, epochs, 0
        trial = self._trial("all")
        with global_stream(trial.seed, "initialisation"):
            self.model: nn.Module = arm("mvae").build(trial, data.modalities)
        self.optimizer = Adam(self.model.parameters(), lr=trial.learning_rate, fused=True)

    def fork(self) -> Run:
        """A twin that goes on from here."""
        return copy.deepcopy(self)

    def train(self, targets: Targets, epochs: int, name: str) -> list[Epoch]:
        """Some more epochs."""
        told = []
        learner = ElboLearner(self.model, self._trial(targets), self.data)
        for epoch in range(self.done, self.done + epochs):
            self.model.train()
            for position, batch in enumerate(learner.batches(epoch)):
                loss = learner.loss(batch, epoch * learner.steps_per_epoch + position)
                self.optimizer.zero_grad(set_to_none=True)
                loss.total.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
            accuracy = label_accuracy(self.model, self.data.modalities, self.data.validation)
            told.append(Epoch(name, epoch + 1, accuracy, self._own_loss()))
            print(f"{name:<14}{epoch + 1:>6}{accuracy:>12.4f}{told[-1].own_loss:>12.2f}", flush=True)
        self.done += epochs
        return told

    @torch.no_grad()
    def _own_loss(self) -> float:
        held_out = dataclasses.replace(self.data, train=self.data.validation)
        learner = ElboLearner(self.model, self._trial("own"), held_out)
        last = learner.steps_per_epoch * self.epochs - 1  # beta is 1
        with evaluated(self.model):
            losses = [float(learner.loss(batch, last).total) for batch in learner.batches(0)]
        return sum(losses) / len(losses)

    def _trial(self, targets: Targets) -> Trial:
        """All pairs kept, reserved, label weight 50; beta is 1 from the second epoch's end on."""
        return Trial.create(
            dataset="fashion_mnist",
            model="mvae",
            image_network="mlp",
            targets=targets,
            epochs=self.epochs,
            annealing_epochs=2,
        )


def measure(options: Options) -> list[Epoch]:
    """All four trainings."""
    torch.set_num_threads(THREADS)
    data = load("fashion_mnist", options.data_root, options.cache)
    fewer = Split(tuple(value[: options.images] for value in data.train.values))
    data = dataclasses.replace(data, train=fewer)
    print(f"{'targets':<14}{'epoch':>6}{'accuracy':>12}{'own loss':>12}")
    first = Run(data, options.before + options.after)
    told = first.train("all", options.before, "all")
    told += first.fork().train("own", options.after, "all, then own")
    told += first.train("all", options.after, "all, then all")
    return told + Run(data, options.before + options.after).train("own", options.before + options.after, "own")


def main(options: Options) -> None:
    """Measures, prints and writes."""
    told = measure(options)
    if options.out:
        about = {"images": options.images, "torch": torch.__version__, "epochs": [asdict(one) for one in told]}
        write_atomically(options.out, (json.dumps(about, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(CliApp.run(Options))
