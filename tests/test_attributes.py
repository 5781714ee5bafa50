"""Prediction of attributes from the image: scores of samples and of the most likely values, and independent noise."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mvae.data import source
from mvae.data.dataset import Kind, Modality
from mvae.data.examples import Dataset, Split
from mvae.evaluation import attributes
from mvae.evaluation.attributes import attribute_metrics, likeliest_attributes, sampled_attributes
from mvae.evaluation.measurable import check_measurable
from mvae.evaluation.measures import compute
from mvae.measure import ACCURACY, ATTRIBUTE_ACCURACY
from mvae.models import arm
from mvae.models.multimodal import Multimodal
from mvae.refusal import Refusal
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import train, validated
from mvae.trial import Trial

NAMES = ("bald", "hat", "smile")
IMAGE = Modality("image", Kind.IMAGE, (1, 8, 8))
LAYOUTS = {
    "apart": (IMAGE, *(Modality(name, Kind.ATTRIBUTE, (), classes=2) for name in NAMES)),
    "together": (IMAGE, Modality("attributes", Kind.ATTRIBUTES, (3,), attributes=NAMES)),
}
SHARES = (0.1, 0.5, 0.8)
"""Share of examples that have each attribute."""
NUMBERS = ("accuracy", "balanced_accuracy", "accuracy_likeliest", "balanced_accuracy_likeliest", "majority")

each_layout = pytest.mark.parametrize("layout", list(LAYOUTS))


def split_of(values: Tensor, layout: str) -> Split:
    """Examples with the given attributes, [N, 3]. The first pixels of each image show them, the others are noise."""
    draw = torch.Generator().manual_seed(len(values))
    images = torch.randint(256, (len(values), 1, 8, 8), generator=draw, dtype=torch.uint8)
    images[:, 0, 0, :3] = values * 255
    return Split((images, *values.unbind(1)) if layout == "apart" else (images, values))


def shares(n: int, of_each: tuple[float, ...] = SHARES) -> Tensor:
    """Attributes [n, 3] with exactly the given shares of ones, in random order."""
    draw = torch.Generator().manual_seed(n)
    columns = [(torch.randperm(n, generator=draw) < round(share * n)).to(torch.uint8) for share in of_each]
    return torch.stack(columns, dim=1)


def dataset(layout: str, test: Tensor, train: Tensor | None = None) -> Dataset:
    own = split_of(test, layout)
    return Dataset("faces", LAYOUTS[layout], "", split_of(shares(50) if train is None else train, layout), own, own)


def built(layout: str, token: str = "mvae") -> Multimodal:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = arm(token).build(trial(token), LAYOUTS[layout])
    assert isinstance(model, Multimodal)
    return model


def trial(token: str = "mvae", **fields: Any) -> Trial:
    return Trial.create(dataset="digits", model=token, **fields)


class Encoder(nn.Module):
    """The means are two copies of the image's first row of pixels, scaled to -1 to 1. All log-variances are equal."""

    def __init__(self, log_var: float) -> None:
        super().__init__()
        self.log_var = log_var

    def forward(self, image: Tensor) -> Tensor:
        mean = image[:, 0, 0].repeat(1, 2) * 2 - 1
        return torch.cat([mean, torch.full_like(mean, self.log_var)], dim=-1)


class Decoder(nn.Module):
    """Logits are `slope` times the latent with the attribute's number, plus a constant per attribute."""

    def __init__(self, slope: float = 0.0, constant: tuple[float, ...] = (0.0, 0.0, 0.0)) -> None:
        super().__init__()
        self.slope, self.constant = slope, torch.tensor(constant)

    def forward(self, z: Tensor, only: slice = slice(None)) -> Tensor:
        if z.ndim == 2:
            return self.slope * z[:, :3] + self.constant
        own = range(3)[only]
        return torch.stack([self.slope * rows[:, a] + self.constant[a] for rows, a in zip(z, own, strict=True)])


def model_of(layout: str, decoder: Decoder, log_var: float = -15.0) -> Multimodal:
    """A model whose q(z|image) is the encoder above times the prior; `decoder` gives the attributes."""
    model = built(layout)
    model.encoders[0] = Encoder(log_var)
    if layout == "apart":
        model.attribute_decoders = decoder  # type: ignore[assignment]
    else:
        model.decoders[1] = decoder
    return model


@each_layout
def test_a_decoder_that_knows_the_attributes_scores_1(layout: str) -> None:
    metrics = attribute_metrics(model_of(layout, Decoder(slope=1000)), dataset(layout, shares(60)), seed=0)
    assert {value for name, value in metrics.items() if "majority" not in name} == {1.0}


@each_layout
def test_predicting_the_majority_scores_its_rate_and_one_half_when_balanced(layout: str) -> None:
    model = model_of(layout, Decoder(constant=(-1000.0, 1000.0, 1000.0)))
    metrics = attribute_metrics(model, dataset(layout, shares(60), train=shares(50, (0.2, 0.6, 0.9))), seed=0)
    for name, rate in zip(NAMES, (0.9, 0.5, 0.8), strict=True):
        for number in ("accuracy", "accuracy_likeliest", "majority"):
            assert metrics[f"test/attribute_{number}/{name}"] == pytest.approx(rate)
        for number in ("balanced_accuracy", "balanced_accuracy_likeliest"):
            assert metrics[f"test/attribute_{number}/{name}"] == 0.5
    assert metrics["test/attribute_accuracy"] == pytest.approx(2.2 / 3)
    assert metrics["test/attribute_balanced_accuracy"] == 0.5


@each_layout
def test_the_majority_class_comes_from_the_training_split_and_its_rate_from_the_test_split(layout: str) -> None:
    test, train = shares(50, (0.1, 0.1, 0.7)), shares(40, (0.9, 0.1, 0.9))
    metrics = attribute_metrics(built(layout), dataset(layout, test, train), seed=0)
    for name, rate in zip(NAMES, (0.1, 0.9, 0.7), strict=True):
        assert metrics[f"test/attribute_majority/{name}"] == pytest.approx(rate)
    assert metrics["test/attribute_majority"] == pytest.approx(1.7 / 3)


@pytest.mark.parametrize(("says", "score"), [(-1000.0, 1.0), (1000.0, 0.0)])
@each_layout
def test_an_attribute_absent_from_the_test_split_is_scored_on_its_negatives(
    layout: str, says: float, score: float
) -> None:
    model = model_of(layout, Decoder(constant=(0.0, says, 0.0)))
    metrics = attribute_metrics(model, dataset(layout, shares(60, (0.5, 0.0, 0.5))), seed=0)
    for number in NUMBERS[:-1]:
        assert metrics[f"test/attribute_{number}/hat"] == score
    assert all(math.isfinite(value) for value in metrics.values())


@each_layout
def test_a_model_that_knows_only_the_share_p_has_sampled_accuracy_p_squared_plus_1_minus_p_squared(layout: str) -> None:
    n, of_each = 4000, (0.1, 0.4, 0.6)
    model = model_of(layout, Decoder(constant=tuple(math.log(p / (1 - p)) for p in of_each)))
    data = dataset(layout, shares(n, of_each))
    metrics = attribute_metrics(model, data, seed=0)
    for name, p in zip(NAMES, of_each, strict=True):
        error = math.sqrt(p * (1 - p) / n)
        assert metrics[f"test/attribute_accuracy/{name}"] == pytest.approx(p**2 + (1 - p) ** 2, abs=4 * error)
        assert metrics[f"test/attribute_accuracy_likeliest/{name}"] == pytest.approx(max(p, 1 - p))
        balanced = math.sqrt(sum(p * (1 - p) / (n * share) for share in (p, 1 - p))) / 2
        assert metrics[f"test/attribute_balanced_accuracy/{name}"] == pytest.approx(0.5, abs=4 * balanced)
    drawn = sampled_attributes(model, data.test, seed=0).double().T
    correlations = torch.corrcoef(drawn)[~torch.eye(3, dtype=torch.bool)]
    assert correlations.abs().max() < 4 / math.sqrt(n), "attributes share their noise"


@each_layout
def test_samples_draw_z_from_q_and_the_most_likely_attributes_use_its_mean(layout: str) -> None:
    n = 4000
    data = dataset(layout, torch.ones(n, 3, dtype=torch.uint8))
    metrics = attribute_metrics(model_of(layout, Decoder(slope=1e6), log_var=0.0), data, seed=0)
    # an expert N(1, 1) times the prior N(0, 1) is N(1/2, 1/2)
    positive = NormalDist(0.5, math.sqrt(0.5)).cdf(1.0)
    error = 4 * math.sqrt(positive * (1 - positive) / n)
    for name in NAMES:
        assert metrics[f"test/attribute_accuracy/{name}"] == pytest.approx(positive, abs=error)
        assert metrics[f"test/attribute_accuracy_likeliest/{name}"] == 1.0


@pytest.mark.parametrize("rows", [1, 7, 1000])
@each_layout
def test_results_do_not_depend_on_chunks_or_the_order_of_examples(
    layout: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, split = built(layout), dataset(layout, shares(40)).test
    whole, likeliest = sampled_attributes(model, split, seed=3), likeliest_attributes(model, split)
    assert whole.any() and not whole.all()
    monkeypatch.setattr(attributes, "IMAGES_PER_PASS", rows)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:25]
    assert torch.equal(sampled_attributes(model, split, seed=3, examples=order.tolist()), whole[order])
    assert torch.equal(likeliest_attributes(model, split), likeliest)


@each_layout
def test_samples_depend_on_the_seed(layout: str) -> None:
    model, data = built(layout), dataset(layout, shares(40))
    one, same, other = (attribute_metrics(model, data, seed) for seed in (3, 3, 4))
    assert one == same
    assert one["test/attribute_accuracy"] != other["test/attribute_accuracy"]
    assert one["test/attribute_accuracy_likeliest"] == other["test/attribute_accuracy_likeliest"]


@pytest.mark.parametrize(
    ("token", "layout"), [("mvae", "apart"), ("mvae_q", "apart"), ("mvae", "together"), ("jmvae", "together")]
)
def test_the_measure_gives_five_numbers_per_attribute_and_their_means(token: str, layout: str) -> None:
    metrics = compute(ATTRIBUTE_ACCURACY, built(layout, token), trial(token), dataset(layout, shares(30)))
    assert ATTRIBUTE_ACCURACY.metric in metrics
    assert set(metrics) == {
        f"test/attribute_{number}{end}" for number in NUMBERS for end in ("", *(f"/{n}" for n in NAMES))
    }
    for number in NUMBERS:
        own = [metrics[f"test/attribute_{number}/{name}"] for name in NAMES]
        assert metrics[f"test/attribute_{number}"] == pytest.approx(sum(own) / 3)


# Validation


@pytest.mark.parametrize("training", [True, False])
@each_layout
def test_validation_scores_the_most_likely_attributes_and_restores_the_modules_mode(
    layout: str, training: bool
) -> None:
    model, data = built(layout).train(training), dataset(layout, shares(40))
    test = attribute_metrics(model, data, seed=0)
    elsewhere = dataclasses.replace(data, test=split_of(shares(40, (0.7, 0.9, 0.2)), layout))
    assert validated(model, trial(), elsewhere) == {
        f"validation/attribute_{number}": test[f"test/attribute_{number}_likeliest"]
        for number in ("accuracy", "balanced_accuracy")
    }
    assert model.training is training


def test_an_arm_that_predicts_no_attributes_validates_without_them() -> None:
    vae = arm("vae").build(trial("vae"), LAYOUTS["apart"])
    assert set(validated(vae, trial("vae"), dataset("apart", shares(20)))) == {"validation/elbo"}


@each_layout
def test_a_trained_mvae_predicts_attributes_from_the_image(layout: str, tmp_path: Path) -> None:
    values = shares(400, (0.2, 0.5, 0.8))
    data = dataset(layout, shares(100), values)
    for split in (data.train, data.test):
        images, shown = split.values[0], split.values[0][:, 0, 0, :3].clone()
        images[:, 0] = 0
        for a in range(3):  # each attribute lights up two separate rows
            images[:, 0, 2 * a : 2 * a + 2] = shown[:, a, None, None]
    asked = trial(epochs=20, learning_rate=3e-3, attribute_weight=10.0)
    trained = train(asked, data, Checkpoints(tmp_path / "key", "one"))
    metrics = compute(ATTRIBUTE_ACCURACY, trained.model, asked, data)
    assert metrics["test/attribute_balanced_accuracy_likeliest"] > 0.95
    assert metrics["test/attribute_balanced_accuracy"] > 0.85
    last = trained.history[-1]["metrics"]
    assert last["validation/attribute_accuracy"] == metrics["test/attribute_accuracy_likeliest"]


# Bad input


def refusal(*asked: Any) -> str:
    with pytest.raises(Refusal) as refused:
        check_measurable(*asked)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_an_impossible_measure_is_refused_in_one_line() -> None:
    no_attributes = refusal(ATTRIBUTE_ACCURACY, "mvae", source("digits"))
    assert no_attributes.startswith("digits has no attributes to predict: choose among ")
    assert "mnist19" in no_attributes and "fashion_mnist" not in no_attributes
    no_label = refusal(ACCURACY, "mvae", source("mnist19"))
    assert no_label.startswith("mnist19 has no label or text to predict: choose among digits, ")
    assert (
        refusal(ATTRIBUTE_ACCURACY, "vae", source("mnist19"))
        == "arm vae has no attributes: choose among jmvae, mvae, mvae_q"
    )
    check_measurable(ATTRIBUTE_ACCURACY, "mvae", source("mnist19"))
    with pytest.raises(Refusal, match=r"^faces has no label or text to predict"):
        compute(ACCURACY, built("apart"), trial(), dataset("apart", shares(10)))
