"""Kinds of modality that no data set of the package combines: labels with attributes, and vectors with texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mvae.data import DATASETS
from mvae.data.checks import check_source
from mvae.data.dataset import Defaults, Kind, Modality
from mvae.data.examples import Dataset, Split
from mvae.data.sentences.text import stop_token
from mvae.evaluation.measures import compute
from mvae.measure import ACCURACY, ATTRIBUTE_ACCURACY, Measure
from mvae.models import arm
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import train, validated
from mvae.trial import Trial
from tests.small_models import SEVERAL, made_up, single

EXAMPLES, CLASSES, TOKENS = 240, 5, 6
IMAGE, VECTOR = Modality("image", Kind.IMAGE, (1, 4, 4)), Modality("numbers", Kind.VECTOR, (4,))
LABEL, TEXT = Modality("label", Kind.LABEL, (), classes=CLASSES), Modality("text", Kind.TEXT, (2,), classes=TOKENS)


def of_kind(modality: Modality, truth: Tensor) -> Tensor:
    """Values of a modality that show a truth from 0 to 3."""
    bits = torch.stack([truth % 2, truth // 2], dim=1)
    match modality.kind:
        case Kind.VECTOR:
            return (bits * 4.0 - 2.0).repeat(1, 2)
        case Kind.IMAGE:
            return (bits.repeat(1, 8).view(-1, 1, 4, 4) * 255).to(torch.uint8)
        case Kind.TEXT:
            return torch.stack([truth, torch.full_like(truth, stop_token(TOKENS))], dim=1).to(torch.uint8)
        case Kind.ATTRIBUTES:
            return bits.repeat(1, modality.shape[0] // 2).to(torch.uint8)
        case Kind.ATTRIBUTE:
            return bits[:, int(modality.name[-1]) % 2].to(torch.uint8)
        case Kind.LABEL:
            return truth.to(torch.uint8)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Dataset]:
    def make(*modalities: Modality) -> Dataset:
        network = "mlp" if Kind.IMAGE in {modality.kind for modality in modalities} else "none"
        defaults = Defaults(latents=4, epochs=10, image_network=network, image_networks=(network,), batch_size=40)
        described = made_up("together", modalities, defaults, EXAMPLES)
        check_source(described)
        monkeypatch.setitem(DATASETS, "together", described)
        truth = torch.randint(4, (EXAMPLES,), generator=torch.Generator().manual_seed(0))
        split = Split(tuple(of_kind(modality, truth) for modality in modalities))
        return Dataset("together", modalities, "0" * 64, split, split, split)

    return make


ARMS = ("mvae", "mvae_q", "mopoe", "mvtcae", "mmvae", "mmvae_plus")


@pytest.mark.parametrize("attributes", [single(2), (SEVERAL,)], ids=["single", "grouped"])
@pytest.mark.parametrize("token", ARMS)
def test_with_a_label_and_attributes_the_accuracy_is_that_of_the_label(
    token: str, attributes: tuple[Modality, ...], made: Callable[..., Dataset]
) -> None:
    data = made(IMAGE, LABEL, *attributes)
    trial = Trial.create(dataset="together", model=token)
    torch.manual_seed(0)
    model: Any = arm(token).build(trial, data.modalities).eval()
    image, label = (data.test.take(m, torch.arange(EXAMPLES)) for m in (0, 1))
    with torch.no_grad():
        assert model(image).shape == (EXAMPLES, CLASSES)
        share = float((model.predict(1, {"image": image}).argmax(-1) == label).double().mean())
    assert compute(ACCURACY, model, trial, data) == {"test/accuracy": pytest.approx(share)}
    assert validated(model, trial, data)["validation/accuracy"] == pytest.approx(share)


@pytest.mark.parametrize(
    ("others", "measure"),
    [(single(2), ATTRIBUTE_ACCURACY), ((SEVERAL,), ATTRIBUTE_ACCURACY), ((TEXT,), ACCURACY), ((LABEL,), ACCURACY)],
    ids=["attributes", "grouped", "text", "label"],
)
def test_every_kind_is_predicted_from_a_vector(
    others: tuple[Modality, ...], measure: Measure, made: Callable[..., Dataset], tmp_path: Path
) -> None:
    data = made(VECTOR, *others)
    trial = Trial.create(dataset="together", model="mvae", targets="all", learning_rate=1e-2)
    done = train(trial, data, Checkpoints(tmp_path / "run", "one"))
    assert compute(measure, done.model, trial, data)[measure.metric] > 0.8
