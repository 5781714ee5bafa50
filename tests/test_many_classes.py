"""Labels and tokens of more than 256 classes are stored in two or four bytes; up to 256 they take one byte, as ever."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from mvae import data
from mvae.data import DATASETS, Arrays, Dataset, Defaults, Kind, Modality, Source, arrow
from mvae.data.checks import check_arrays, check_source
from mvae.data.dataset import SPLITS, stored_type
from mvae.evaluation.likelihood_estimates import split_likelihoods
from mvae.evaluation.measures import compute
from mvae.evaluation.samples import IMAGES_PER_ROW, MOST_CLASSES, sample_grids
from mvae.measure import ACCURACY
from mvae.models.likelihoods import Categorical
from mvae.models.multimodal import Multimodal
from mvae.refusal import Refusal
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import train
from mvae.trial import Trial

CLASSES, BITS = 1000, 10
IMAGE = Modality("image", Kind.IMAGE, (1, 4, 5))
LABEL = Modality("label", Kind.LABEL, (), classes=CLASSES)


def images(labels: np.ndarray) -> np.ndarray:
    """Each image shows its label's ten bits, then their opposites: uint8 [n, 1, 4, 5]."""
    bits = (labels[:, None].astype(np.int64) >> np.arange(BITS)) & 1
    return (255 * np.concatenate([bits, 1 - bits], axis=1)).astype(np.uint8).reshape(-1, 1, 4, 5)


def convert(_root: Path) -> Arrays:
    draw = np.random.default_rng(0)
    every = np.arange(CLASSES, dtype=np.int16)
    splits = {"train": every.repeat(2), "validation": every[:50], "test": draw.permutation(every)[:200]}
    return {name: (images(labels), labels) for name, labels in splits.items()}


SOURCE = Source(
    name="codes",
    modalities=(IMAGE, LABEL),
    defaults=Defaults(latents=8, epochs=2, image_network="mlp", image_networks=("mlp",)),
    split_rule="made up",
    version=1,
    check=lambda _root: None,
    digest=lambda _root: "made up",
    examples=lambda _root: 2 * CLASSES,
    convert=convert,
)


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Dataset:
    check_source(SOURCE)
    monkeypatch.setitem(DATASETS, SOURCE.name, SOURCE)
    return data.load("codes", cache=cache)


def with_classes(count: int, kind: Kind = Kind.LABEL) -> Modality:
    return Modality("it", kind, (3,) if kind is Kind.TEXT else (), classes=count)


@pytest.mark.parametrize("kind", [Kind.LABEL, Kind.TEXT])
@pytest.mark.parametrize(
    ("classes", "stored"),
    [(2, "uint8"), (256, "uint8"), (257, "int16"), (2**15, "int16"), (2**15 + 1, "int32"), (2**31, "int32")],
)
def test_the_stored_type_follows_the_number_of_classes_and_keeps_the_largest_one(
    kind: Kind, classes: int, stored: str, tmp_path: Path
) -> None:
    modality = with_classes(classes, kind)
    assert stored_type(modality) == stored
    values = np.zeros((2, *modality.shape), stored)
    values[1] = classes - 1
    found = dataclasses.replace(SOURCE, modalities=(IMAGE, modality))
    check_source(found)
    arrays: Arrays = {split: (images(np.arange(2)), values) for split in SPLITS}
    check_arrays(found, arrays, 2)
    arrow.write(tmp_path, arrays, found.modalities, "0" * 64)
    read = arrow.read(tmp_path, found.modalities, "0" * 64)
    assert read is not None
    taken = read[1]["test"].take(1, torch.arange(2))
    assert taken.dtype == torch.int64 and taken.tolist() == values.tolist()
    with pa.ipc.open_file(tmp_path / "test.arrow") as reader:
        column = reader.read_all().schema.field("it").type
    assert str(column if kind is Kind.LABEL else column.value_type) == stored


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (np.zeros(4, np.float32), "label: return an array of int16 for 1,000 classes, not float32"),
        (np.zeros(4, np.uint8), "label: return an array of int16 for 1,000 classes, not uint8"),
        (np.array([0, 1, 2, 1000], np.int16), "label: value 1000 is too large: return values from 0 to 999"),
        (np.array([0, -1, 2, 3], np.int16), "label: value -1 is too small: return values from 0 to 999"),
    ],
)
def test_labels_of_another_type_or_out_of_range_are_refused_in_one_line(labels: np.ndarray, line: str) -> None:
    arrays: Arrays = {split: (images(np.arange(4)), labels) for split in SPLITS}
    with pytest.raises(Refusal) as refusal:
        check_arrays(SOURCE, arrays, 4)
    assert str(refusal.value) == f"convert of data set codes, train, {line}"


@pytest.mark.parametrize("classes", [1, 2**31 + 1])
def test_a_number_of_classes_that_cannot_be_stored_is_refused(classes: int) -> None:
    with pytest.raises(Refusal, match=f"codes, it: classes must be from 2 to 2,147,483,648, not {classes}"):
        check_source(dataclasses.replace(SOURCE, modalities=(IMAGE, with_classes(classes))))


def test_a_classifier_predicts_a_thousand_classes(codes: Dataset, tmp_path: Path) -> None:
    assert int(codes.test.take(1, torch.arange(200)).max()) > 900
    asked = Trial.create(dataset="codes", model="logreg")
    done = train(asked, codes, Checkpoints(tmp_path / "run", "one"))
    assert compute(ACCURACY, done.model, asked, codes)["test/accuracy"] > 0.95


def test_the_mvae_trains_on_a_thousand_classes_and_has_accuracy_likelihood_and_samples(
    codes: Dataset, tmp_path: Path
) -> None:
    asked = Trial.create(dataset="codes", model="mvae", targets="all", label_weight=5)
    done = train(asked, codes, Checkpoints(tmp_path / "run", "one"))
    losses = [record["metrics"]["train/loss"] for record in done.history]
    assert losses[-1] < losses[0]
    model: Any = done.model
    rows = torch.arange(200)
    with torch.no_grad():
        guess = model(codes.test.take(0, rows)).argmax(-1)
    share = float((guess == codes.test.take(1, rows)).double().mean())
    assert compute(ACCURACY, model, asked, codes)["test/accuracy"] == pytest.approx(share)
    found = split_likelihoods(model, codes.test.first(10), samples=20, seed=0, prior_samples=2000)
    assert -12 < float(found["log_x2"].mean()) < -4, "1,000 equally frequent classes: -log 1000 is -6.9"
    assert isinstance(model, Multimodal)
    assert len(sample_grids(model, codes.test, seed=0)["image_given_label"].images) == MOST_CLASSES * IMAGES_PER_ROW


def test_the_log_probabilities_of_all_classes_are_those_of_each_class_bit_for_bit() -> None:
    logits = 3 * torch.randn(50, 10, generator=torch.Generator().manual_seed(0))
    each = [Categorical().log_prob(logits, torch.full((50,), label)) for label in range(10)]
    assert torch.equal(Categorical().log_prob_of_each(logits), torch.stack(each, dim=1))
