"""The sub-sampled ELBO of the MVAE, all of its terms at once (main paper, section 3.2; supplement sections 1 and 9).

A step sees R rows. A term conditions on a subset of modalities; a row takes part in it with those of them it has. Every
modality is encoded once, all posteriors come from one masked sum of precisions, and each decoder runs once, on the
(term, row) pairs whose target it is. The result equals the loop over terms that encodes and decodes anew.

Shapes: R rows of a step, M modalities, T ELBO terms, D latents, P active (term, row) pairs, n_m rows of modality m,
A modalities whose networks are stacked, W pairs at most that one of them reconstructs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mvae.gaussian import FEW_EXPERTS, Gaussian
from mvae.networks.normalisation import term_statistics
from mvae.pieces import piece_by_piece
from mvae.workers import ALONE, Workers

if TYPE_CHECKING:
    from mvae.models.multimodal import Multimodal

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


def annealed_beta(step: int, total_steps: int, annealed_steps: int) -> float:
    """Weight of the KL at a step counted from 0: linear, 1 from step `annealed_steps` - 1 on (supplement section 1)."""
    assert 0 <= step < total_steps
    return 1.0 if annealed_steps <= 0 else min(1.0, (step + 1) / annealed_steps)


@dataclass(frozen=True)
class Stacked:
    """Where the last A modalities go, whose decoders run side by side, each on the pairs that reconstruct it."""

    pairs: Tensor
    """Position of each among the P pairs, int64 [A, W], 0 where a modality has fewer."""
    rows: Tensor
    """The row that holds its target, int64 [A, W]."""
    real: Tensor
    """Boolean [A, W]: False where a modality has fewer."""
    decoded: bool
    """Whether any worker has such a pair."""

    def to(self, device: torch.device | str) -> Stacked:
        """The same on a device."""
        return Stacked(self.pairs.to(device), self.rows.to(device), self.real.to(device), self.decoded)


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
    """Per active pair its row, int64 [P]; None where `conditions` has every pair, active or not."""
    conditions: Tensor
    """What the posteriors condition on, boolean, in the form that is least work: [P, 1, M] for the active pairs of few
    modalities; where there are many, or all pairs are active, [R, T, M]; where moreover all rows are alike [T, M]."""
    decoded: tuple[Tensor | None, ...]
    """Per modality that is not stacked the positions among the P pairs that reconstruct it; None where all do."""
    targets: tuple[Tensor, ...]
    """Per modality, for each of these pairs, the position of its target among the n_m values."""
    groups: tuple[tuple[int, ...], ...]
    """Per modality, how many of these pairs each term has: BatchNorm's statistics stay within a term. Terms that no
    worker has pairs of are left out; those that others have are there, if need be with 0."""
    loads: tuple[tuple[int, ...], ...]
    """The same as an even share of all workers' pairs, rounded up. Passes are planned by it, so that all workers make
    the same; one that is alone has them all."""
    stacked: Stacked | None = None
    """The last modalities, where their networks are stacked."""

    def to(self, device: torch.device | str) -> Layout:
        """The same layout with its indices on a device."""

        def moved(index: Tensor | None) -> Tensor | None:
            return None if index is None else index.to(device)

        return replace(
            self,
            encoded=tuple(moved(index) for index in self.encoded),
            members=self.members.to(device),
            pairs=moved(self.pairs),
            pair_rows=moved(self.pair_rows),
            conditions=self.conditions.to(device),
            decoded=tuple(moved(index) for index in self.decoded),
            targets=tuple(index.to(device) for index in self.targets),
            stacked=None if self.stacked is None else self.stacked.to(device),
        )


def layout(
    present: np.ndarray,
    terms: np.ndarray,
    active: np.ndarray,
    *,
    targets: str = "own",
    stacked: int = 0,
    workers: Workers = ALONE,
) -> Layout:
    """Plans a step, or the share of it that a worker takes.

    Args:
        present: boolean [R, M], which modalities each row of the whole step has.
        terms: boolean [T, M], which modalities each term conditions on.
        active: boolean [T, R], which terms each row takes part in. A term that shares no modality with the row is
            skipped all the same.
        targets: own, a term reconstructs what it conditions on; all, everything that the row has.
        stacked: A, how many of the last modalities have stacked networks.
    """
    everywhere = None if workers.alone else _pairs_to_reconstruct(present, terms, active, targets)
    present, active = workers.share(present), workers.share(active, dim=1)
    members = terms[None] & present[:, None]
    taken = active & members.any(-1).T
    pair_term, pair_row = np.nonzero(taken)
    reconstructs = members[pair_row, pair_term] if targets == "own" else present[pair_row]
    apart = present.shape[1] - stacked
    encoded = [None if here.all() else torch.from_numpy(np.nonzero(here)[0]) for here in present.T]
    decoded, target, groups, loads = [], [], [], []
    for m in range(apart):
        position = np.cumsum(present[:, m]) - 1
        wanted = reconstructs[:, m]
        decoded.append(None if wanted.all() else torch.from_numpy(np.nonzero(wanted)[0]))
        target.append(torch.from_numpy(position[pair_row[wanted]]))
        counts = np.bincount(pair_term[wanted], minlength=len(terms))
        whole = counts if everywhere is None else everywhere[:, m]
        groups.append(tuple(counts[whole > 0].tolist()))
        loads.append(tuple(-(-count // workers.count) for count in whole[whole > 0].tolist()))
    every, alike = bool(taken.all()), bool((members == members[:1]).all()) and len(members) > 0
    by_pair = not every and present.shape[1] <= FEW_EXPERTS
    if by_pair:
        conditions = members[pair_row, pair_term][:, None]
    else:  # a pair that is not active may have nothing to condition on: its posterior is dropped, but must exist
        conditions = members[0] if every and alike else members | ~members.any(-1, keepdims=True)
    return Layout(
        rows=len(present),
        encoded=tuple(encoded),
        members=torch.from_numpy(members),
        pairs=None if every else torch.from_numpy(np.nonzero(taken.reshape(-1))[0]),
        pair_rows=torch.from_numpy(pair_row) if by_pair else None,
        conditions=torch.from_numpy(conditions),
        decoded=tuple(decoded),
        targets=tuple(target),
        groups=tuple(groups),
        loads=tuple(loads),
        stacked=_side_by_side(reconstructs[:, apart:], pair_row, everywhere) if stacked else None,
    )


def _pairs_to_reconstruct(present: np.ndarray, terms: np.ndarray, active: np.ndarray, targets: str) -> np.ndarray:
    """How many pairs of each term reconstruct each modality: int64 [T, M]."""
    members = terms[None] & present[:, None]
    taken = active.T & members.any(-1)
    reconstructs = members if targets == "own" else present[:, None]
    counts: np.ndarray = (reconstructs & taken[:, :, None]).sum(0)
    return counts


def _side_by_side(reconstructs: np.ndarray, pair_row: np.ndarray, everywhere: np.ndarray | None) -> Stacked:
    """From boolean [P, A], the row of each pair, and what all workers reconstruct of every modality [T, M]."""
    counts = reconstructs.sum(0)
    real = np.arange(counts.max(initial=0)) < counts[:, None]
    pairs = np.zeros(real.shape, np.int64)
    pairs[real] = np.nonzero(reconstructs.T)[1]
    decoded = bool(counts.any() if everywhere is None else everywhere[:, -len(counts) :].any())
    return Stacked(torch.from_numpy(pairs), torch.from_numpy(pair_row[pairs]), torch.from_numpy(real), decoded)


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
    stacked = None if plan.stacked is None else _stacked_values(model, plan, values)
    q = posteriors(model, plan, values, stacked)
    shared = noise.expand(plan.members.shape[1], -1, -1).flatten(0, 1)
    z = q.rsample(shared if plan.pairs is None else shared.index_select(0, plan.pairs))
    kl = q.kl_from_prior().sum() / batch_size
    total = beta * kl
    parts = {"kl": kl.detach()}
    apart = len(plan.decoded)
    for m, modality in enumerate(model.modalities[:apart]):
        log_likelihood = _log_likelihood(model, m, z, plan, values[m]) / batch_size
        total = total - weights[m] * log_likelihood
        parts[f"log_likelihood_{modality.name}"] = log_likelihood.detach()
    if stacked is not None:
        weighted, each = _stacked_log_likelihoods(model, z, plan, stacked, _constant(tuple(weights[apart:]), z))
        total = total - weighted / batch_size
        for modality, own in zip(model.modalities[apart:], each / batch_size, strict=True):
            parts[f"log_likelihood_{modality.name}"] = own
    return Loss(total, parts)


def _constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    return _on_device(values, like.device, like.dtype)


@cache
def _on_device(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
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
    with term_statistics(model.decoders[m]) as statistics:

        def summed(part: Tensor, start: int, end: int) -> Tensor:
            statistics.groups(next(passes))
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
