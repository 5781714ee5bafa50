"""Trials that a search gave up: <key>.pruned.json beside the results, one file a key. Their checkpoints stay.

What a search gave up another sweep of the name may train to its end, from the checkpoint; for the search it stays given
up.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from mvae.storage.files import set_aside
from mvae.storage.place import Place, each
from mvae.training.records import Record
from sweeps.store.store import Store

SUFFIX = ".pruned.json"


@dataclass(frozen=True)
class Pruned:
    """A trial that was given up."""

    key: str
    search: str
    """Name of the search that gave it up."""
    metric: str
    value: float
    """Of the metric, when it was given up."""
    epoch: int
    """Epochs that it was trained."""
    trial: dict[str, Any]
    """All fields of the trial."""
    history: list[Record]


def write(store: Store, pruned: Pruned) -> None:
    """Says that a trial was given up; a later word on the same key takes the place of the first."""
    _path(store, pruned.key).write_bytes(json.dumps(asdict(pruned), indent=1).encode())


def read(store: Store, key: str, search: str) -> Pruned | None:
    """What is said of a key, None where this search did not give it up; a file that is damaged is set aside."""
    path = _path(store, key)
    try:
        found = Pruned(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        set_aside(path)
        return None
    return found if (found.key, found.search) == (key, search) else None


def of_search(store: Store, search: str) -> list[Pruned]:
    """All trials that a search gave up, by key."""
    folder = store.results.folder
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    keys = [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)]
    return [found for found in each(lambda key: read(store, key, search), keys, store.root) if found is not None]


def _path(store: Store, key: str) -> Place:
    return store.results.folder / f"{key}{SUFFIX}"
