"""The sub-sampled ELBO of the MVAE (main paper, section 3.2; supplement sections 1 and 9).

A term conditions on a subset of modalities; a row takes part in a term with those of the subset's modalities it has.
`negative_elbo_by_terms` is the formula as a loop. `negative_elbo` computes the same sum fast: each modality is encoded
once, all posteriors come from one masked sum of precisions, and each decoder runs once, on the (term, row) pairs that
reconstruct its modality. Where everything of a step goes is planned by `mvae/models/layout.py`.

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
"""Rows that one pass of a decoder takes at most, in whole terms, so that activations stay in a CPU's cache; a decoder
with `rows` of its own takes those."""

STACKED_ROWS = 8192
"""The same for stacked decoders, over all of them, whose many parameters each pass reads and each adds gradients to; it
takes no heed of terms, since they have no BatchNorm."""

FEW_MODALITIES = 4
"""Up to this many, steps have few terms, and the activations of all pieces are kept, as they were before `pieces`: the
numbers of such trials depend on it to the last bit."""


def elbo_terms(modalities: int, subsets: int, generator: np.random.Generator) -> np.ndarray:
    """The terms of one step: all modalities, each alone, then random subsets.

    A subset's size is uniform over 2..M-1 and the subset uniform of that size, drawn directly; draws are independent,
    so a subset may come twice.

    Returns:
        boolean [T, M] with T = 1 + M + subsets.
    Raises:
        ValueError: subsets of fewer than 3 modalities.
    """
    if subsets and modalities < 3:
        raise ValueError(f"random subsets need at least 3 modalities: there are {modalities}, so k = 0")
    terms = np.zeros((1 + modalities + subsets, modalities), dtype=bool)
    terms[0] = True
    terms[1 : 1 + modalities] = np.eye(modalities, dtype=bool)
    for term in terms[1 + modalities :]:
        size = generator.integers(2, modalities)
        term[generator.choice(modalities, size=size, replace=False)] = True
    return terms


@dataclass(frozen=True)
class Loss:
    """A step's loss and what it is made of, each summed over terms and divided by the global batch size, in nats."""

    total: Tensor
    parts: dict[str, Tensor]
    """Detached scalars: kl, and log_likelihood_<modality> without its weight."""


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
    """The loss of a step, term by term and row by row: the specification of `negative_elbo`, and slow.

    For networks without batch normalisation, whose outputs for a row do not depend on other rows.

    Args:
        examples: per modality R values; any value where the row lacks the modality.
        present: boolean [R, M], which modalities each row has.
        terms: boolean [T, M], which modalities each term conditions on.
        active: boolean [T, R], which terms each row takes part in.
        noise: standard normal, [T, R, D], or [1, R, D] to share one draw among the terms (Figure 6 c).
        targets: own, a term reconstructs what it conditions on; all, everything that the row has.
        beta: weight of the KL, from `annealed_beta`.
        weights: lambda of each modality.
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
    """The sum over terms of beta * KL(q || p) - sum_m weight_m * log p(x_m | z), over rows, divided by the batch size.

    Args:
        plan: from `layout`, on the model's device.
        values: per modality the n_m values that are there, in the order of rows.
        noise: standard normal, [T, R, D], or [1, R, D] to share one draw among the terms (Figure 6 c).
        beta: weight of the KL, from `annealed_beta`.
        weights: lambda of each modality.
        batch_size: the global batch size B that every term is divided by, whatever share of it is present.
    """
    stacked = None if plan.stacked is None else _stacked_values(model, plan, values)
    q = posteriors(model, plan, values, stacked)
    shared = noise.expand(plan.members.shape[1], -1, -1).flatten(0, 1)
    z = q.rsample(shared if plan.pairs is None else shared.index_select(0, plan.pairs))
    kl = q.kl_to_prior().sum() / batch_size
    total = beta * kl
    parts = {"kl": kl.detach()}
    apart = len(plan.decoded)
    for m, modality in enumerate(model.modalities[:apart]):
        log_likelihood = _log_likelihood(model, m, z, plan, values[m]) / batch_size
        total = total - weights[m] * log_likelihood
        parts[f"log_likelihood_{modality.name}"] = log_likelihood.detach()
    if stacked is not None:
        weighted, each = _stacked_log_likelihoods(
            model, z, plan, stacked, _constant(tuple(weights[apart:]), z.device, z.dtype)
        )
        total = total - weighted / batch_size
        for modality, own in zip(model.modalities[apart:], each / batch_size, strict=True):
            parts[f"log_likelihood_{modality.name}"] = own
    return Loss(total, parts)


@cache
def _constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Copied to a GPU once, and kept: a step that was recorded reads it there."""
    return torch.tensor(values, dtype=dtype, device=device)


def _stacked_values(model: Multimodal, plan: Layout, values: Sequence[Tensor]) -> Tensor:
    """The values of the modalities whose networks are stacked, int64 [R, A], 0 where a row lacks one."""
    columns = []
    for m in model.stacked:
        rows = plan.encoded[m]
        columns.append(values[m] if rows is None else values[m].new_zeros(plan.rows).index_copy(0, rows, values[m]))
    return torch.stack(columns, dim=1)


def posteriors(model: Multimodal, plan: Layout, values: Sequence[Tensor], stacked: Tensor | None = None) -> Gaussian:
    """q(z | x_term) of every active (term, row) pair: [P, D].

    Args:
        stacked: int64 [R, A], the values of the modalities whose networks are stacked.
    """
    means, spreads = [], []
    for m, rows in enumerate(plan.encoded[: len(plan.decoded)]):
        mean, spread = model.encode(m, values[m])
        means.append(_spread_out(mean, rows, plan.rows))
        spreads.append(_spread_out(spread, rows, plan.rows))
    if stacked is not None:
        mean_RAD, spread_RAD = model.encode_attributes(stacked)
        means += mean_RAD.unbind(1)
        spreads += spread_RAD.unbind(1)
    if plan.pair_rows is None:
        mean_RMD, spread_RMD = (torch.stack(part).transpose(0, 1) for part in (means, spreads))
        q = model.posterior(mean_RMD, spread_RMD, plan.conditions)
        every = Gaussian(q.mean.transpose(0, 1).flatten(0, 1), q.log_var.transpose(0, 1).flatten(0, 1))
        return every if plan.pairs is None else Gaussian(*(part.index_select(0, plan.pairs) for part in every))
    mean_PMD, spread_PMD = (_repeated(torch.stack(part, dim=1), plan.pair_rows) for part in (means, spreads))
    q = model.posterior(mean_PMD, spread_PMD, plan.conditions)
    return Gaussian(q.mean.squeeze(1), q.log_var.squeeze(1))


def _repeated(rows: Tensor, index: Tensor) -> Tensor:
    """rows[index], where a row may come several times, with gradients that are equal bit for bit each time.

    On a GPU the gradient of index_select adds up in any order, that of indexing in a sorted one; on a CPU both are
    exact and index_select is faster.
    """
    return rows[index] if rows.is_cuda else rows.index_select(0, index)


def _spread_out(present: Tensor, rows: Tensor | None, total: int) -> Tensor:
    if rows is None:
        return present
    return present.new_zeros(total, present.shape[1]).index_copy(0, rows, present)


def _log_likelihood(model: Multimodal, m: int, z: Tensor, plan: Layout, values: Tensor) -> Tensor:
    """Sum of log p(x_m | z) over the pairs that reconstruct modality m, in chunks of whole terms."""
    wanted, target = plan.decoded[m], plan.targets[m]
    mine = z if wanted is None else z.index_select(0, wanted)
    planned = chunks(plan.loads[m], getattr(model.decoders[m], "rows", DECODED_ROWS))
    groups = iter(plan.groups[m])
    packed = [tuple(islice(groups, len(chunk))) for chunk in planned]
    ends, passes = np.cumsum([sum(chunk) for chunk in packed]).tolist(), iter(packed)
    with term_statistics(model.decoders[m]) as next_groups:

        def summed(part: Tensor, start: int, end: int) -> Tensor:
            next_groups(next(passes))
            return model.log_prob(m, part, values.index_select(0, target[start:end])).sum()

        few = len(plan.encoded) <= FEW_MODALITIES
        return piece_by_piece(summed, mine, 0, ends, None, model.decoders[m], alive=few)[0]


def _stacked_log_likelihoods(
    model: Multimodal, z: Tensor, plan: Layout, stacked: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Sums of log p(x_a | z) over the pairs that reconstruct each stacked modality: weighted in all, and each [A]."""
    where = plan.stacked
    assert where is not None and model.attribute_decoders is not None
    count, longest = where.real.shape
    targets = stacked[where.rows, torch.arange(count, device=z.device)[:, None]]

    def summed(part: Tensor, start: int, end: int) -> Tensor:
        log_prob = model.attributes_log_prob(part, targets[:, start:end])
        return torch.where(where.real[:, start:end], log_prob, 0.0).sum(1)

    width = max(1, STACKED_ROWS // count)
    ends = [*range(width, longest, width), longest] if where.decoded else []
    chosen = _repeated(z, where.pairs.flatten()).view(count, longest, z.shape[1])
    return piece_by_piece(summed, chosen, 1, ends, weights, model.attribute_decoders)
