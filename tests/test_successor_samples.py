"""Samples, predictions and likelihoods of the successors on every kind of modality, from their own priors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mvae.data import DATASETS
from mvae.data.dataset import Defaults, Kind, Modality, Source
from mvae.data.examples import Dataset, Split
from mvae.evaluation.likelihood_estimates import likelihood_metrics
from mvae.evaluation.samples import sample_grids, sample_words
from mvae.models import arm
from mvae.trial import Trial
from tests.small_models import IMAGE, LABEL, SEVERAL, made_up, single

ARMS = ("mopoe", "mvtcae", "mmvae", "mmvae_plus")
TEXT = Modality("text", Kind.TEXT, (3,), classes=6)
OTHERS = {"label": (LABEL,), "text": (TEXT,), "attributes": (SEVERAL,), "single attributes": single(3)}
N = 20


def source_of(others: tuple[Modality, ...]) -> Source:
    return made_up(
        name="made_up",
        modalities=(IMAGE, *others),
        defaults=Defaults(latents=3, epochs=1, image_network="mlp", image_networks=("mlp",), batch_size=8),
        examples=N,
    )


def built(token: str, others: tuple[Modality, ...], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Dataset]:
    """An untrained model of an arm, and random examples."""
    of = source_of(others)
    monkeypatch.setitem(DATASETS, of.name, of)
    draw = torch.Generator().manual_seed(0)

    def value(modality: Modality) -> Tensor:
        most = {Kind.IMAGE: 256, Kind.LABEL: modality.classes, Kind.TEXT: 4}.get(modality.kind, 2)
        drawn = torch.randint(most, (N, *modality.shape), generator=draw, dtype=torch.uint8)
        if modality.kind is Kind.TEXT:
            drawn[:, -1] = TEXT.classes - 2  # the stop token
        return drawn

    split = Split(tuple(map(value, of.modalities)))
    torch.manual_seed(0)
    model = arm(token).build(Trial.create(dataset=of.name, model=token), of.modalities).eval()
    return model, Dataset(of.name, of.modalities, "0" * 64, split, split, split)


@pytest.mark.parametrize("others", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("token", ARMS)
def test_a_successor_is_sampled_predicted_and_scored_on_every_kind(
    token: str, others: tuple[Modality, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = built(token, others, monkeypatch)
    sheets = sample_grids(model, data.test, seed=0)
    assert len(sheets) == 3 and all(sheet.images.isfinite().all() for sheet in sheets.values())
    first, second = sample_words(model, data.test, seed=0)
    assert len(first.rows) == 16 and len(second.rows) == 8
    with torch.no_grad():
        predicted = model(data.test.take(0, torch.arange(N)))
    width = {Kind.LABEL: LABEL.classes, Kind.TEXT: TEXT.shape[0], Kind.ATTRIBUTES: SEVERAL.shape[0]}
    assert predicted.shape == (N, width.get(others[0].kind, len(others)))
    found = likelihood_metrics(model, data, samples=20, seed=0)
    assert -200 < found["test/log_joint"] < 0


@pytest.mark.parametrize("token", ["mmvae", "mmvae_plus"])
def test_images_of_the_prior_are_drawn_from_the_models_own_prior(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = built(token, (LABEL,), monkeypatch)
    noise = torch.randn(64, model.latents, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(model, "prior_at", lambda given: model.prior().rsample(noise.view_as(given)))
    with torch.no_grad():
        expected = torch.sigmoid(model.decode(0, model.prior().rsample(noise)))
    torch.testing.assert_close(sample_grids(model, data.test, seed=0)["prior"].images, expected)


def test_mmvae_plus_predicts_with_private_latents_from_their_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = built("mmvae_plus", (LABEL,), monkeypatch)
    image = data.test.take(0, torch.arange(N))
    with torch.no_grad():
        z, mean = model.predictive({0: image}), model.infer_at({0: image}).mean
        given, other = model.private_of(0), model.private_of(1)
        assert torch.equal(z[:, : model.shared], mean[:, : model.shared]) and torch.equal(z[:, given], mean[:, given])
        spread = z[:, other].abs().mean().item()
        assert spread == pytest.approx(1, rel=0.2), "the mean distance of a Laplace distribution of scale 1"
        assert torch.equal(model(image), model.decode(1, z))
