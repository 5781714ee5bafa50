"""The sub-sampled ELBO of the MVAE, all of its terms at once (main paper, section 3.2; supplement sections 1 and 9).

A step sees R rows. A term conditions on a subset of modalities; a row takes part in it with those of them it has. Every
modality is encoded once, all posteriors come from one masked sum of precisions, and each decoder runs once, on the
(term, row) pairs whose target it is. The result equals the loop over terms that encodes and decodes anew.

Shapes: R rows of a step, M modalities, T ELBO terms, D latents, P active (term, row) pairs, n_m rows of modality m.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mvae.gaussian import Gaussian
from mvae.networks.normalisation import term_statistics

if TYPE_CHECKING:
    from mvae.models.multimodal import Multimodal

DECODED_ROWS = 512
"""Rows that one pass of a decoder takes at most, in whole terms, so that activations stay in a CPU's cache."""


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


def annealed_beta(step: int, total_steps: int, annealed_steps: int) -> float:
    """Weight of the KL at a step counted from 0: linear, 1 from step `annealed_steps` - 1 on (supplement section 1)."""
    assert 0 <= step < total_steps
    return 1.0 if annealed_steps <= 0 else min(1.0, (step + 1) / annealed_steps)


@dataclass(frozen=True)
class Layout:
    """Where everything of a step goes: made once for a pattern of presence and terms, and used for every like step."""

    rows: int
    """R"""
    encoded: tuple[Tensor | None, ...]
    """Per modality the rows that have it, int64 [n_m]; None where all have."""
    members: Tensor
    """Boolean [R, T, M]: what each term conditions on for each row."""
    pairs: Tensor | None
    """Positions of the active pairs in a flattened [T, R], int64 [P], by term; None where all are active."""
    pair_rows: Tensor | None
    """Per active pair its row, int64 [P]; None where all are active."""
    conditions: Tensor
    """What the posteriors condition on, boolean, in the form that is least work: [P, 1, M] for the active pairs; where
    all pairs are active [R, T, M]; where moreover all rows are alike [T, M]."""
    decoded: tuple[Tensor | None, ...]
    """Per modality the positions among the P pairs that reconstruct it; None where all do."""
    targets: tuple[Tensor, ...]
    """Per modality, for each of these pairs, the position of its target among the n_m values."""
    groups: tuple[tuple[int, ...], ...]
    """Per modality, how many of these pairs each term has: BatchNorm's statistics stay within a term."""

    def to(self, device: torch.device | str) -> Layout:
        """The same layout with its indices on a device."""

        def moved(index: Tensor | None) -> Tensor | None:
            return None if index is None else index.to(device)

        return Layout(
            self.rows,
            tuple(moved(index) for index in self.encoded),
            self.members.to(device),
            moved(self.pairs),
            moved(self.pair_rows),
            self.conditions.to(device),
            tuple(moved(index) for index in self.decoded),
            tuple(index.to(device) for index in self.targets),
            self.groups,
        )


def layout(present: np.ndarray, terms: np.ndarray, active: np.ndarray, *, targets: str = "own") -> Layout:
    """Plans a step.

    Args:
        present: boolean [R, M], which modalities each row has.
        terms: boolean [T, M], which modalities each term conditions on.
        active: boolean [T, R], which terms each row takes part in. A term that shares no modality with the row is
            skipped all the same.
        targets: own, a term reconstructs what it conditions on; all, everything that the row has.
    """
    members = terms[None] & present[:, None]
    taken = active & members.any(-1).T
    pair_term, pair_row = np.nonzero(taken)
    reconstructs = members[pair_row, pair_term] if targets == "own" else present[pair_row]
    encoded, decoded, target, groups = [], [], [], []
    for m in range(present.shape[1]):
        here = present[:, m]
        position = np.cumsum(here) - 1
        wanted = reconstructs[:, m]
        encoded.append(None if here.all() else torch.from_numpy(np.nonzero(here)[0]))
        decoded.append(None if wanted.all() else torch.from_numpy(np.nonzero(wanted)[0]))
        target.append(torch.from_numpy(position[pair_row[wanted]]))
        groups.append(tuple(int(count) for count in np.bincount(pair_term[wanted], minlength=len(terms)) if count))
    every, alike = bool(taken.all()), bool((members == members[:1]).all())
    conditions = members[pair_row, pair_term][:, None] if not every else members[0] if alike else members
    return Layout(
        rows=len(present),
        encoded=tuple(encoded),
        members=torch.from_numpy(members),
        pairs=None if every else torch.from_numpy(np.nonzero(taken.reshape(-1))[0]),
        pair_rows=None if every else torch.from_numpy(pair_row),
        conditions=torch.from_numpy(conditions),
        decoded=tuple(decoded),
        targets=tuple(target),
        groups=tuple(groups),
    )


@dataclass(frozen=True)
class Loss:
    """A step's loss and what it is made of, each summed over terms and divided by the global batch size, in nats."""

    total: Tensor
    parts: dict[str, Tensor]
    """Detached scalars: kl, and log_likelihood_<modality> without its weight."""


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
    q = posteriors(model, plan, values)
    shared = noise.expand(plan.members.shape[1], -1, -1).flatten(0, 1)
    z = q.rsample(shared if plan.pairs is None else shared.index_select(0, plan.pairs))
    kl = q.kl_from_prior().sum() / batch_size
    total = beta * kl
    parts = {"kl": kl.detach()}
    for m, modality in enumerate(model.modalities):
        log_likelihood = _log_likelihood(model, m, z, plan, values[m]) / batch_size
        total = total - weights[m] * log_likelihood
        parts[f"log_likelihood_{modality.name}"] = log_likelihood.detach()
    return Loss(total, parts)


def posteriors(model: Multimodal, plan: Layout, values: Sequence[Tensor]) -> Gaussian:
    """q(z | x_term) of every active (term, row) pair: [P, D]."""
    means, spreads = [], []
    for m, rows in enumerate(plan.encoded):
        mean, spread = model.encode(m, values[m])
        means.append(_spread_out(mean, rows, plan.rows))
        spreads.append(_spread_out(spread, rows, plan.rows))
    if plan.pair_rows is None:
        mean_RMD, spread_RMD = (torch.stack(part).transpose(0, 1) for part in (means, spreads))
        q = model.posterior(mean_RMD, spread_RMD, plan.conditions)
        return Gaussian(q.mean.transpose(0, 1).flatten(0, 1), q.log_var.transpose(0, 1).flatten(0, 1))
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
    total = z.new_zeros(())
    with term_statistics(model.decoders[m]) as statistics:
        start = 0
        for chunk in chunks(plan.groups[m], DECODED_ROWS):
            end = start + sum(chunk)
            statistics.groups(chunk)
            total = total + model.log_prob(m, mine[start:end], values.index_select(0, target[start:end])).sum()
            start = end
    return total


def chunks(groups: Sequence[int], most: int) -> list[tuple[int, ...]]:
    """Whole groups, in order, packed into runs of at most `most` rows (a larger group is a run of its own)."""
    packed: list[tuple[int, ...]] = []
    run: list[int] = []
    for group in groups:
        if run and sum(run) + group > most:
            packed.append(tuple(run))
            run = []
        run.append(group)
    return [*packed, tuple(run)] if run else packed
