"""Plans a training step of the MVAE: computes indices of rows and pairs, so that each network runs only once.

A pair is an ELBO term and a row of the batch. The pair is active if the term includes the row. `mvae/models/elbo.py`
executes the plan.

Shapes: R rows of a step, M modalities, T ELBO terms, P active (term, row) pairs, n_m rows with modality m, A modalities
with stacked networks, each reconstructed by at most W pairs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mvae.models.gaussian import FEW_EXPERTS
from mvae.workers import ALONE, Workers


@dataclass(frozen=True)
class Stacked:
    """Indices for the last A modalities, whose decoders run in parallel, each on its own (term, row) pairs."""

    pairs: Tensor
    """Indices, among the P pairs, of the pairs that reconstruct each modality: int64 [A, W], padded with 0."""
    rows: Tensor
    """For each pair in `pairs`, the row that holds the pair's target: int64 [A, W]."""
    real: Tensor
    """Boolean [A, W], False for padding."""
    decoded: bool
    """Whether any worker has pairs that reconstruct one of the A modalities."""


@dataclass(frozen=True)
class Layout:
    """The plan of a training step. Steps whose rows have the same modalities and the same terms can share a plan."""

    rows: int
    """R, the number of rows."""
    encoded: tuple[Tensor | None, ...]
    """For each modality, the rows that have the modality, int64 [n_m]; `None` if all rows have it."""
    members: Tensor
    """Boolean [R, T, M], the modalities that each term conditions on in each row."""
    pairs: Tensor | None
    """Indices of the active pairs in a flattened [T, R], int64 [P], sorted by term; None if all pairs are active."""
    pair_rows: Tensor | None
    """The row of each active pair, int64 [P]; None if `conditions` includes inactive pairs."""
    conditions: Tensor
    """Boolean, the modalities that the posteriors condition on. The cheapest of three forms is used:

    [T, M]     all pairs are active, and all rows have the same `members`
    [P, 1, M]  some pairs are inactive, and there are few modalities
    [R, T, M]  otherwise
    """
    decoded: tuple[Tensor | None, ...]
    """For each modality that is not stacked, the indices of the pairs that reconstruct it; `None` if all P pairs do."""
    targets: tuple[Tensor, ...]
    """For each modality that is not stacked, the target of each pair in `decoded`, as an index into the n_m values."""
    groups: tuple[tuple[int, ...], ...]
    """For each modality that is not stacked, the number of this worker's pairs that reconstruct it, per term.

    The counts are needed because BatchNorm computes separate statistics for each term. A term without pairs at any
    worker is omitted. A term with pairs only at other workers has the count 0.
    """
    loads: tuple[tuple[int, ...], ...]
    """Like `groups`, but each count is the total over workers divided by the number of workers, rounded up.

    All workers plan their passes by `loads`, so that all workers make the same number of passes.
    """
    stacked: Stacked | None = None


def layout(
    present: np.ndarray,
    terms: np.ndarray,
    active: np.ndarray,
    *,
    targets: str = "own",
    stacked: int = 0,
    workers: Workers = ALONE,
    device: torch.device | str = "cpu",
) -> Layout:
    """Plans one training step; with several workers, only this worker's part of the step.

    Args:
        present: boolean [R, M], the modalities that each row of the whole step has.
        terms: boolean [T, M], the modalities that each term conditions on.
        active: boolean [T, R], the terms that include each row. A term that conditions on none of a row's modalities
            always skips the row.
        targets: "own" if a term reconstructs only the modalities on which the term conditions, "all" if a term
            reconstructs every modality that the row has.
        stacked: A, the number of modalities with stacked networks. These modalities come last.
        device: device of the plan's tensors.
    """

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    all_workers = None if workers.alone else _pairs_to_reconstruct(present, terms, active, targets)
    present, active = workers.share(present), workers.share(active, dim=1)
    members = terms[None] & present[:, None]
    taken = active & members.any(-1).T
    pair_term, pair_row = np.nonzero(taken)
    reconstructs = members[pair_row, pair_term] if targets == "own" else present[pair_row]
    separate = present.shape[1] - stacked
    encoded = [None if column.all() else tensor(np.nonzero(column)[0]) for column in present.T]
    decoded, target, groups, loads = [], [], [], []
    for m in range(separate):
        position = np.cumsum(present[:, m]) - 1
        wanted = reconstructs[:, m]
        decoded.append(None if wanted.all() else tensor(np.nonzero(wanted)[0]))
        target.append(tensor(position[pair_row[wanted]]))
        counts = np.bincount(pair_term[wanted], minlength=len(terms))
        whole = counts if all_workers is None else all_workers[:, m]
        groups.append(tuple(counts[whole > 0].tolist()))
        loads.append(tuple(-(-count // workers.count) for count in whole[whole > 0].tolist()))
    every, alike = bool(taken.all()), bool((members == members[:1]).all()) and len(members) > 0
    by_pair = not every and present.shape[1] <= FEW_EXPERTS
    if by_pair:
        conditions = members[pair_row, pair_term][:, None]
    else:  # inactive pairs without modalities need a posterior, which is dropped: let them condition on all
        conditions = members[0] if every and alike else members | ~members.any(-1, keepdims=True)
    return Layout(
        rows=len(present),
        encoded=tuple(encoded),
        members=tensor(members),
        pairs=None if every else tensor(np.nonzero(taken.reshape(-1))[0]),
        pair_rows=tensor(pair_row) if by_pair else None,
        conditions=tensor(conditions),
        decoded=tuple(decoded),
        targets=tuple(target),
        groups=tuple(groups),
        loads=tuple(loads),
        stacked=_stacked(reconstructs[:, separate:], pair_row, all_workers, tensor) if stacked else None,
    )


def _pairs_to_reconstruct(present: np.ndarray, terms: np.ndarray, active: np.ndarray, targets: str) -> np.ndarray:
    """Counts the rows for which each term reconstructs each modality: int64 [T, M]."""
    members = terms[None] & present[:, None]
    taken = active.T & members.any(-1)
    reconstructs = members if targets == "own" else present[:, None]
    return np.asarray((reconstructs & taken[:, :, None]).sum(0))


def _stacked(
    reconstructs: np.ndarray,
    pair_row: np.ndarray,
    all_workers: np.ndarray | None,
    tensor: Callable[[np.ndarray], Tensor],
) -> Stacked:
    counts = reconstructs.sum(0)
    real = np.arange(counts.max(initial=0)) < counts[:, None]
    pairs = np.zeros(real.shape, np.int64)
    pairs[real] = np.nonzero(reconstructs.T)[1]
    decoded = bool(counts.any() if all_workers is None else all_workers[:, -len(counts) :].any())
    return Stacked(tensor(pairs), tensor(pair_row[pairs]), tensor(real), decoded)


def chunks(groups: Sequence[int], most: int) -> list[tuple[int, ...]]:
    """Splits a list of group sizes into chunks that sum to at most `most`. A larger group is a chunk by itself."""
    packed: list[list[int]] = []
    for group in groups:
        if not packed or sum(packed[-1]) + group > most:
            packed.append([])
        packed[-1].append(group)
    return [tuple(chunk) for chunk in packed]
