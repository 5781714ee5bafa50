"""Dynamic binarisation: bits depend only on (seed, epoch, example), and only training uses them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mvae import data, plugins
from mvae.data import Dataset
from mvae.data.mnist import binarisation
from mvae.data.mnist.binarisation import binarise, redrawn
from mvae.evaluation.readout import readout_accuracy
from mvae.measure import ACCURACY, readout
from mvae.models import ARMS, arm
from mvae.models.arm import Learner
from mvae.models.mvae import ElboBatch, ElboLearner
from mvae.refusal import Refusal
from mvae.sampling import paired_batches
from mvae.streams import derive
from mvae.supervision import paired_set
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import train, validated
from mvae.training.steps import step_signature
from mvae.trial import Trial
from mvae.workers import ALONE, Workers
from sweeps.planning.plan import Cell, plan
from sweeps.planning.probe import probed
from sweeps.store.store import Store
from sweeps.tracking.views import Catalogue
from sweeps.trials.messages import Job
from sweeps.trials.run import run
from tests.small_training import assert_identical, interrupted, unbroken
from tests.sweeping import ROOT
from tests.tiny_mnist import everything, write_tiny

SEED = 5
BY_STEPS = [token for token, known in ARMS.items() if known.learner is not None]


@pytest.fixture
def own_cache(tmp_path: Path) -> Path:
    """An empty cache for one test."""
    return tmp_path / "cache"


@pytest.fixture
def tiny(tiny_root: Path, own_cache: Path) -> Dataset:
    """BinaryMNIST with 50 training images and their grey values."""
    return data.load("binary_mnist", tiny_root, own_cache, grey=True)


def a_trial(model: str = "mvae", **fields: Any) -> Trial:
    small = {"epochs": 3, "batch_size": 20, "latents": 4, "paired_fraction": 0.2, "binarisation": "dynamic"}
    return Trial.create(dataset="binary_mnist", model=model, **{"seed": SEED, **small, **fields})


def built(trial: Trial, dataset: Dataset) -> nn.Module:
    torch.manual_seed(0)
    return arm(trial.model).build(trial, dataset.modalities)


def learner_of(trial: Trial, dataset: Dataset, workers: Workers = ALONE) -> Learner:
    make = arm(trial.model).learner
    assert make is not None
    return make(built(trial, dataset), trial, dataset, workers)


def images_of(batch: Any) -> Tensor:
    """The images of a step, float32 [n, 1, 28, 28]."""
    values = batch.values[0]
    assert isinstance(values, Tensor)
    return values


def images(learner: Learner, epoch: int) -> list[Tensor]:
    return [images_of(batch) for batch in learner.batches(epoch)]


def grey_of(dataset: Dataset) -> np.ndarray:
    assert dataset.train.grey is not None
    grey: np.ndarray = dataset.train.grey.numpy()
    return grey


def bits_by_a_plain_loop(image: np.ndarray, seed: int, epoch: int, example: int) -> np.ndarray:
    """Compares 16 random bits per pixel, from the example's part of the epoch's stream, with the grey value."""
    stream = np.random.Philox(key=derive(seed, "binarisation", epoch))
    stream.advance(example * image.size // 16)
    words = [int(word) for word in stream.random_raw(image.size // 4)]
    drawn = []
    for pixel, grey in enumerate(image.reshape(-1).tolist()):
        number = words[pixel // 4] >> 16 * (pixel % 4) & 0xFFFF
        drawn.append(255 if number < grey * 65536 // 255 else 0)
    return np.array(drawn, np.uint8).reshape(image.shape)


# The bits


def test_binarised_pixels_equal_a_plain_loop_over_examples_and_pixels(tiny: Dataset) -> None:
    grey = grey_of(tiny)
    for epoch in (0, 1, 7):
        drawn = redrawn(grey, SEED, epoch)
        for example in (0, 1, 17, 49):
            assert np.array_equal(drawn[example], bits_by_a_plain_loop(grey[example], SEED, epoch, example))


def test_a_pixel_is_white_for_exactly_its_share_of_all_possible_random_numbers() -> None:
    numbers = np.arange(65536, dtype="<u2")
    every = cast(Any, SimpleNamespace(random_raw=lambda _: np.tile(numbers, 256).view("<u8")))
    grey = np.repeat(np.arange(256, dtype=np.uint8), 65536).reshape(256, 1, 256, 256)
    white = (binarise(grey, every) == 255).reshape(256, -1).sum(axis=1)
    assert white.tolist() == [value * 65536 // 255 for value in range(256)]


def test_bits_do_not_depend_on_other_examples_or_the_chunk_size(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    grey = grey_of(tiny)
    whole = redrawn(grey, SEED, 2)
    assert np.array_equal(redrawn(grey[:13], SEED, 2), whole[:13])
    monkeypatch.setattr(binarisation, "BLOCK", 7)
    assert np.array_equal(redrawn(grey, SEED, 2), whole)


def test_every_epoch_and_every_seed_draws_its_own_bits() -> None:
    half = np.full((20, 1, 28, 28), 128, np.uint8)
    drawn = [redrawn(half, seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert 0.48 < (one == other).mean() < 0.52, "bits must agree as often as independent coins"


def test_the_mean_of_the_bits_over_many_epochs_is_the_grey_value() -> None:
    epochs, copies = 100, 20
    grey = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16), (copies, 1, 1, 1))
    mean = sum((redrawn(grey, SEED, epoch) == 255).mean(axis=0) for epoch in range(epochs)) / epochs
    p = np.arange(256) / 255
    error = np.sqrt(p * (1 - p) / (epochs * copies))
    assert np.all(np.abs(np.ravel(mean) - p) <= 4 * error + 1e-4 * (error > 0))


# Where the bits come from


def test_storing_grey_values_changes_neither_the_fixed_bits_nor_the_fingerprint(
    tiny_root: Path, own_cache: Path
) -> None:
    without = data.load("binary_mnist", tiny_root, own_cache)
    before = sorted(path.name for path in own_cache.iterdir())
    beside = data.load("binary_mnist", tiny_root, own_cache, grey=True)
    assert without.train.grey is None and without.fingerprint == beside.fingerprint
    assert all(map(torch.equal, everything(without), everything(beside)))
    grey = data.load("mnist", tiny_root, own_cache).train.values[0]
    assert beside.train.grey is not None and torch.equal(beside.train.grey, grey)
    assert beside.validation.grey is beside.test.grey is None
    assert set(before) < {path.name for path in own_cache.iterdir()}, "data converted before stay as they are"


def test_grey_values_survive_fewer_examples_and_another_device(tiny: Dataset) -> None:
    fewer = tiny.trained_on(13).train
    assert torch.equal(fewer.redrawn(SEED, 1).values[0], tiny.train.redrawn(SEED, 1).values[0][:13])
    moved = tiny.to("meta").train
    assert moved.grey is not None and moved.grey.device.type == "cpu"
    assert [value.device.type for value in moved.redrawn(SEED, 1).values] == ["meta", "meta"]


def test_a_data_set_without_grey_values_is_refused_in_one_line(
    tiny_root: Path, own_cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(Refusal, match=r"^mnist has no grey values to draw bits from: use --binarisation fixed$"):
        data.load("mnist", tiny_root, own_cache, grey=True)
    bits = data.load("binary_mnist", tiny_root, own_cache)
    with pytest.raises(ValueError, match=r"^no grey values to draw bits from: load the data set with grey=True$"):
        train(a_trial(), bits, Checkpoints(tmp_path / "run", "one"))


def test_grey_values_of_other_examples_are_refused(
    tiny_root: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny(tiny_root, "FashionMNIST", counts={"train": 66, "t10k": 12})
    monkeypatch.setitem(data.DATASETS, "binary_mnist", replace(data.source("binary_mnist"), grey="fashion_mnist"))
    line = r"^fashion_mnist cannot provide the grey values of binary_mnist, because the training examples differ: use"
    with pytest.raises(Refusal, match=line):
        data.load("binary_mnist", tiny_root, own_cache, grey=True)


# Bits that the arms see


def each_of(dataset: Dataset, epoch: int) -> dict[bytes, int]:
    """Number of each training example, by its bits in an epoch. No two examples have equal bits."""
    found = {image.tobytes(): i for i, image in enumerate(redrawn(grey_of(dataset), SEED, epoch))}
    assert len(found) == len(dataset.train)
    return found


def as_stored(images: Tensor) -> list[bytes]:
    return [image.tobytes() for image in (images * 255).to(torch.uint8).numpy()]


@pytest.mark.parametrize("model", BY_STEPS)
def test_every_arm_trained_by_steps_sees_only_the_bits_of_the_epoch(model: str, tiny: Dataset) -> None:
    learner = learner_of(a_trial(model), tiny)
    shown = {}
    for epoch in (0, 1):
        known = each_of(tiny, epoch)
        shown[epoch] = [known[image] for batch in images(learner, epoch) for image in as_stored(batch)]
    assert shown[0] != shown[1]
    pairs = set(paired_set(50, 0.2, SEED).tolist())
    assert set(shown[0]) == (pairs if model in ("nn", "jmvae", "cvae") else set(range(50)))


@pytest.mark.parametrize("pairing", ["reserved", "proportional", "resampled"])
def test_an_examples_bits_are_equal_in_single_and_paired_rows(pairing: str, tiny: Dataset) -> None:
    learner = learner_of(a_trial(pairing=pairing, targets="all"), tiny)
    assert isinstance(learner, ElboLearner)
    seen = dict[int, int]()
    for step, batch in zip(learner._steps(1), learner.batches(1), strict=True):
        assert isinstance(batch, ElboBatch)
        examples = step.index_RM[:, 0][step.index_RM[:, 0] >= 0].tolist()
        known = each_of(tiny, 1)
        assert [known[image] for image in as_stored(images_of(batch))] == examples
        for example in examples:
            seen[example] = seen.get(example, 0) + 1
    assert (max(seen.values()) > 1) == (pairing == "reserved"), "paired examples also come alone, with the same bits"


@pytest.mark.parametrize("model", BY_STEPS)
def test_several_workers_see_the_same_bits_as_one(model: str, tiny: Dataset) -> None:
    whole, *shares = (images(learner_of(a_trial(model), tiny, w), 2) for w in (ALONE, Workers(0, 2), Workers(1, 2)))
    for step, first, second in zip(whole, *shares, strict=True):
        if model.startswith("mvae"):  # each worker takes every second row of the step, and may get no image
            assert sorted(as_stored(step)) == sorted(as_stored(first) + as_stored(second))
        else:
            assert torch.equal(step[0::2], first) and torch.equal(step[1::2], second)


def test_bits_do_not_depend_on_the_order_of_the_batches(tiny: Dataset) -> None:
    small, large = (images(learner_of(a_trial("vae", batch_size=size), tiny), 1) for size in (7, 50))
    assert torch.equal(torch.cat(small), torch.cat(large))


def test_dynamic_binarisation_keeps_step_signatures_so_that_a_gpu_can_record_them(tiny: Dataset) -> None:
    learner = learner_of(a_trial(), tiny)
    made = [[step_signature(batch) for batch in learner.batches(epoch)] for epoch in (0, 1)]
    assert [one and one[0] for one in made[0]] == [one and one[0] for one in made[1]] and None not in made[0]


def test_an_arm_that_does_not_read_the_field_sees_the_fixed_bits(tiny: Dataset, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "examples" / "mvae_mean.py").read_text(encoding="utf-8")
    path = tmp_path / "own.py"
    path.write_text(text.replace("reads=MVAE_ARM.reads,", 'reads=MVAE_ARM.reads - {"binarisation"},'), encoding="utf-8")
    plugins.load(plugins.read([path]))
    dynamic, fixed = (a_trial("mvae_mean", binarisation=way) for way in ("dynamic", "fixed"))
    assert dynamic.key("f") == fixed.key("f") and not dynamic.needs_grey
    known = {image.tobytes() for image in tiny.train.values[0].numpy()}
    assert known.issuperset(image for batch in images(learner_of(dynamic, tiny), 0) for image in as_stored(batch))


# Training


@pytest.mark.parametrize("model", ["mvae", "rbm"])
def test_resumed_training_with_dynamic_bits_equals_unbroken_training(model: str, tiny: Dataset, tmp_path: Path) -> None:
    trial = a_trial(model)
    interrupted(trial, tiny, tmp_path / "key", 1)
    assert_identical(unbroken(trial, tiny, tmp_path), train(trial, tiny, Checkpoints(tmp_path / "key", "second")))


def test_fixed_bits_give_the_same_training_as_before_and_dynamic_bits_another(
    tiny: Dataset, tiny_root: Path, own_cache: Path, tmp_path: Path
) -> None:
    bits = data.load("binary_mnist", tiny_root, own_cache)
    before, beside, dynamic = (
        train(a_trial(binarisation=way), held, Checkpoints(tmp_path / name, "one"))
        for name, way, held in (("a", "fixed", bits), ("b", "fixed", tiny), ("c", "dynamic", tiny))
    )
    assert_identical(before, beside)
    for one, other in zip(before.history, dynamic.history, strict=True):
        assert one["metrics"]["train/loss"] != other["metrics"]["train/loss"]


@pytest.mark.parametrize("model", ["mvae", "vae", "cvae", "rbm"])
def test_validation_uses_the_fixed_bits(model: str, tiny: Dataset) -> None:
    module = built(a_trial(model), tiny)
    dynamic, fixed = (validated(module, a_trial(model, binarisation=way), tiny) for way in ("dynamic", "fixed"))
    assert dynamic == fixed != {}


def test_read_outs_and_logistic_regression_use_the_fixed_bits(tiny: Dataset, tmp_path: Path) -> None:
    ways = [a_trial("vae", binarisation=way) for way in ("dynamic", "fixed")]
    module = built(ways[0], tiny)
    assert len({str(readout_accuracy(readout(0.5), module, trial, tiny)) for trial in ways}) == 1
    fitted = [
        train(trial.with_(model="logreg"), tiny, Checkpoints(tmp_path / trial.binarisation, "one")) for trial in ways
    ]
    assert_identical(*fitted)


def test_the_nn_reuses_one_draw_of_bits_within_an_epoch(tiny: Dataset) -> None:
    learner, known = learner_of(a_trial("nn"), tiny), each_of(tiny, 0)
    order = [index.tolist() for index in paired_batches(50, paired_set(50, 0.2, SEED), 20, SEED, 0)]
    assert [[known[image] for image in as_stored(batch)] for batch in images(learner, 0)] == order


# A trial's process, MLflow and the probe


def test_a_job_loads_grey_values_and_its_run_names_the_binarisation(tiny_root: Path, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "storage", "main", create=True)
    mark, trial = data.fingerprint("binary_mnist", tiny_root), a_trial("nn")
    words: list[Any] = []
    run(Job(trial.key(mark), trial, (ACCURACY,), store, tiny_root, tmp_path / "cache"), words.append)
    assert words[-1].done, words[-1].details
    (result,) = store.results
    assert result.trial["binarisation"] == "dynamic"
    cell = Cell("NN", 0.2, trial, ACCURACY, None, "nn")
    assert Catalogue(plan([cell], store, mark), store, mark).view(trial.key(mark)).fields["binarisation"] == "dynamic"
    assert probed(trial, (), mark, tiny_root, tmp_path / "cache"), "the probe times it without grey values"
