"""Likelihood estimates with attributes, single or joint, as x2: against integrals over z and a simple loop."""

from __future__ import annotations

import copy
import dataclasses
import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from mvae import data as datasets
from mvae.data.dataset import Kind, Modality
from mvae.data.examples import Split
from mvae.data.mnist.mnist19 import MNIST19
from mvae.evaluation.importance import Noise
from mvae.evaluation.likelihood_estimates import split_likelihoods
from mvae.evaluation.measures import estimates
from mvae.models import arm
from mvae.models.cvae import CVAE
from mvae.models.gaussian import Gaussian, standard_log_prob
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import MVAE
from mvae.networks.attribute import AttributeDecoders, AttributeEncoders, AttributesDecoder, AttributesEncoder
from mvae.networks.normalisation import TermBatchNorm
from mvae.trial import Trial
from tests.linear_gaussian import normal_log_prob

F64 = torch.float64
CPU = torch.device("cpu")
SEED = 5
NAMES = ("marginal", "joint", "conditional")
IMAGE = Modality("image", Kind.IMAGE, (1, 8, 8))
APART = tuple(Modality(name, Kind.ATTRIBUTE, (), classes=2) for name in "abcde")
TOGETHER = Modality("attributes", Kind.ATTRIBUTES, (5,), attributes=tuple("abcde"))
LAYOUTS = {"apart": (IMAGE, *APART), "together": (IMAGE, TOGETHER)}


def split_of(images: Tensor, attributes: Tensor, layout: str) -> Split:
    """Examples with the given attributes, [N, A]."""
    return Split((images, *attributes.unbind(1)) if layout == "apart" else (images, attributes))


def examples(layout: str, n: int = 5) -> Split:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 1, 8, 8), generator=draw, dtype=torch.uint8)
    return split_of(images, torch.randint(2, (n, 5), generator=draw, dtype=torch.uint8), layout)


def lively(model: nn.Module) -> nn.Module:
    """Sets running statistics to values as after some training."""
    for module in model.modules():
        if isinstance(module, TermBatchNorm):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def built(token: str, layout: str) -> nn.Module:
    """An untrained model whose decoders depend on z."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        trial = Trial.create(dataset="digits", model=token, latents=4)
        model = arm(token).build(trial, LAYOUTS[layout])
        if isinstance(model, Multimodal):
            with torch.no_grad():
                for decoder in (model.decoders, model.attribute_decoders):
                    for parameter in decoder.parameters() if decoder else ():
                        parameter.mul_(2)
        return lively(model)


# The integral over z

LINE = torch.linspace(-12, 12, 24_001, dtype=F64)


def tiny(layout: str) -> tuple[MVAE, Split]:
    """One latent, three attributes and 2x2 images: all 8 sets of attributes with 8 images each.

    Every expert is wide, so no proposal has lighter tails than its target, and the errors are finite.
    """
    image = Modality("image", Kind.IMAGE, (1, 2, 2))
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (64, 1, 2, 2), generator=draw, dtype=torch.uint8)
    attributes = torch.tensor(list(product((0, 1), repeat=3)), dtype=torch.uint8).repeat(8, 1)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        encoders: list[nn.Module] = [nn.Sequential(nn.Flatten(), nn.Linear(4, 2))]
        decoders: list[nn.Module] = [
            nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 4), nn.Unflatten(1, (1, 2, 2)))
        ]
        if layout == "apart":
            stacked = AttributeEncoders(3, 4, 2), AttributeDecoders(3, 6, 1, layers=1)
            model = MVAE((image, *APART[:3]), encoders, decoders, 1, stacked)
            last: list[Tensor] = [stacked[0].output.bias]
        else:
            of_all = AttributesEncoder(3, 2)
            together = dataclasses.replace(TOGETHER, shape=(3,), attributes=tuple("abc"))
            model = MVAE((image, together), [*encoders, of_all], [*decoders, AttributesDecoder(3, 1, 1)], 1)
            last = [of_all.layers[-1].bias]  # type: ignore[list-item]
        with torch.no_grad():
            for decoder in (model.decoders[0], model.attribute_decoders or model.decoders[1]):
                for parameter in decoder.parameters():
                    parameter.mul_(3)
            for bias in (encoders[0][1].bias, *last):  # type: ignore[index]
                bias[..., 1] += 3
        lively(model)
    return model.double(), split_of(images, attributes, layout)


@torch.no_grad()
def integrals(model: MVAE, split: Split) -> dict[str, Tensor]:
    """log p(x1), log p(x2), log p(x1, x2) and log p(x1 | x2) of each example, by a sum over a fine grid of z."""
    z = LINE.unsqueeze(1)
    each = []
    for m in range(len(model.modalities)):
        logits = model.decode(m, z).view(len(z), -1)
        values = split.take(m, torch.arange(len(split))).double().view(len(split), -1)
        each.append(values @ F.logsigmoid(logits).T + (1 - values) @ F.logsigmoid(-logits).T)
    first, second = each[0], torch.stack(each[1:]).sum(0)
    weight = standard_log_prob(z) + math.log(LINE[1] - LINE[0])
    found = {
        name: torch.logsumexp(of + weight, 1)
        for name, of in (("marginal", first), ("x2", second), ("joint", first + second))
    }
    return found | {"conditional": found["joint"] - found["x2"]}


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_estimates_agree_with_integrals_over_z_within_three_standard_errors(layout: str) -> None:
    model, split = tiny(layout)
    truth = integrals(model, split)
    assert_close(truth["x2"][:8].exp().sum(), torch.ones((), dtype=F64))  # of all 8 sets of attributes
    assert truth["x2"].max() - truth["x2"].min() > 1
    assert (truth["joint"] - truth["marginal"] - truth["x2"]).abs().max() > 0.1, "x1 and x2 must depend on each other"
    found = split_likelihoods(model, split, samples=2000, seed=0, dtype=F64)
    for name in (*NAMES, *(f"{name}-x1" for name in NAMES), "x2", "x2_prior"):
        error = (found[f"log_{name}"] - truth[name.removesuffix("-x1").removesuffix("_prior")]).abs()
        standard = found[f"se_{name}"]
        assert (error <= 3 * standard + 1e-9).double().mean() >= 0.95, name
        assert 0.4 < float((error / standard).median()) < 1, name
        assert standard.max() < 0.15, name


# The literal loop


@torch.no_grad()
def literal(model: Multimodal, split: Split, samples: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Loops over examples, samples and attributes; shares only its noise with the estimator."""
    model = copy.deepcopy(model).to(dtype).eval()
    others = range(1, len(model.modalities))

    def attribute_logits(z: Tensor) -> list[Tensor]:
        if not model.stacked:
            return list(model.decoders[1](z.unsqueeze(0))[0])
        assert model.attribute_decoders is not None
        logits = []
        for a in range(len(model.stacked)):
            x = z
            for i, layer in enumerate(model.attribute_decoders.layers):
                weight, bias = layer.get_parameter("weight")[a], layer.get_parameter("bias")[a, 0]
                x = (F.silu(x) if i else x) @ weight + bias
            logits.append(x[0])
        return logits

    def log_image(z: Tensor, image: Tensor) -> Tensor:
        logits = model.decoders[0](z.to(dtype).unsqueeze(0))
        return -F.binary_cross_entropy_with_logits(logits, image.to(dtype), reduction="none").double().sum()

    def log_attributes(z: Tensor, attributes: Tensor) -> Tensor:
        each = [
            F.logsigmoid(logit if holds else -logit).double()
            for logit, holds in zip(attribute_logits(z.to(dtype)), attributes, strict=True)
        ]
        return torch.stack(each).sum()

    def density(z: Tensor, q: Gaussian) -> Tensor:
        return normal_log_prob(z, q.mean[0].double(), (q.log_var[0].double() / 2).exp()).sum()

    def drawn(q: Gaussian, noise: Tensor) -> Tensor:
        return q.mean[0].double() + (q.log_var[0].double() / 2).exp() * noise

    def log_mean(log_w: list[Tensor]) -> Tensor:
        return torch.logsumexp(torch.stack(log_w), 0) - math.log(len(log_w))

    prior = Gaussian(*torch.zeros(2, 1, model.latents, dtype=F64))
    told: dict[str, list[Tensor]] = {}
    for example in range(len(split)):
        image, *values = (split.take(m, torch.tensor([example])) for m in range(len(model.modalities)))
        attributes = torch.cat(values).flatten()
        given = {0: image.to(dtype), **dict(zip(others, values, strict=True))}
        of_x2 = model.infer_at({m: given[m] for m in others})
        noise = Noise(SEED, "likelihood of x2", [example], 2 * model.latents, CPU).next(samples // 2)[0]
        halves: tuple[list[Tensor], list[Tensor]] = ([], [])
        for of_q, of_prior in (pair.chunk(2) for pair in noise):
            for half, z in zip(halves, (drawn(of_x2, of_q), of_prior), strict=True):
                log_r = torch.logsumexp(torch.stack([density(z, of_x2), density(z, prior)]), 0) - math.log(2)
                half.append(torch.stack([log_attributes(z, attributes), density(z, prior) - log_r]))
        log_x2 = log_mean([parts.sum() for half in halves for parts in half])
        told.setdefault("log_x2", []).append(log_x2)
        told.setdefault("log_x2_prior", []).append(log_mean([parts[0] for parts in halves[1]]))
        for suffix, q in (("-x1", model.infer_at({0: given[0]})), ("", model.infer_at(given))):
            rows = []
            for one in Noise(SEED, "likelihood", [example], model.latents, CPU).next(samples)[0]:
                z = drawn(q, one)
                marginal = log_image(z, image) + density(z, prior) - density(z, q)
                conditional = log_image(z, image) + density(z, of_x2) - density(z, q)
                rows.append(torch.stack([marginal, marginal + log_attributes(z, attributes), conditional]))
            log_w = torch.stack(rows, 1)
            estimate = [log_mean(list(log_w[0])), log_mean(list(log_w[1])), log_mean(list(log_w[1])) - log_x2]
            for i, name in enumerate(NAMES):
                told.setdefault(f"log_{name}{suffix}", []).append(estimate[i])
                told.setdefault(f"variance_{name}{suffix}", []).append(log_w[i].var())
    return {name: torch.stack(values) for name, values in told.items()}


@pytest.mark.parametrize(
    ("token", "layout"),
    [("mvae", "apart"), ("mvae_q", "apart"), ("mvae", "together"), ("mvae_q", "together"), ("jmvae", "together")],
)
@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(F64, 0, 1e-8), (torch.float32, 1e-6, 1e-6)])
def test_estimates_equal_those_of_the_literal_loop(
    token: str, layout: str, dtype: torch.dtype, rtol: float, atol: float
) -> None:
    model, split = built(token, layout), examples(layout)
    assert isinstance(model, Multimodal)
    expected = literal(model, split, samples=30, dtype=dtype)
    found = split_likelihoods(model, split, samples=30, seed=SEED, dtype=dtype, rows=64)
    for name, values in expected.items():
        loose = 1 if name.startswith("log") else 10
        assert_close(found[name], values, rtol=rtol * loose, atol=atol * loose)


@torch.no_grad()
def test_a_cvaes_likelihood_given_attributes_is_the_mean_weight_of_its_samples() -> None:
    model, split = built("cvae", "together").double(), examples("together")
    assert isinstance(model, CVAE)
    found = split_likelihoods(model, split, samples=12, seed=SEED, dtype=F64)
    assert set(found) == {f"{what}_conditional" for what in ("log", "se", "ess", "variance")}
    for example in range(len(split)):
        image, given = (split.take(m, torch.tensor([example])) for m in (0, 1))
        q = model.infer_at({0: image.double(), 1: given})
        log_w = []
        for noise in Noise(SEED, "likelihood", [example], model.latents, CPU).next(12)[0]:
            z = q.mean + (q.log_var / 2).exp() * noise
            logits = model.decoder(torch.cat([z, given.double()], dim=-1))
            log_image = -F.binary_cross_entropy_with_logits(logits, image.double(), reduction="sum")
            log_w.append(log_image + standard_log_prob(z)[0] - q.log_prob(z)[0])
        expected = torch.logsumexp(torch.stack(log_w), 0) - math.log(12)
        assert_close(found["log_conditional"][example], expected, atol=1e-8, rtol=0)


@pytest.mark.parametrize("rows", [1, 7, 100_000])
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_results_do_not_depend_on_chunks_or_the_order_of_examples(layout: str, rows: int) -> None:
    model, split = built("mvae", layout), examples(layout)
    whole = split_likelihoods(model, split, samples=30, seed=SEED, dtype=F64)
    order = [4, 1, 0, 2]
    found = split_likelihoods(model, split, samples=30, seed=SEED, dtype=F64, rows=rows, examples=order)
    for name, values in found.items():
        assert_close(values, whole[name][order], rtol=0, atol=1e-9)


def test_single_attributes_are_decoded_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    forward = AttributeDecoders.forward

    def counted(self: AttributeDecoders, z: Tensor, only: slice = slice(None)) -> Tensor:
        calls.append(tuple(z.shape))
        return forward(self, z, only)

    monkeypatch.setattr(AttributeDecoders, "forward", counted)
    split_likelihoods(built("mvae", "apart"), examples("apart", 2), samples=10, seed=0, proposals=["x1x2"])
    assert calls == [(5, 20, 4)] * 2  # once for log p(x2), once for the joint likelihood


@pytest.mark.parametrize(
    ("token", "layout"),
    [("mvae", "apart"), ("mvae_q", "apart"), ("vae", "apart"), *((t, "together") for t in ("mvae", "jmvae", "cvae"))],
)
def test_the_columns_declared_for_an_arm_are_those_its_model_gives(
    token: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = dataclasses.replace(MNIST19.defaults, k=0)
    named = dataclasses.replace(MNIST19, name="portraits", modalities=LAYOUTS[layout], defaults=defaults)
    monkeypatch.setitem(datasets.DATASETS, "portraits", named)
    found = split_likelihoods(built(token, layout), examples(layout, 2), samples=2, seed=0)
    promised = {name.removeprefix("test/") for name in estimates(Trial.create(dataset="portraits", model=token))}
    assert promised == set(found) - {"se_x2", "se_x2_prior"}
    assert ("log_x2_prior" in promised) == (token not in ("vae", "cvae"))
