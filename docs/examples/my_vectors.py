"""Your own real-valued data, loss, hyper-parameter and measure: a regularised MVTCAE for two views of vectors."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import mvae.data
import mvae.measure
import mvae.models
from mvae.data import Arrays, Defaults, Kind, Modality, Source
from mvae.hyperparameters import Hyperparameter
from mvae.measure import Measure
from mvae.models.arms import MVTCAE_ARM
from mvae.models.elbo import Loss
from mvae.models.mvtcae import MvtcaeLearner
from mvae.models.rows import RowBatch, experts

# N examples, M modalities, D latents

LATENT = 3
SIZES = {"train": 2000, "validation": 250, "test": 250}


def convert(_root: Path) -> Arrays:
    """Returns both views of N draws of the same hidden factors, float32 [N, 10] and [N, 6]."""
    draw, maps = np.random.default_rng(7), np.random.default_rng(8)
    weights = [maps.normal(size=(LATENT, width)) for width in (10, 6)]

    def split(n: int) -> tuple[np.ndarray, ...]:
        hidden = draw.normal(size=(n, LATENT))
        views = (np.tanh(hidden @ weight) + 0.1 * draw.normal(size=(n, weight.shape[1])) for weight in weights)
        return tuple(view.astype(np.float32) for view in views)

    return {name: split(n) for name, n in SIZES.items()}


mvae.data.add(
    Source(
        name="my_vectors",
        modalities=(
            Modality("first", Kind.VECTOR, (10,), likelihood="gaussian", scale=None),  # None: the scale is learnt
            Modality("second", Kind.VECTOR, (6,), likelihood="laplace", scale=0.1),
        ),
        defaults=Defaults(latents=8, epochs=20, image_network="none", image_networks=("none",)),
        split_rule="drawn one after the other",
        version=1,
        check=lambda _root: None,
        digest=lambda _root: "made up, version 1",
        examples=lambda _root: SIZES["train"],
        convert=convert,
    )
)


class CloserLearner(MvtcaeLearner):
    """MVTCAE's loss plus `pull` times the squared distance between both views' posterior means."""

    def loss(self, batch: RowBatch, step: int | Tensor) -> Loss:  # type: ignore[override]
        loss = super().loss(batch, step)
        mean, _ = experts(self.model, batch.presence, batch.values)
        both = batch.presence.present.all(1)
        apart = ((mean[:, 0] - mean[:, 1]).square().sum(1) * both).sum() / self.trial.batch_size
        pulled = loss.total + self.trial.own_value("pull") * apart
        return Loss(pulled, {**loss.parts, "apart": apart.detach()})


mvae.models.add(
    replace(
        MVTCAE_ARM,
        token="closer",
        title="MVTCAE, closer",
        learner=CloserLearner,
        hyperparameters=(
            *MVTCAE_ARM.hyperparameters,
            Hyperparameter("pull", 0.1, "Weight of the distance.", least=0, searched=(0.01, 10), log=True),
        ),
    )
)


def distance(model: nn.Module, _trial: Any, data: mvae.data.Dataset) -> dict[str, float]:
    """Returns the mean distance between both views' posterior means on the test split."""
    rows = torch.arange(len(data.test))
    encoder: Any = model
    with torch.no_grad():
        first, second = (encoder.infer({name: data.test.take(m, rows)}).mean for m, name in enumerate(NAMES))
    return {"test/distance": float((first - second).norm(dim=1).mean())}


NAMES = ("first", "second")
DISTANCE = Measure("distance", 1, "test/distance", higher_is_better=False)
mvae.measure.add(DISTANCE, distance, arms=("closer", "mvtcae"), datasets=("my_vectors",), watched=True)
