"""The sub-sampled ELBO as a plain loop: for each term, encode again, multiply experts row by row, decode again, add up.

It shares only the networks with `mvae.models.elbo`. Batch normalisation is torch's own, applied to the rows of one term
at a time; the running statistics are updated at the end. Each single attribute has its own encoder and decoder,
made of torch's layers with copies of its slice of the stacked parameters. Slow, but easy to verify by reading.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvae.data.dataset import Kind
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import MVAEQ
from mvae.networks.attribute import AttributeDecoders, AttributeEncoders
from mvae.networks.normalisation import TermBatchNorm
from mvae.networks.text import TextDecoder

# R rows, M modalities, T terms, D latents, A single attributes


class PlainBatchNorm(nn.Module):
    """torch's batch normalisation of one term's rows; remembers the rows it saw and updates no running statistics."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, twin: TermBatchNorm) -> None:
        super().__init__()
        self.eps, self.momentum = twin.eps, twin.momentum
        self.weight = nn.Parameter(twin.weight.detach().clone())
        self.bias = nn.Parameter(twin.bias.detach().clone())
        self.register_buffer("running_mean", twin.running_mean.clone())
        self.register_buffer("running_var", twin.running_var.clone())
        self.passes: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        if len(x) < 2:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        by_channel = x.detach().transpose(0, 1).flatten(1)
        self.passes.append((by_channel.mean(1), by_channel.var(1)))
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)

    def move(self, passes: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Updates the running statistics once, towards the mean over several passes."""
        if passes:
            mean = sum((p[0] for p in passes), torch.zeros_like(self.running_mean)) / len(passes)
            variance = sum((p[1] for p in passes), torch.zeros_like(self.running_var)) / len(passes)
            self.running_mean = (1 - self.momentum) * self.running_mean + self.momentum * mean
            self.running_var = (1 - self.momentum) * self.running_var + self.momentum * variance


def plain_twin(model: Multimodal) -> Multimodal:
    """Copies a model, with plain normalisation and separate networks for single attributes.

    Parameters keep the names that they have in the model, except for single attributes: see `named_as_in`.
    """
    twin = copy.deepcopy(model)
    for parent in list(twin.modules()):
        for name, child in parent.named_children():
            if isinstance(child, TermBatchNorm):
                setattr(parent, name, PlainBatchNorm(child))
    if twin.attribute_encoders is not None and twin.attribute_decoders is not None:
        twin.encoders.extend(plain_attribute_encoders(twin.attribute_encoders))
        twin.decoders.extend(plain_attribute_decoders(twin.attribute_decoders))
        twin.attribute_encoders = twin.attribute_decoders = None
    return twin


def plain_attribute_encoders(stacked: AttributeEncoders) -> list[nn.Sequential]:
    """A networks Embedding(2, hidden), FC hidden-hidden, outputs, with Swish between; input int64 [n]."""
    networks = []
    for a, embedding in enumerate(stacked.embedding.detach()):
        layers = [_plain_linear(layer.weight[a], layer.bias[a]) for layer in (stacked.hidden, stacked.output)]
        embedded = nn.Embedding(2, embedding.shape[1], _weight=embedding.clone())
        networks.append(nn.Sequential(embedded, nn.SiLU(), layers[0], nn.SiLU(), layers[1]))
    return networks


def plain_attribute_decoders(stacked: AttributeDecoders) -> list[nn.Sequential]:
    """A networks of linear layers with Swish between; output logits [n, 1]."""
    networks = []
    for a in range(len(stacked.layers[0].weight)):  # type: ignore[arg-type]
        steps: list[nn.Module] = []
        for layer in stacked.layers:
            steps += [_plain_linear(layer.weight[a], layer.bias[a]), nn.SiLU()]  # type: ignore[index]
        networks.append(nn.Sequential(*steps[:-1]))
    return networks


def _plain_linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer from weights [inputs, outputs] and biases [1, outputs]."""
    layer = nn.Linear(weight.shape[0], weight.shape[1], dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight.T)
        layer.bias.copy_(bias.squeeze(0))
    return layer


def named_as_in(model: Multimodal, of_twin: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values or gradients of the twin's parameters, with the model's names and shapes."""
    positions = list(model.stacked)
    if not positions:
        return dict(of_twin)
    separate = tuple(f"{coder}coders.{m}." for coder in ("en", "de") for m in positions)
    named = {name: value for name, value in of_twin.items() if not name.startswith(separate)}

    def stacked(coder: str, step: int, parameter: str) -> Tensor:
        return torch.stack([of_twin[f"{coder}.{m}.{step}.{parameter}"] for m in positions])

    named["attribute_encoders.embedding"] = stacked("encoders", 0, "weight")
    assert model.attribute_decoders is not None
    depth = len(model.attribute_decoders.layers)
    layers = {f"attribute_decoders.layers.{j}": ("decoders", 2 * j) for j in range(depth)}
    layers |= {"attribute_encoders.hidden": ("encoders", 2), "attribute_encoders.output": ("encoders", 4)}
    for name, (coder, step) in layers.items():
        named[f"{name}.weight"] = stacked(coder, step, "weight").transpose(1, 2)
        named[f"{name}.bias"] = stacked(coder, step, "bias")[:, None]
    return named


def plain_negative_elbo(
    twin: Multimodal,
    examples: Sequence[Tensor],
    present: np.ndarray,
    terms: np.ndarray,
    active: np.ndarray,
    noise: Tensor,
    *,
    targets: str,
    beta: float,
    weights: Sequence[float],
    batch_size: int,
    dropout_seed: int = 0,
) -> Tensor:
    """Loss of one step.

    Args:
        twin: from `plain_twin`; its running statistics are updated.
        examples: one tensor [R, ...] per modality; rows without the modality may hold any value.
        present: boolean [R, M]. terms: boolean [T, M]. active: boolean [T, R].
        noise: [T, R, D], or [1, R, D] shared by all terms.
        dropout_seed: seed of each modality's single dropout mask, which all terms share.
    """
    rows, modalities = present.shape
    loss = torch.zeros((), dtype=noise.dtype)
    for t in range(len(terms)):
        torch.manual_seed(dropout_seed)
        experts = {m: _encode_all_that_have_it(twin, m, examples[m], present[:, m]) for m in range(modalities)}
        taking_part, latent = [], []
        for row in range(rows):
            given = [m for m in range(modalities) if terms[t, m] and present[row, m]]
            if not active[t, row] or not given:
                continue
            mean, log_var = _posterior(twin, [experts[m][row] for m in given])
            loss = loss + beta * 0.5 * (log_var.exp() + mean**2 - 1 - log_var).sum() / batch_size
            taking_part.append(row)
            latent.append(mean + (log_var / 2).exp() * noise[t if len(noise) > 1 else 0, row])
        for m in range(modalities):
            wanted = [i for i, row in enumerate(taking_part) if present[row, m] and (targets == "all" or terms[t, m])]
            if wanted:
                reconstructed = torch.stack([latent[i] for i in wanted])
                target = [examples[m][taking_part[i]] for i in wanted]
                loss = loss - weights[m] * _log_likelihood(twin, m, reconstructed, target) / batch_size
    for network in twin.encoders:
        for norm in _norms(network):
            norm.move(norm.passes[:1])  # every term encoded the same rows, so they count as one pass
    for network in twin.decoders:
        for norm in _norms(network):
            norm.move(norm.passes)
    return loss


def _encode_all_that_have_it(
    twin: Multimodal, m: int, values: Tensor, has: np.ndarray
) -> dict[int, tuple[Tensor, Tensor]]:
    """Mean and clamped spread of each row's expert m, from one pass over all rows that have modality m."""
    rows = np.flatnonzero(has).tolist()
    mean, spread = twin.encoders[m](values[rows]).chunk(2, -1)
    return {row: (mean[i], spread[i].clamp(-15, 15)) for i, row in enumerate(rows)}


def _posterior(twin: Multimodal, experts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of one row's posterior."""
    if isinstance(twin, MVAEQ):
        modalities = len(twin.modalities)
        variances = [modalities / (modalities - 1) * torch.sigmoid(raw.double()) for _, raw in experts]
        precision = sum(1 / variance for variance in variances) - (len(experts) - 1)
    else:
        variances = [log_var.double().exp() for _, log_var in experts]
        precision = 1 + sum(1 / variance for variance in variances)
    assert isinstance(precision, Tensor)
    mean = sum(mu / variance for (mu, _), variance in zip(experts, variances, strict=True)) / precision
    assert isinstance(mean, Tensor)
    return mean.to(experts[0][0].dtype), -precision.log().to(experts[0][1].dtype)


def _log_likelihood(twin: Multimodal, m: int, z: Tensor, target: list[Tensor]) -> Tensor:
    """Sum over the rows of one term."""
    decoder = twin.decoders[m]
    if isinstance(decoder, TextDecoder):
        each = [plain_text_log_probability(decoder, row, value.tolist()) for row, value in zip(z, target, strict=True)]
    else:
        rows = zip(decoder(z), target, strict=True)
        each = [_log_probability(twin, m, logits, value) for logits, value in rows]
    return torch.stack(each).sum()


def plain_text_log_probability(decoder: TextDecoder, z: Tensor, text: list[int]) -> Tensor:
    """log p(text | z) of one text, token by token, from the equations of the GRU."""
    stop, start = decoder.classes - 2, decoder.classes - 1
    states = [decoder.state(z)] * 2
    total, before = torch.zeros((), dtype=z.dtype), start
    for position, token in enumerate(text):
        if position == len(text) - 1:
            return total if token == stop else total - torch.inf  # the last position allows only a stop
        x = torch.cat([F.silu(decoder.embedding.weight[before]), z])
        for layer in range(2):
            x = states[layer] = _gru_cell(decoder.gru, layer, x, states[layer])
        logits = decoder.output.weight @ torch.cat([x, z]) + decoder.output.bias
        total = total + torch.log_softmax(logits[[c for c in range(decoder.classes) if c != start]], 0)[token]
        if token == stop:
            return total
        before = token
    return total


def _gru_cell(gru: nn.GRU, layer: int, x: Tensor, state: Tensor) -> Tensor:
    weights = {name.removesuffix(f"_l{layer}"): value for name, value in gru.named_parameters()}
    of_x = (weights["weight_ih"] @ x + weights["bias_ih"]).chunk(3)
    of_state = (weights["weight_hh"] @ state + weights["bias_hh"]).chunk(3)
    reset, update = (torch.sigmoid(a + b) for a, b in zip(of_x[:2], of_state[:2], strict=True))
    return (1 - update) * torch.tanh(of_x[2] + reset * of_state[2]) + update * state


def _log_probability(twin: Multimodal, m: int, logits: Tensor, value: Tensor) -> Tensor:
    if twin.modalities[m].kind is Kind.LABEL:
        return torch.log_softmax(logits, -1)[int(value)]
    if twin.modalities[m].kind is Kind.ATTRIBUTE:
        return F.logsigmoid(logits[0] if value == 1 else -logits[0])
    return (value * F.logsigmoid(logits) + (1 - value) * F.logsigmoid(-logits)).sum()


def _norms(network: nn.Module) -> list[PlainBatchNorm]:
    return [module for module in network.modules() if isinstance(module, PlainBatchNorm)]
