"""Reads and writes the packed folder: data sets and trials for a GPU machine without raw files and pydantic.

    DIR/<data set>.npz      train_0, train_1, validation_0, ...: uint8, one array per split and modality, compressed
    DIR/pack.json           fingerprints, versions, the trials to train with their keys, and the trials to time

An unpacked trial is a plain namespace with the trial's fields, because models read nothing else of a trial.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from mvae.data import SPLITS, source
from mvae.data.examples import Dataset, Split
from mvae.refusal import Refusal
from mvae.storage.files import atomic_path, write_atomically
from sweeps.store.provenance import git_sha

if TYPE_CHECKING:
    from mvae.trial import Trial

FILE = "pack.json"
PARTS = {"fingerprints", "training_version", "git", "timed", "cells"}
MEASURE, METRIC = "accuracy-v1", "test/accuracy"
FIRST_FRACTIONS = (0.01, 0.1, 1.0, 0.005, 0.001)
"""Columns of Table 4 to train first, the most informative column first."""


@dataclass(frozen=True)
class PackedTrial:
    """The key and the fields of a packed trial."""

    key: str
    fields: dict[str, Any]

    @property
    def trial(self) -> Trial:
        """A namespace with the fields of `mvae.trial.Trial`, but without its methods."""
        return cast("Trial", SimpleNamespace(**self.fields))


@dataclass(frozen=True)
class Pack:
    """Contents of a packed folder."""

    folder: Path
    fingerprints: dict[str, str]
    training_version: int
    git: str
    """Git commit of the code that made the pack. The GPU machine runs the same code."""
    timed: dict[str, PackedTrial]
    """Trials whose steps are timed, by label."""
    cells: tuple[PackedTrial, ...]
    """Trials to train, the most informative first."""

    def load(self, name: str, device: torch.device) -> Dataset:
        """Loads a data set onto a device. A process reads each file only once."""
        return _loaded(self.folder, name, self.fingerprints[name], device)


@functools.lru_cache(maxsize=3)
def _loaded(folder: Path, name: str, fingerprint: str, device: torch.device) -> Dataset:
    modalities = source(name).modalities
    with np.load(folder / f"{name}.npz") as arrays:
        splits = {
            split: Split(tuple(torch.from_numpy(arrays[f"{split}_{m}"]) for m in range(len(modalities))))
            for split in SPLITS
        }
    return Dataset(name, modalities, fingerprint, **splits).to(device)


def read(folder: Path) -> Pack:
    """Reads a packed folder.

    Raises:
        Refusal: the folder holds no pack, or another version of this command made the pack.
    """
    try:
        description = json.loads((folder / FILE).read_bytes())
    except FileNotFoundError:
        raise Refusal(
            f"{folder} holds no packed data: run benchmarks/gpu --pack DIR on the machine with the data sets"
        ) from None
    if description.keys() != PARTS:
        raise Refusal(f"{folder} was packed by another version: make the pack again with benchmarks/gpu --pack DIR")
    return Pack(
        folder,
        description["fingerprints"],
        description["training_version"],
        description["git"],
        {label: PackedTrial(**one) for label, one in description["timed"].items()},
        tuple(PackedTrial(**one) for one in description["cells"]),
    )


def write(folder: Path, datasets: Sequence[Dataset], timed: Mapping[str, Trial], cells: Iterable[Trial]) -> None:
    """Writes a packed folder. Writes its description, pack.json, last."""
    from mvae.trial import TRAINING_VERSION

    folder.mkdir(parents=True, exist_ok=True)
    fingerprints = {data.name: data.fingerprint for data in datasets}
    for data in datasets:
        arrays = {
            f"{split}_{m}": value.numpy() for split in SPLITS for m, value in enumerate(getattr(data, split).values)
        }
        with atomic_path(folder / f"{data.name}.npz") as temporary, temporary.open("xb") as file:
            np.savez_compressed(file, **arrays)

    def packed(trial: Trial) -> dict[str, Any]:
        return {"key": trial.key(fingerprints[trial.dataset]), "fields": trial.model_dump()}

    description = {
        "fingerprints": fingerprints,
        "training_version": TRAINING_VERSION,
        "git": git_sha(),
        "timed": {label: packed(trial) for label, trial in timed.items()},
        "cells": [packed(trial) for trial in cells],
    }
    write_atomically(folder / FILE, json.dumps(description, indent=1).encode() + b"\n")


def write_paper(folder: Path, data_root: Path | None, cache: Path | None) -> None:
    """Packs MNIST, FashionMNIST and the trials of Table 4. Needs the same packages as a sweep.

    Raises:
        Refusal: the data are missing.
    """
    from mvae.data import load

    write(folder, [load(name, data_root, cache) for name in ("mnist", "fashion_mnist")], timed_trials(), table_4())


def timed_trials() -> dict[str, Trial]:
    """Returns the trials to time, by label. All examples are paired, so every step has the same shape."""
    from mvae.trial import Trial

    chosen = {
        "mvae mnist mlp": ("mvae", "mnist", "mlp"),
        "mvae fashion_mnist mlp": ("mvae", "fashion_mnist", "mlp"),
        "mvae fashion_mnist dcgan": ("mvae", "fashion_mnist", "dcgan"),
        "nn fashion_mnist mlp": ("nn", "fashion_mnist", "mlp"),
        "nn fashion_mnist dcgan": ("nn", "fashion_mnist", "dcgan"),
    }
    return {
        label: Trial.create(dataset=dataset, model=model, image_network=network, pairing="proportional")
        for label, (model, dataset, network) in chosen.items()
    }


def table_4() -> list[Trial]:
    """Returns trials of Table 4, the most informative trial first:

    1. MVAE at 1 and 2 % with `resampled` pairing and the published annealing, to test a guess of docs/table4.md
    2. MVAE and NN, column by column
    3. MVAE at 1 % with each pairing and each kind of targets
    4. MVAE and NN with two more seeds
    5. MVAE-Q
    """
    from pipelines.weak_supervision import Options, cells
    from sweeps.cli.options import read as parsed

    paper = ("--dataset", "fashion_mnist", "--preset", "paper")
    readings = ("--pairing", "reserved,proportional,resampled", "--targets", "own,all")
    leak = ("--arms", "mvae", "--seeds", "0", "--fractions", "0.01,0.02", "--pairing", "resampled")
    asked = [
        *cells(parsed(Options, [*paper, *leak, "--annealing-epochs", "200"])),
        *_column_by_column(cells(parsed(Options, [*paper, "--arms", "mvae,nn", "--seeds", "0"]))),
        *cells(parsed(Options, [*paper, "--arms", "mvae", "--seeds", "0", "--fractions", "0.01", *readings])),
        *_column_by_column(cells(parsed(Options, [*paper, "--arms", "mvae,nn", "--seeds", "1-2"]))),
        *_column_by_column(cells(parsed(Options, [*paper, "--arms", "mvae_q", "--seeds", "0"]))),
    ]
    unique = {json.dumps(cell.trial.hashed_fields(), sort_keys=True): cell.trial for cell in reversed(asked)}
    return list(reversed(unique.values()))


def _column_by_column(cells: Iterable[Any]) -> list[Any]:
    def rank(cell: Any) -> tuple[int, float, int]:
        fraction = cell.trial.paired_fraction
        first = FIRST_FRACTIONS.index(fraction) if fraction in FIRST_FRACTIONS else len(FIRST_FRACTIONS)
        return cell.trial.seed, first, -math.floor(1e6 * fraction)

    return sorted(cells, key=rank)
