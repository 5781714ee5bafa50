"""Training with texts: the objective against a plain loop, exact resume, accuracy by character, and samples."""

from __future__ import annotations

from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mvae.data import Dataset, Split, load
from mvae.data.mnist.multi_mnist import MULTI_MNIST
from mvae.evaluation.accuracy import matches, prediction_accuracy, text_accuracy
from mvae.evaluation.measures import compute
from mvae.evaluation.samples import sample_grids
from mvae.measure import ACCURACY
from mvae.models import arm
from mvae.models.classifiers import NeuralNetwork, NeuralNetworkLearner
from mvae.models.elbo import Loss
from mvae.models.likelihoods import Text
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import ElboLearner
from mvae.networks.text import TextDecoder
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import train
from mvae.trial import Trial
from tests.corpora import tokens_of
from tests.plain_elbo import plain_text_log_probability
from tests.small_models import RULES
from tests.small_training import assert_identical, interrupted
from tests.test_objective import Scene, assert_equal_to_the_plain_loop
from tests.tiny_mnist import write_tiny

# n texts, R rows, D latents


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """MultiMNIST of 50 canvases to train, 10 to validate, 16 to test."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder / "root", counts={"train": 60, "t10k": 16})
    return load("multi_mnist", folder / "root", folder / "cache")


def trial(model: str = "mvae", **fields: Any) -> Trial:
    return Trial.create(dataset="multi_mnist", model=model, **{"latents": 3, "epochs": 2, "batch_size": 30, **fields})


def built(model: str, tiny: Dataset) -> nn.Module:
    torch.manual_seed(0)
    return arm(model).build(trial(model), tiny.modalities)


# ---- the objective


class TextScene(Scene):
    """Rows with image and text, with only image or text, or with neither, for the real networks of MultiMNIST."""

    def __init__(self, *, reserved: bool = False) -> None:
        super().__init__(2, reserved=reserved)
        draw, count = torch.Generator().manual_seed(4), len(self.present)
        texts = torch.tensor([tokens_of("7302"[: i % 5]) for i in range(count)])
        self.examples = [torch.rand(count, 1, 50, 50, generator=draw, dtype=torch.float64), texts]
        self.weights = [1.0, 10.0]

    def loss(self, model: Multimodal, targets: str = "own", beta: float = 0.3, batch_size: int = 9) -> Loss:
        torch.manual_seed(11)
        return super().loss(model, targets, beta, batch_size)

    def plain_loss(
        self, twin: Multimodal, targets: str = "own", beta: float = 0.3, batch_size: int = 9, dropout_seed: int = 11
    ) -> Tensor:
        return super().plain_loss(twin, targets, beta, batch_size, dropout_seed)


@pytest.mark.parametrize("reserved", [False, True], ids=["mixed rows", "reserved rows"])
@pytest.mark.parametrize("targets", ["own", "all"])
@pytest.mark.parametrize("rule", RULES)
def test_with_texts_batchnorm_and_dropout_the_objective_equals_a_plain_loop(
    rule: str, targets: str, reserved: bool, tiny: Dataset
) -> None:
    model = built(rule, tiny).double()
    assert isinstance(model, Multimodal)
    assert any(isinstance(module, nn.Dropout) for module in model.modules())
    assert_equal_to_the_plain_loop(TextScene(reserved=reserved), model, targets, tolerance=1e-10)


@pytest.mark.parametrize("rule", RULES)
def test_in_float32_the_objective_with_texts_equals_a_plain_loop_to_1e_5(rule: str, tiny: Dataset) -> None:
    model = built(rule, tiny)
    assert isinstance(model, Multimodal)
    assert_equal_to_the_plain_loop(TextScene().to(torch.float32), model, "own", tolerance=1e-5)


def test_the_elbo_uses_the_weight_of_texts(tiny: Dataset) -> None:
    model = built("mvae", tiny)
    assert ElboLearner(model, trial(image_weight=2.0, label_weight=5.0, text_weight=7.0), tiny).weights == [2.0, 7.0]


def test_the_nn_minimises_the_cross_entropy_of_the_text(tiny: Dataset) -> None:
    model = built("nn", tiny).eval()
    assert isinstance(model, NeuralNetwork)
    assert isinstance(model.decoder, TextDecoder)
    learner = NeuralNetworkLearner(model, trial("nn"), tiny)
    batch = next(iter(learner.batches(0)))
    images, texts = batch.values
    mean = model.encoder(images)
    plain = [
        plain_text_log_probability(model.decoder, row, text) for row, text in zip(mean, texts.tolist(), strict=True)
    ]
    torch.testing.assert_close(learner.loss(batch, 0).total, -torch.stack(plain).mean())


# ---- training


@pytest.mark.parametrize("model", ["mvae", "nn"])
def test_a_resumed_trial_with_texts_equals_an_unbroken_one(model: str, tiny: Dataset, tmp_path: Path) -> None:
    chosen = trial(model)
    whole = train(chosen, tiny, Checkpoints(tmp_path / "whole", "one"))
    interrupted(chosen, tiny, tmp_path / "cut", epoch=1)
    assert_identical(train(chosen, tiny, Checkpoints(tmp_path / "cut", "second")), whole)
    assert all("validation/accuracy" in record["metrics"] for record in whole.history)


def test_bfloat16_training_with_texts_stays_finite(tiny: Dataset, tmp_path: Path) -> None:
    done = train(trial(precision="bfloat16", epochs=1), tiny, Checkpoints(tmp_path, "one"))
    assert np.isfinite(done.history[0]["metrics"]["train/loss"])


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("model", ["mvae", "nn"])
def test_forty_steps_on_the_real_multi_mnist_lower_the_loss(model: str, real_data: Path, cache: Path) -> None:
    data, chosen = load("multi_mnist", real_data, cache), Trial.create(dataset="multi_mnist", model=model)
    torch.manual_seed(0)
    network = arm(model).build(chosen, data.modalities).train()
    make = arm(model).learner
    assert make is not None
    learner, optimizer = make(network, chosen, data), torch.optim.Adam(network.parameters(), lr=chosen.learning_rate)
    losses = []
    for step, batch in zip(range(40), learner.batches(0), strict=False):
        loss = learner.loss(batch, step).total
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.6 * losses[0]


# ---- accuracy


class Teller(nn.Module):
    """A model with a fixed prediction for each image."""

    def __init__(self, split: Split, said: Tensor) -> None:
        super().__init__()
        images = split.take(0, torch.arange(len(split)))
        self.known = {image.numpy().tobytes(): text for image, text in zip(images, said, strict=True)}
        self.modes: set[bool] = set()

    def transcribe(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        assert not torch.is_grad_enabled()
        self.modes.add(self.training)
        return torch.stack([self.known[each.numpy().tobytes()] for each in image])


def split_of(texts: list[str]) -> Split:
    """Distinct images with these texts."""
    images = torch.arange(len(texts), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return Split((images, torch.tensor([tokens_of(text) for text in texts], dtype=torch.uint8)))


def accuracy(truth: list[str], said: list[str]) -> float:
    split = split_of(truth)
    teller = Teller(split, torch.tensor([tokens_of(text) for text in said]))
    return text_accuracy(teller, MULTI_MNIST.modalities, split)


@pytest.mark.parametrize("rows", [1, 2, 1000])
@pytest.mark.parametrize(
    ("truth", "said", "expected"),
    [
        (["12", "", "3456"], ["12", "", "3456"], 1.0),
        (["12", "", "3456"], ["", "", ""], 0.0),
        (["12", "", "3456"], ["1", "78", "3956"], 4 / 6),
        (["12"], ["21"], 0.0),
        (["12"], ["1234"], 1.0),
        (["234"], ["34"], 0.0),
    ],
    ids=["copied", "empty", "partly right", "wrong places", "beyond the end", "shifted"],
)
def test_text_accuracy_is_the_share_of_true_characters_found_at_their_place(
    truth: list[str], said: list[str], expected: float, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Split, "passes", partialmethod(Split.passes, rows))
    assert accuracy(truth, said) == expected


def test_tokens_after_a_stop_never_count_as_right() -> None:
    guess, truth = torch.tensor([[1, 10, 3, 3, 3]]), torch.tensor([[1, 2, 3, 10, 3]])
    assert matches(guess, truth, classes=12) == (1, 3)


@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_measured_in_evaluation_mode_which_is_then_restored(training: bool) -> None:
    split = split_of(["1"])
    teller = Teller(split, torch.tensor([tokens_of("1")])).train(training)
    text_accuracy(teller, MULTI_MNIST.modalities, split)
    assert teller.modes == {False}
    assert teller.training is training


def test_a_decoder_that_copies_the_text_scores_1() -> None:
    torch.manual_seed(0)
    split = split_of(["", "1", "9", "12", "21", "121", "3456", "3457", "8888", "0000"])
    z, texts = torch.eye(10), split.take(1, torch.arange(10))
    decoder = TextDecoder(12, 5, latents=10, hidden=32)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = -Text(12).log_prob(decoder(z, texts), texts).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert text_accuracy(Teller(split, decoder.greedy(z)), MULTI_MNIST.modalities, split) == 1.0
    assert torch.equal(decoder.greedy(z), texts), "predictions must end where the texts end"


@pytest.mark.parametrize("model", ["mvae", "mvae_q", "nn"])
def test_texts_are_predicted_at_the_posterior_mean_given_the_image(model: str, tiny: Dataset) -> None:
    network = built(model, tiny).eval()
    images = tiny.test.take(0, torch.arange(16))
    if isinstance(network, Multimodal):
        z, decoder = network.infer_at({0: images}).mean, network.decoders[1]
    else:
        assert isinstance(network, NeuralNetwork)
        z, decoder = network.encoder(images), network.decoder
    assert isinstance(decoder, TextDecoder)
    assert torch.equal(network.transcribe(images), decoder.greedy(z))
    drawn = [network.transcribe(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], decoder.sample(z, torch.Generator().manual_seed(0)))
    assert not torch.equal(drawn[0], drawn[2])


def test_the_accuracy_measure_scores_most_likely_and_sampled_texts_of_the_test_split(tiny: Dataset) -> None:
    network = built("mvae", tiny)
    chosen = trial()
    one, again = (compute(ACCURACY, network, chosen, tiny) for _ in range(2))
    assert one == again
    assert set(one) == {"test/accuracy", "test/accuracy-sampled"}
    assert one["test/accuracy"] == text_accuracy(network, tiny.modalities, tiny.test)
    assert one["test/accuracy"] == prediction_accuracy(network, tiny.modalities, tiny.test)
    others = {compute(ACCURACY, network, chosen.with_(seed=seed), tiny)["test/accuracy-sampled"] for seed in range(6)}
    assert len(others) > 1, "the draws do not depend on the seed"


# ---- pictures


def test_the_grids_show_images_generated_from_test_texts_next_to_the_true_ones(tiny: Dataset) -> None:
    network = built("mvae", tiny)
    assert isinstance(network, Multimodal)
    grids, again = (sample_grids(network, tiny.test, seed=0) for _ in range(2))
    assert {name: tuple(sheet.pixels.shape) for name, sheet in grids.items()} == {
        "reconstructions": (1, 2 * 51 - 1, 16 * 51 - 1),
        "image_given_text": (1, 8 * 51 - 1, 8 * 51 - 1),
        "prior": (1, 8 * 51 - 1, 8 * 51 - 1),
    }
    truth = tiny.test.take(0, torch.arange(8))
    for row in range(8):
        assert torch.equal(grids["image_given_text"].pixels[:, 51 * row : 51 * row + 50, :50], truth[row])
    assert all(torch.equal(grids[name].images, again[name].images) for name in grids)
