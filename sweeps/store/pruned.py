"""Trials that a search pruned (stopped early): one file <key>.pruned.json per key, next to the results.

Checkpoints of pruned trials are kept, so another sweep of the same storage name can finish the training of a pruned
trial. The search still counts the trial as pruned.
"""

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
    """A trial that a search pruned."""

    key: str
    search: str
    metric: str
    value: float
    """Value of the metric when the trial was pruned."""
    epoch: int
    """Number of epochs for which the trial was trained."""
    trial: dict[str, Any]
    history: list[Record]


def write(store: Store, pruned: Pruned) -> None:
    """Stores the record of a pruned trial. Replaces an earlier record of the same key."""
    _path(store, pruned.key).write_bytes(json.dumps(asdict(pruned), indent=1).encode())


def read(store: Store, key: str, search: str) -> Pruned | None:
    """Returns the record of a trial, or None if this search did not prune it. Renames a damaged file to `.bad`."""
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
    """Returns all trials that a search pruned, sorted by key."""
    folder = store.results.folder
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    keys = [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)]
    return [found for found in each(lambda key: read(store, key, search), keys, store.root) if found is not None]


def _path(store: Store, key: str) -> Place:
    return store.results.folder / f"{key}{SUFFIX}"
