"""Computes the sub-sampled ELBO of the MVAE (main paper, section 3.2; supplement sections 1 and 9).

Each ELBO term conditions on a subset of the modalities. If a row lacks some of the subset's modalities, the term uses
the remaining ones for this row. `negative_elbo_by_terms` computes the loss in a loop over terms and rows.
`negative_elbo` computes the same loss faster, in three steps:

1. Encode each modality once.
2. Compute all posteriors as one masked sum of precisions.
3. Decode each modality once, only for the (term, row) pairs that reconstruct the modality.

`mvae/models/layout.py` plans which rows and pairs each network processes.

Shapes: R rows of a step, M modalities, T ELBO terms, D latents, P active (term, row) pairs, n_m rows of modality m,
A modalities whose networks are stacked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from mvae.models.gaussian import Gaussian
from mvae.models.layout import Layout, chunks
from mvae.models.multimodal import Multimodal
from mvae.models.pieces import piece_by_piece
from mvae.networks.normalisation import term_statistics

DECODED_ROWS = 512
"""Maximum number of rows per decoder pass, so that activations fit a CPU's cache.

A pass consists of whole terms, so a term with more rows gets a larger pass of its own. A decoder's attribute
`rows` overrides this number.
"""

STACKED_ROWS = 8192
"""Maximum number of rows per pass over all stacked decoders.

Larger than DECODED_ROWS, because each pass reads and accumulates the gradients of many parameters. A pass may split a
term, because these decoders have no BatchNorm.
"""

FEW_MODALITIES = 4
"""Largest number of modalities for which plain autograd keeps all activations, because steps then have few terms.

Trials with so few modalities do not compute gradients piece by piece (`pieces.py`), so that their old results stay
bit-identical.
"""


def elbo_terms(modalities: int, subsets: int, generator: np.random.Generator) -> np.ndarray:
    """Draws the ELBO terms of one training step: all modalities, each single modality, then random subsets.

    The size of a subset is uniform over 2..M-1. All subsets of that size are equally likely. Draws are independent, so
    a subset may occur twice.

    Returns:
        boolean [T, M] with T = 1 + M + subsets.
    Raises:
        ValueError: `subsets` is positive, but there are fewer than 3 modalities.
    """
    if subsets and modalities < 3:
        raise ValueError(f"random subsets need at least 3 modalities, got {modalities}: use k = 0")
    terms = np.zeros((1 + modalities + subsets, modalities), dtype=bool)
    terms[0] = True
    terms[1 : 1 + modalities] = np.eye(modalities, dtype=bool)
    for term in terms[1 + modalities :]:
        size = generator.integers(2, modalities)
        term[generator.choice(modalities, size=size, replace=False)] = True
    return terms


@dataclass(frozen=True)
class Loss:
    """Loss of one training step and its parts in nats, summed over terms and rows, divided by the global batch size."""

    total: Tensor
    parts: dict[str, Tensor]
    """Detached scalars by metric name, for example `kl` and the unweighted `log_likelihood_<modality>`."""


def negative_elbo_by_terms(
    model: Multimodal,
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
) -> Tensor:
    """Computes the loss of one training step in a slow loop over terms and rows, as a reference for `negative_elbo`.

    The networks must not use batch normalisation, because the output for a row must not depend on other rows.

    Args:
        examples: R values of each modality; arbitrary values for rows without the modality.
        present: boolean [R, M], the modalities that each row has.
        terms: boolean [T, M], the modalities that each term conditions on.
        active: boolean [T, R], the terms that include each row.
        noise: standard normal, [T, R, D], or [1, R, D] to share one draw between the terms (Figure 6 c).
        targets: "own" if a term reconstructs only the modalities on which the term conditions, "all" if a term
            reconstructs every modality that the row has.
        beta: weight of the KL, from `annealed_beta`.
        weights: lambda, the likelihood weight of each modality.
        batch_size: the global batch size B.
    """
    loss = noise.new_zeros(())
    for t, r in zip(*np.nonzero(active), strict=True):
        given = np.flatnonzero(terms[t] & present[r]).tolist()
        if not given:
            continue
        x = [value[r : r + 1] for value in examples]
        q = model.infer_at({m: x[m] for m in given})
        z = q.rsample(noise[t if len(noise) > 1 else 0, r : r + 1])
        loss = loss + beta * q.kl_to_prior().sum()
        for m in given if targets == "own" else np.flatnonzero(present[r]).tolist():
            loss = loss - weights[m] * model.log_prob(m, z, x[m]).sum()
    return loss / batch_size


def negative_elbo(
    model: Multimodal,
    plan: Layout,
    values: Sequence[Tensor],
    noise: Tensor,
    *,
    beta: float | Tensor,
    weights: Sequence[float],
    batch_size: int,
) -> Loss:
    """Returns the loss of one training step and its parts, in nats.

    The loss is the sum over terms and rows of beta * KL(q || p) - sum_m weight_m * log p(x_m | z), divided by the batch
    size.

    Args:
        plan: returned by `layout`, with tensors on the model's device.
        values: for each modality, the values of the n_m rows that have the modality, in row order.
        noise: standard normal, [T, R, D], or [1, R, D] to share one draw between the terms (Figure 6 c).
        beta: weight of the KL, from `annealed_beta`.
        weights: lambda, the likelihood weight of each modality.
        batch_size: the global batch size B. Every term is divided by B, even if the term includes fewer than B rows.
    """
    stacked = None
    if plan.stacked is not None:
        stacked = torch.stack([all_rows(values[m], plan.encoded[m], plan.rows) for m in model.stacked], dim=1)
    q = posteriors(model, plan, values, stacked)
    shared = noise.expand(plan.members.shape[1], -1, -1).flatten(0, 1)
    z = q.rsample(shared if plan.pairs is None else shared.index_select(0, plan.pairs))
    kl = q.kl_to_prior().sum() / batch_size
    total = beta * kl
    parts = {"kl": kl.detach()}
    separate = len(plan.decoded)
    for m, modality in enumerate(model.modalities[:separate]):
        log_likelihood = _log_likelihood(model, m, z, plan, values[m]) / batch_size
        total = total - weights[m] * log_likelihood
        parts[f"log_likelihood_{modality.name}"] = log_likelihood.detach()
    if stacked is not None:
        weighted, each = _stacked_log_likelihoods(
            model, z, plan, stacked, _constant(tuple(weights[separate:]), z.device, z.dtype)
        )
        total = total - weighted / batch_size
        for modality, own in zip(model.modalities[separate:], each / batch_size, strict=True):
            parts[f"log_likelihood_{modality.name}"] = own
    return Loss(total, parts)


@cache
def _constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Returns `values` as a cached tensor, because recorded CUDA graphs read the tensor at a fixed GPU address."""
    return torch.tensor(values, dtype=dtype, device=device)


def posteriors(model: Multimodal, plan: Layout, values: Sequence[Tensor], stacked: Tensor | None = None) -> Gaussian:
    """Returns q(z | modalities of the term) for every active (term, row) pair, [P, D].

    Args:
        stacked: int64 [R, A], the values of the modalities with stacked networks; 0 if a row lacks the modality.
    """
    means, spreads = [], []
    for m, rows in enumerate(plan.encoded[: len(plan.decoded)]):
        mean, spread = model.encode(m, values[m])
        means.append(all_rows(mean, rows, plan.rows))
        spreads.append(all_rows(spread, rows, plan.rows))
    if stacked is not None:
        mean_RAD, spread_RAD = model.encode_attributes(stacked)
        means += mean_RAD.unbind(1)
        spreads += spread_RAD.unbind(1)
    if plan.pair_rows is None:
        mean_RMD, spread_RMD = (torch.stack(part).transpose(0, 1) for part in (means, spreads))
        q = model.posterior(mean_RMD, spread_RMD, plan.conditions)
        all_pairs = Gaussian(q.mean.transpose(0, 1).flatten(0, 1), q.log_var.transpose(0, 1).flatten(0, 1))
        return all_pairs if plan.pairs is None else Gaussian(*(part.index_select(0, plan.pairs) for part in all_pairs))
    mean_PMD, spread_PMD = (repeated(torch.stack(part, dim=1), plan.pair_rows) for part in (means, spreads))
    q = model.posterior(mean_PMD, spread_PMD, plan.conditions)
    return Gaussian(q.mean.squeeze(1), q.log_var.squeeze(1))


def repeated(rows: Tensor, index: Tensor) -> Tensor:
    """Returns `rows[index]`. The gradients are bit-identical in every run, even if an index repeats.

    On a GPU, `index_select` sums gradients in arbitrary order, but `rows[index]` sums gradients in sorted order. On a
    CPU, both are deterministic, and `index_select` is faster.
    """
    return rows[index] if rows.is_cuda else rows.index_select(0, index)


def all_rows(present: Tensor, rows: Tensor | None, total: int) -> Tensor:
    """Expands the values `present` of the given `rows` to all rows, `total` in number. All other rows get zeros."""
    if rows is None:
        return present
    return present.new_zeros(total, *present.shape[1:]).index_copy(0, rows, present)


def _log_likelihood(model: Multimodal, m: int, z: Tensor, plan: Layout, values: Tensor) -> Tensor:
    """Sums log p(x_m | z) over the (term, row) pairs that reconstruct modality m. Each pass decodes whole terms."""
    decoded, target = plan.decoded[m], plan.targets[m]
    z = z if decoded is None else z.index_select(0, decoded)
    groups = iter(plan.groups[m])
    planned = chunks(plan.loads[m], getattr(model.decoders[m], "rows", DECODED_ROWS))
    passes = [tuple(islice(groups, len(chunk))) for chunk in planned]
    ends, remaining = np.cumsum([sum(groups_of_pass) for groups_of_pass in passes]).tolist(), iter(passes)
    with term_statistics(model.decoders[m]) as next_groups:

        def summed(part: Tensor, start: int, end: int) -> Tensor:
            next_groups(next(remaining))
            return model.log_prob(m, part, values.index_select(0, target[start:end])).sum()

        few = len(plan.encoded) <= FEW_MODALITIES
        return piece_by_piece(summed, z, 0, ends, None, model.decoders[m], keep_activations=few)[0]


def _stacked_log_likelihoods(
    model: Multimodal, z: Tensor, plan: Layout, stacked: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Sums log p(x_a | z) over the (term, row) pairs that reconstruct a, for each modality a with stacked networks.

    Returns:
        The weighted total over modalities, and each modality's unweighted sum, [A], detached.
    """
    layout = plan.stacked
    assert layout is not None and model.attribute_decoders is not None
    count, longest = layout.real.shape
    targets = stacked[layout.rows, torch.arange(count, device=z.device)[:, None]]

    def summed(part: Tensor, start: int, end: int) -> Tensor:
        log_prob = model.attributes_log_prob(part, targets[:, start:end])
        return torch.where(layout.real[:, start:end], log_prob, 0.0).sum(1)

    width = max(1, STACKED_ROWS // count)
    ends = [*range(width, longest, width), longest] if layout.decoded else []
    decoded = repeated(z, layout.pairs.flatten()).view(count, longest, z.shape[1])
    return piece_by_piece(summed, decoded, 1, ends, weights, model.attribute_decoders)
