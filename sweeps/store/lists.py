"""Sweep lists: one JSON file per sweep, <name>/sweeps/<sweep>.json, with the keys of the trials that the sweep uses.

The driver takes the lease and writes the list before training. A later command with the same sweep name adds its keys
to the list. `mvae rm` deletes a trial only if no other list has the trial's key. `mvae ls` shows how many of the
list's cells are done.

A damaged list is renamed to `.bad`, and the new list has only the keys of later commands. While the `.bad` file exists,
`mvae rm` deletes no other sweep, because the keys in the `.bad` file may be missing from the new list.

Storages of earlier releases have no lists. Running a sweep's command again writes the sweep's list.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from mvae.refusal import Refusal
from mvae.storage.files import set_aside
from mvae.storage.place import Place, each
from sweeps.store.store import Store

KEY = re.compile(r"[A-Za-z0-9_]+")
"""Allowed form of a key. The check keeps a damaged list from naming paths outside the storage."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""Allowed form of a sweep's name. The folder of the sweep's report has the same name."""
SET_ASIDE = re.compile(rf"({NAME.pattern})\.json\.bad(?:-[0-9]+)?")
"""Form of a damaged list's file name after `mvae.storage.files.set_aside` has renamed the file."""

STUDY = "study.db"
"""Name of the file with a search's study, in the folder of the storage name.

A list stores this name instead of a URI, so the list stays correct if the storage moves.
"""


@dataclass(frozen=True)
class SweepList:
    """The trials that one sweep uses."""

    sweep: str
    title: str
    command: str
    """Command that resumes or extends the sweep."""
    started: float
    """Unix time in seconds of the sweep's first command."""
    changed: float
    """Unix time in seconds of the last command that changed this list."""
    cells: Mapping[str, Mapping[str, int]]
    """Number of cells by key and measure token."""
    needs: tuple[str, ...] = ()
    """Keys of trials whose models the measures need, for example classifiers that judge generated images."""
    study: str = ""
    """URI of a search's database, without credentials; STUDY for the default file; empty for a grid."""

    @property
    def keys(self) -> frozenset[str]:
        """Keys of all trials that the sweep uses, including trials whose models the measures need."""
        return frozenset([*self.cells, *self.needs])


def extend(store: Store, new: SweepList) -> None:
    """Adds the cells of a new command to the sweep's list. Writes the file only if the list changes.

    The caller must hold the lease. A damaged list is renamed to `.bad`, and the new list has only the given cells.
    """
    path = store.list_of(new.sweep)
    try:
        before = read(store, new.sweep)
    except Refusal:
        set_aside(path)
        before = None
    if before is not None:
        cells: dict[str, Mapping[str, int]] = dict(before.cells)
        for key, counts in new.cells.items():
            known = cells.get(key, {})
            cells[key] = {**known, **{token: max(count, known.get(token, 0)) for token, count in counts.items()}}
        needs = tuple(sorted({*before.needs, *new.needs}))
        new = replace(new, cells=cells, needs=needs, started=before.started, study=new.study or before.study)
        if (new.cells, new.needs, new.study) == (before.cells, before.needs, before.study):
            return
    path.write_bytes(json.dumps(asdict(new), indent=1).encode())


def counted_cells(cells: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Counts cells by key and measure token, in the form of `SweepList.cells`.

    Args:
        cells: key and measure token of each cell.
    """
    found: dict[str, dict[str, int]] = {}
    for key, token in cells:
        of_key = found.setdefault(key, {})
        of_key[token] = of_key.get(token, 0) + 1
    return found


def read(store: Store, sweep: str) -> SweepList | None:
    """Returns a sweep's list, or None if the sweep has no list.

    Raises:
        Refusal: the file is damaged.
    """
    path = store.list_of(sweep)
    try:
        return _parsed(path, sweep)
    except FileNotFoundError:
        return None


def names(store: Store) -> list[str]:
    """Returns the sorted names of all sweeps of a storage name, including sweeps with a report but no list."""
    lists = [path.name for path in _below(store.folder / "sweeps") if path.name.endswith(".json")]
    reports = [path.name for path in _below(store.reports)]
    return sorted({name for name in (*(one.removesuffix(".json") for one in lists), *reports) if NAME.fullmatch(name)})


def all_lists(store: Store) -> dict[str, SweepList]:
    """Returns all lists by sweep name.

    Raises:
        Refusal: a file is damaged.
    """
    found = each(lambda name: read(store, name), names(store), store.root)
    return {one.sweep: one for one in found if one is not None}


def damaged(store: Store) -> list[tuple[str, Place]]:
    """Returns the sweep name and path of each damaged list that `extend` has renamed, sorted by path."""
    found = ((SET_ASIDE.fullmatch(path.name), path) for path in _below(store.folder / "sweeps"))
    return [(match[1], path) for match, path in found if match is not None]


def _below(folder: Place) -> list[Place]:
    return sorted(folder.iterdir(), key=lambda path: path.name) if folder.is_dir() else []


def _parsed(path: Place, sweep: str) -> SweepList:
    data = path.read_bytes()
    try:
        content: dict[str, Any] = json.loads(data)
        cells = {
            str(key): {str(token): int(count) for token, count in counts.items()}
            for key, counts in content["cells"].items()
        }
        found = SweepList(
            sweep=str(content["sweep"]),
            title=str(content["title"]),
            command=str(content["command"]),
            started=float(content["started"]),
            changed=float(content["changed"]),
            cells=cells,
            needs=tuple(map(str, content["needs"])),
            study=str(content["study"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refusal(_what_to_do(path, f"{type(error).__name__}: {error}")) from None
    wrong = [key for key in found.keys if not KEY.fullmatch(key)]
    if found.sweep != sweep or wrong:
        raise Refusal(_what_to_do(path, f"invalid key {wrong[0]!r}" if wrong else f"it is the list of {found.sweep!r}"))
    return found


def _what_to_do(path: Place, why: str) -> str:
    return f"the sweep's list {path} is damaged ({why}): run the sweep's command again to write a new list"
