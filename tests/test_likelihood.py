"""Likelihoods, their means and their samples agree with torch.distributions and with probabilities."""

from __future__ import annotations

import pytest
import torch
from torch import distributions

from mvae.data.dataset import Kind, Modality
from mvae.models.likelihoods import Bernoulli, Categorical, likelihood_of


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def image_logits() -> torch.Tensor:
    return 3 * torch.randn(6, 1, 5, 4, generator=generator(), dtype=torch.float64)


@pytest.fixture
def label_logits() -> torch.Tensor:
    return 3 * torch.randn(6, 10, generator=generator(), dtype=torch.float64)


def test_bernoulli_on_black_and_white_equals_torch_distributions(image_logits: torch.Tensor) -> None:
    target = torch.bernoulli(torch.full_like(image_logits, 0.4), generator=generator(1))
    theirs = distributions.Bernoulli(logits=image_logits).log_prob(target)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(Bernoulli().log_prob(image_logits, target), theirs.sum((1, 2, 3)))


def test_bernoulli_on_grey_pixels_is_the_papers_cross_entropy(image_logits: torch.Tensor) -> None:
    grey = torch.rand(image_logits.shape, generator=generator(1), dtype=torch.float64)
    p = 1 / (1 + torch.exp(-image_logits))
    expected = (grey * p.log() + (1 - grey) * (1 - p).log()).sum((1, 2, 3))
    torch.testing.assert_close(Bernoulli().log_prob(image_logits, grey), expected)


def test_categorical_equals_torch_distributions(label_logits: torch.Tensor) -> None:
    target = torch.tensor([0, 9, 3, 3, 7, 1])
    theirs = distributions.Categorical(logits=label_logits).log_prob(target)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(Categorical().log_prob(label_logits, target), theirs)


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_log_probabilities_and_gradients_of_extreme_logits_are_finite(size: float) -> None:
    pixels = torch.tensor([[[[size, -size]]]], requires_grad=True)
    classes = torch.tensor([[size, -size]], requires_grad=True)
    unlikely = Bernoulli().log_prob(pixels, torch.tensor([[[[0.0, 1.0]]]]))
    wrong = Categorical().log_prob(classes, torch.tensor([1]))
    assert unlikely.item() == pytest.approx(-2 * size)
    assert wrong.item() == pytest.approx(-2 * size)
    (unlikely + wrong).sum().backward()  # type: ignore[no-untyped-call]
    for leaf in (pixels, classes):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


def test_means_equal_torch_distributions(image_logits: torch.Tensor, label_logits: torch.Tensor) -> None:
    torch.testing.assert_close(Bernoulli().mean(image_logits), distributions.Bernoulli(logits=image_logits).mean)
    torch.testing.assert_close(Categorical().mean(label_logits), distributions.Categorical(logits=label_logits).probs)


def test_sample_frequencies_match_the_probabilities(label_logits: torch.Tensor) -> None:
    draws = 20_000
    logits = label_logits[:1].expand(draws, -1)
    share = torch.bincount(Categorical().sample(logits, generator(2)), minlength=10) / draws
    assert (share - torch.softmax(label_logits[0], -1)).abs().max() < 0.015
    pixels = torch.tensor([-2.0, 0.0, 1.0]).view(1, 1, 1, 3).expand(draws, -1, -1, -1)
    black_or_white = Bernoulli().sample(pixels, generator(3))
    assert set(black_or_white.flatten().tolist()) == {0.0, 1.0}
    assert (black_or_white.mean((0, 1, 2)) - torch.sigmoid(pixels[0, 0, 0])).abs().max() < 0.015


def test_the_same_generator_seed_gives_equal_samples(label_logits: torch.Tensor) -> None:
    first, second = (Categorical().sample(label_logits, generator(4)) for _ in range(2))
    assert torch.equal(first, second)


def test_a_modality_gets_the_likelihood_of_its_kind() -> None:
    assert isinstance(likelihood_of(Modality("picture", Kind.IMAGE, (1, 2, 2))), Bernoulli)
    assert isinstance(likelihood_of(Modality("class", Kind.LABEL, (), classes=3)), Categorical)
