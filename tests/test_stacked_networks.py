"""Stacked networks of single attributes: each equals a separate module, alone and together with the others."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import nn

from mvae.models.mvae import MVAE
from mvae.networks.attribute import AttributeDecoders, AttributeEncoders, StackedLinear
from tests.plain_elbo import plain_attribute_decoders, plain_attribute_encoders, plain_twin
from tests.small_models import LATENTS, MANY, RULES, many_model


def test_18_stacked_encoders_and_decoders_equal_18_separate_modules() -> None:
    torch.manual_seed(0)
    stacked, decoders = AttributeEncoders(18, 7, 6).double(), AttributeDecoders(18, 7, 3, 3).double()
    separate, separate_decoders = plain_attribute_encoders(stacked), plain_attribute_decoders(decoders)
    values, z = torch.randint(2, (11, 18)), torch.randn(18, 11, 3, dtype=torch.float64)
    ours, theirs = stacked(values), torch.stack([net(values[:, a]) for a, net in enumerate(separate)], dim=1)
    torch.testing.assert_close(ours, theirs)
    logits = torch.stack([net(z[a]).squeeze(-1) for a, net in enumerate(separate_decoders)])
    torch.testing.assert_close(decoders(z), logits)
    by, of = torch.randn(11, 18, 6).double(), torch.randn(18, 11).double()
    outputs = ((ours, by), (theirs, by), (decoders(z), of), (logits, of))
    torch.autograd.backward([(output * direction).sum() for output, direction in outputs])
    for a in range(18):
        _assert_same_gradients(stacked.embedding, [separate[a][0]], a)
        _assert_same_gradients(stacked.hidden, [separate[a][2]], a)
        _assert_same_gradients(stacked.output, [separate[a][4]], a)
        for j, layer in enumerate(decoders.layers):
            _assert_same_gradients(layer, [separate_decoders[a][2 * j]], a)


def _assert_same_gradients(stacked: nn.Module | nn.Parameter, separate: list[nn.Module], a: int) -> None:
    (network,) = separate
    if isinstance(stacked, nn.Parameter):
        assert isinstance(network, nn.Embedding) and stacked.grad is not None
        torch.testing.assert_close(stacked.grad[a], network.weight.grad)
        return
    assert isinstance(stacked, StackedLinear) and isinstance(network, nn.Linear)
    assert stacked.weight.grad is not None and stacked.bias.grad is not None and network.weight.grad is not None
    torch.testing.assert_close(stacked.weight.grad[a], network.weight.grad.T)
    torch.testing.assert_close(stacked.bias.grad[a, 0], network.bias.grad)


@pytest.mark.parametrize("rule", RULES)
def test_computing_one_attribute_at_a_time_equals_computing_all_at_once(rule: str) -> None:
    model = many_model(MANY, RULES[rule]).eval()
    twin = plain_twin(model)
    values, z = torch.randint(2, (5, 18)), torch.randn(5, LATENTS).double()
    mean, spread = model.encode_attributes(values)
    at_once = model.all_attributes(z)
    log_prob = model.attributes_log_prob(z.expand(18, -1, -1), values.T)
    for a, m in enumerate(model.stacked):
        expected = twin.encoders[m](values[:, a])
        torch.testing.assert_close(torch.cat(model.encode(m, values[:, a]), dim=-1), expected)
        torch.testing.assert_close(torch.cat([mean[:, a], spread[:, a]], dim=-1), expected)
        logits = twin.decoders[m](z).squeeze(-1)
        torch.testing.assert_close(model.decode(m, z), logits)
        torch.testing.assert_close(at_once[:, a], logits)
        probability = torch.where(values[:, a] == 1, torch.sigmoid(logits), 1 - torch.sigmoid(logits)).log()
        torch.testing.assert_close(model.log_prob(m, z, values[:, a]), probability)
        torch.testing.assert_close(log_prob[a], probability)


@pytest.mark.parametrize("given", [(0,), (5,), (18,), (0, 3, 4, 18), (2, 7), tuple(range(19))])
@pytest.mark.parametrize("rule", RULES)
def test_the_posterior_given_some_of_19_modalities_equals_a_plain_sum_of_precisions(
    rule: str, given: tuple[int, ...]
) -> None:
    model = many_model(MANY, RULES[rule]).eval()
    twin = plain_twin(model).eval()
    values = {m: torch.randint(2, (6,)) if m else torch.rand(6, 2, 2, 3).double() for m in given}
    experts = [model.encode(0, values[0]) if m == 0 else twin.encoders[m](values[m]).chunk(2, -1) for m in given]
    if rule == "mvae":
        precisions = [torch.exp(-spread) for _, spread in experts]
        total = 1 + torch.stack(precisions).sum(0)
    else:
        precisions = [18 / 19 * (1 + torch.exp(-raw)) for _, raw in experts]
        total = torch.stack(precisions).sum(0) - (len(given) - 1)
    mean = torch.stack([p * mu for p, (mu, _) in zip(precisions, experts, strict=True)]).sum(0) / total
    q = model.infer_at(dict(sorted(values.items(), reverse=True)))
    torch.testing.assert_close(q.mean, mean)
    torch.testing.assert_close(q.log_var, -total.log())


def test_a_model_of_19_modalities_predicts_all_attributes_at_the_posterior_mean() -> None:
    model = many_model(MANY, MVAE).eval()
    image = torch.rand(4, 2, 2, 3).double()
    mean = model.infer_at({0: image}).mean
    expected = torch.stack([model.decode(m, mean) for m in model.stacked], dim=1)
    torch.testing.assert_close(model(image), expected)


def test_stacked_layers_are_initialised_like_torchs_layers() -> None:
    torch.manual_seed(0)
    count, inputs, outputs = 60, 12, 30
    ours = StackedLinear(count, inputs, outputs)
    theirs = [nn.Linear(inputs, outputs) for _ in range(count)]
    for mine, other in (
        (ours.weight, torch.stack([layer.weight for layer in theirs])),
        (ours.bias, torch.stack([layer.bias for layer in theirs])),
    ):
        assert mine.numel() == other.numel()
        assert stats.ks_2samp(mine.detach().flatten(), other.detach().flatten()).pvalue > 0.001
        assert 0.98 / inputs**0.5 < mine.abs().max() <= 1 / inputs**0.5
    assert len({row.tobytes() for row in ours.weight.detach().numpy()}) == count, "two networks are equal"


def test_stacked_embeddings_are_initialised_like_torchs_embeddings() -> None:
    torch.manual_seed(0)
    embedding = AttributeEncoders(18, 64, 6).embedding.detach()
    assert embedding.shape == (18, 2, 64)
    assert stats.kstest(embedding.flatten().numpy(), "norm").pvalue > 0.001
