"""The plan of a step: where every row, term and pair goes, so that each network runs once (`mvae/models/elbo.py`).

Shapes: R rows of a step, M modalities, T ELBO terms, P active (term, row) pairs, n_m rows of modality m, A modalities
whose networks are stacked, W pairs at most that one of them reconstructs.
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
    """Where the last A modalities go, whose decoders run side by side, each on the pairs that reconstruct it."""

    pairs: Tensor
    """Position of each among the P pairs, int64 [A, W], 0 where a modality has fewer."""
    rows: Tensor
    """The row that holds its target, int64 [A, W]."""
    real: Tensor
    """Boolean [A, W]: False where a modality has fewer."""
    decoded: bool
    """Whether any worker has such a pair."""


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
    """Plans a step, or the share of it that a worker takes.

    Args:
        present: boolean [R, M], which modalities each row of the whole step has.
        terms: boolean [T, M], which modalities each term conditions on.
        active: boolean [T, R], which terms each row takes part in. A term that shares no modality with the row is
            skipped all the same.
        targets: own, a term reconstructs what it conditions on; all, everything that the row has.
        stacked: A, how many of the last modalities have stacked networks.
        device: where the plan's tensors are to lie.
    """

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    everywhere = None if workers.alone else _pairs_to_reconstruct(present, terms, active, targets)
    present, active = workers.share(present), workers.share(active, dim=1)
    members = terms[None] & present[:, None]
    taken = active & members.any(-1).T
    pair_term, pair_row = np.nonzero(taken)
    reconstructs = members[pair_row, pair_term] if targets == "own" else present[pair_row]
    apart = present.shape[1] - stacked
    encoded = [None if here.all() else tensor(np.nonzero(here)[0]) for here in present.T]
    decoded, target, groups, loads = [], [], [], []
    for m in range(apart):
        position = np.cumsum(present[:, m]) - 1
        wanted = reconstructs[:, m]
        decoded.append(None if wanted.all() else tensor(np.nonzero(wanted)[0]))
        target.append(tensor(position[pair_row[wanted]]))
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
        members=tensor(members),
        pairs=None if every else tensor(np.nonzero(taken.reshape(-1))[0]),
        pair_rows=tensor(pair_row) if by_pair else None,
        conditions=tensor(conditions),
        decoded=tuple(decoded),
        targets=tuple(target),
        groups=tuple(groups),
        loads=tuple(loads),
        stacked=_side_by_side(reconstructs[:, apart:], pair_row, everywhere, tensor) if stacked else None,
    )


def _pairs_to_reconstruct(present: np.ndarray, terms: np.ndarray, active: np.ndarray, targets: str) -> np.ndarray:
    """How many pairs of each term reconstruct each modality: int64 [T, M]."""
    members = terms[None] & present[:, None]
    taken = active.T & members.any(-1)
    reconstructs = members if targets == "own" else present[:, None]
    return np.asarray((reconstructs & taken[:, :, None]).sum(0))


def _side_by_side(
    reconstructs: np.ndarray,
    pair_row: np.ndarray,
    everywhere: np.ndarray | None,
    tensor: Callable[[np.ndarray], Tensor],
) -> Stacked:
    """From boolean [P, A], the row of each pair, and what all workers reconstruct of every modality [T, M]."""
    counts = reconstructs.sum(0)
    real = np.arange(counts.max(initial=0)) < counts[:, None]
    pairs = np.zeros(real.shape, np.int64)
    pairs[real] = np.nonzero(reconstructs.T)[1]
    decoded = bool(counts.any() if everywhere is None else everywhere[:, -len(counts) :].any())
    return Stacked(tensor(pairs), tensor(pair_row[pairs]), tensor(real), decoded)


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
