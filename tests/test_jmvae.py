"""JMVAE: sizes of its networks, its objective against explicit formulas, and its posteriors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvae.data import Dataset, load, source
from mvae.models import arm
from mvae.models.jmvae import JMVAE, JointEncoder, negative_joint_elbo
from mvae.trial import Trial
from tests.small_models import IMAGE, LABEL, LATENTS, WIDTH, small_model

ROWS, BETA, WEIGHTS, BATCH_SIZE = 6, 0.3, (1.5, 7.0), 8


class FlatJointEncoder(nn.Module):
    """A small joint encoder for the small image and label."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(12 + 4, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 2 * LATENTS))

    def forward(self, values: list[Tensor]) -> Tensor:
        outputs: Tensor = self.net(torch.cat([values[0].flatten(1), F.one_hot(values[1], 4).double()], 1))
        return outputs


@pytest.fixture
def model() -> JMVAE:
    """A float64 model with the small networks of other tests."""

    class Networks(JMVAE):
        def __init__(self, modalities: tuple, encoders: list, decoders: list, latents: int) -> None:  # type: ignore[type-arg]
            super().__init__(modalities, encoders, FlatJointEncoder(), decoders, latents)

    made = small_model(2, Networks, normalised=False)
    assert isinstance(made, JMVAE)
    return made


@pytest.fixture
def values() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(ROWS, *IMAGE.shape, generator=generator).double(), torch.arange(ROWS) % LABEL.classes


@pytest.fixture
def noise() -> Tensor:
    return torch.randn(ROWS, LATENTS, generator=torch.Generator().manual_seed(2)).double()


def plain_elbo(model: JMVAE, values: tuple[Tensor, Tensor], noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The weighted joint ELBO row by row; and the mean and standard deviation of q(z|x1,x2)."""
    image, label = values
    mean, log_var = model.joint([image, label]).chunk(2, -1)
    deviation = torch.exp(log_var / 2)
    z = mean + deviation * noise
    pixels, classes = model.decoders[0](z), torch.log_softmax(model.decoders[1](z), -1)
    rows = []
    for i in range(ROWS):
        p = torch.sigmoid(pixels[i])
        log_image = (image[i] * p.log() + (1 - image[i]) * (1 - p).log()).sum()
        log_label = classes[i, int(label[i])]
        kl = sum((deviation[i, d] ** 2 + mean[i, d] ** 2 - 1) / 2 - deviation[i, d].log() for d in range(LATENTS))
        rows.append(WEIGHTS[0] * log_image + WEIGHTS[1] * log_label - BETA * kl)
    return torch.stack(rows), mean, deviation


def gradients(model: JMVAE, loss: Tensor) -> dict[str, Tensor | None]:
    model.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def loss(model: JMVAE, values: tuple[Tensor, Tensor], noise: Tensor, alpha: float) -> Tensor:
    return negative_joint_elbo(
        model, values, noise, alpha=alpha, beta=BETA, weights=WEIGHTS, batch_size=BATCH_SIZE
    ).total


def test_with_alpha_0_the_loss_is_the_negative_joint_elbo_and_unimodal_encoders_learn_nothing(
    model: JMVAE, values: tuple[Tensor, Tensor], noise: Tensor
) -> None:
    expected = -plain_elbo(model, values, noise)[0].sum() / BATCH_SIZE
    ours = loss(model, values, noise, alpha=0.0)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    theirs, mine = gradients(model, expected), gradients(model, ours)
    for name, gradient in mine.items():
        if name.startswith("encoders."):
            assert gradient is None
        else:
            assert gradient is not None and gradient.abs().sum() > 0
            torch.testing.assert_close(gradient, theirs[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.01, 2.0])
def test_alpha_weighs_the_kl_from_the_joint_to_each_unimodal_posterior(
    alpha: float, model: JMVAE, values: tuple[Tensor, Tensor], noise: Tensor
) -> None:
    elbo, mean, deviation = plain_elbo(model, values, noise)
    expected = -elbo.sum() / BATCH_SIZE
    for encoder, value in zip(model.encoders, values, strict=True):
        other_mean, other_log_var = encoder(value).chunk(2, -1)
        kl = torch.distributions.kl_divergence(
            torch.distributions.Normal(mean, deviation),
            torch.distributions.Normal(other_mean, torch.exp(other_log_var / 2)),
        )
        expected = expected + alpha * kl.sum() / BATCH_SIZE
    ours = loss(model, values, noise, alpha=alpha)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    theirs, mine = gradients(model, expected), gradients(model, ours)
    for name, gradient in mine.items():
        assert gradient is not None and gradient.abs().sum() > 0, name
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-10, atol=1e-12)


def test_the_logged_parts_add_up_to_the_loss(model: JMVAE, values: tuple[Tensor, Tensor], noise: Tensor) -> None:
    made = negative_joint_elbo(model, values, noise, alpha=0.5, beta=BETA, weights=WEIGHTS, batch_size=BATCH_SIZE)
    parts = made.parts
    total = BETA * parts["kl"] + 0.5 * (parts["kl_to_image"] + parts["kl_to_label"])
    total -= WEIGHTS[0] * parts["log_likelihood_image"] + WEIGHTS[1] * parts["log_likelihood_label"]
    torch.testing.assert_close(total, made.total.detach())


@pytest.mark.parametrize(
    ("dataset", "network", "golden"), [("mnist", "mlp", 2_061_184), ("fashion_mnist", "dcgan", 7_682_432)]
)
def test_inference_networks_have_the_numbers_of_parameters_of_the_published_shapes(
    dataset: str, network: str, golden: int
) -> None:
    trial = Trial.create(dataset=dataset, model="jmvae", image_network=network)
    made = arm("jmvae").build(trial, source(dataset).modalities)
    assert isinstance(made, JMVAE)
    assert sum(p.numel() for part in (made.encoders, made.joint) for p in part.parameters()) == golden


def test_on_digits_the_joint_encoder_has_width_128() -> None:
    made = arm("jmvae").build(Trial.create(dataset="digits", model="jmvae"), source("digits").modalities)
    assert isinstance(made, JMVAE)
    shapes = [tuple(p.shape) for p in made.joint.parameters() if p.dim() == 2]
    assert shapes == [(128, 64), (10, 128), (128, 256), (32, 128)]


def test_the_unimodal_networks_are_those_of_the_mvae() -> None:
    trial = Trial.create(dataset="mnist", model="jmvae")
    jmvae, mvae = (arm(token).build(trial, source("mnist").modalities) for token in ("jmvae", "mvae"))
    assert isinstance(jmvae, JMVAE)
    ours = {name: weight.shape for name, weight in jmvae.state_dict().items() if not name.startswith("joint.")}
    assert ours == {name: weight.shape for name, weight in mvae.state_dict().items()}


def test_posteriors_come_from_the_given_modalitys_encoder_without_a_universal_expert(
    model: JMVAE, values: tuple[Tensor, Tensor]
) -> None:
    for given, outputs in (
        ({0: values[0]}, model.encoders[0](values[0])),
        ({1: values[1]}, model.encoders[1](values[1])),
        ({1: values[1], 0: values[0]}, model.joint(list(values))),
    ):
        q = model.infer_at(given)
        mean, log_var = outputs.chunk(2, -1)
        assert torch.equal(q.mean, mean)
        assert torch.equal(q.log_var, log_var)


@pytest.mark.parametrize("given", [[], [2], [0, 5]])
def test_jmvae_refuses_no_or_unknown_modalities(given: list[int], model: JMVAE) -> None:
    with pytest.raises(ValueError, match=r"JMVAE needs one or more of the modalities 0 to 1: got \["):
        model.infer_at({m: torch.zeros(1, dtype=torch.int64) for m in given})


def test_some_of_many_modalities_are_joined_by_the_product_of_their_posteriors_without_a_prior_expert() -> None:
    class Apart(JMVAE):
        def encode(self, m: int, value: Tensor) -> tuple[Tensor, Tensor]:
            return value, torch.full_like(value, float(m))

    model = Apart((IMAGE, LABEL, LABEL), [nn.Identity()] * 3, nn.Identity(), [nn.Identity()] * 3, 2)
    one, other = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 0.5]])
    q = model.infer_at({0: one, 2: other})
    weights = torch.tensor([1.0, torch.e**-2.0])
    torch.testing.assert_close(q.mean, (weights[0] * one + weights[1] * other) / weights.sum())
    torch.testing.assert_close(q.log_var, -weights.sum().log().expand(1, 2))


def test_joint_encoder_outputs_outside_the_range_are_clamped() -> None:
    joint = JointEncoder([nn.Identity(), nn.Identity()], (1, 1), 2, 2)
    with torch.no_grad():
        list(joint.head.parameters())[-1].copy_(torch.tensor([0.0, 1e4]))
    model = JMVAE((IMAGE, LABEL), [nn.Identity()] * 2, joint, [nn.Identity()] * 2, 1)
    assert model.infer_at({0: torch.zeros(1, 1), 1: torch.zeros(1, 1)}).log_var.item() == 15


def test_the_prediction_is_the_label_decoded_at_the_mean_of_the_unimodal_posterior(cache: Path) -> None:
    data: Dataset = load("digits", cache=cache)
    made = arm("jmvae").build(Trial.create(dataset="digits", model="jmvae"), data.modalities)
    assert isinstance(made, JMVAE)
    image = data.test.take(0, torch.arange(20))
    torch.testing.assert_close(made(image), made.decode(1, made.encode(0, image)[0]))
