"""Finds the trials and files that only one sweep uses, and deletes them from storage.

A sweep's list names its trials, and the models that its measures need. A sweep from an earlier release has no list.
A trial is deleted only if this sweep's list names the trial and no other sweep uses it. Another sweep uses a trial if:

- the other sweep's list names the trial
- the other sweep has no list, and its report names the trial
- the other sweep has no list, and a measure of this sweep needs the trial's model; reports do not name such models

A kill at any point is harmless, because of the order: the results of a trial, then its other files, then the sweep's
report, and last the sweep's list, which names what is left to delete. Links are never followed: a link in place of a
trial's folder is itself deleted, and a link in place of a folder of the storage is refused.
"""

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mvae.refusal import Refusal
from mvae.storage.place import Place
from sweeps.store.lists import STUDY, SweepList, all_lists, damaged, names
from sweeps.store.sqlite import sqlite_uri
from sweeps.store.store import Store
from sweeps.table.files import keys_of, record_of

FOLDERS = ("results", "checkpoints", "artifacts", "measuring", "errors", "reports", "mirrored", "sweeps")
"""Folders in which files are deleted, inside the folder of a storage name."""


@dataclass(frozen=True)
class Part:
    """A file, or a folder with everything below it."""

    place: Place
    is_folder: bool

    def taken(self) -> tuple[int, int]:
        """Returns the number of files and their bytes, not counting links."""
        if self.place.is_link():
            return 0, 0
        if not self.is_folder:
            return (1, self.place.version().size) if self.place.is_file() else (0, 0)
        if not self.place.is_dir():
            return 0, 0
        found = [version.size for path, version in self.place.listing().items() if not (self.place / path).is_link()]
        return len(found), sum(found)

    def delete(self) -> None:
        """Deletes the part if it exists. After a failure, a second call deletes what is left.

        Raises:
            OSError: something cannot be deleted.
        """
        if self.place.is_link() or not self.is_folder:
            self.place.unlink(missing_ok=True)
            return
        self.place.remove_tree()
        if self.place.exists():
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(self.place))


@dataclass(frozen=True)
class Own:
    """The trials and files that only one sweep uses."""

    store: Store
    listed: SweepList
    others: Mapping[str, frozenset[str]]
    """Trial keys of every other sweep, by the sweep's name."""

    @property
    def study(self) -> str:
        """URI of the search's database, or "" if the sweep is a grid."""
        inside = self.listed.study == STUDY
        return sqlite_uri(str(self.store.folder / STUDY)) if inside else self.listed.study

    @property
    def used_by_others(self) -> frozenset[str]:
        return self.listed.keys & frozenset[str]().union(*self.others.values())

    @property
    def keys(self) -> frozenset[str]:
        """Keys of the trials to delete."""
        return self.listed.keys - self.used_by_others

    def parts_of_trials(self) -> Iterator[Part]:
        """Yields the files of the trials, in the order of their deletion."""
        results = self.store.results.folder
        files = sorted(path.name for path in results.iterdir()) if results.is_dir() else []
        of_key: dict[str, list[str]] = {}
        for name in files:  # also KEY.pruned.json, damaged files, and .KEY... left by a kill
            of_key.setdefault(name.removeprefix(".").partition(".")[0], []).append(name)
        for key in sorted(self.keys):
            yield from (Part(results / name, is_folder=False) for name in of_key.get(key, ()))
            folders = (self.store.measuring(key), self.store.artifacts(key), self.store.checkpoints(key).folder)
            yield from (Part(folder, is_folder=True) for folder in folders)
            yield Part(self.store.traceback(key), is_folder=False)

    def parts_of_sweep(self) -> Iterator[Part]:
        """Yields the files of the sweep itself. The sweep's list of trials comes last."""
        report = self.store.reports / self.listed.sweep
        yield Part(report, is_folder=True)
        aside = [path for name, path in damaged(self.store) if name == self.listed.sweep]
        of_sweep = (self.store.mirrored(self.listed.sweep), *aside, self.store.list_of(self.listed.sweep))
        for path in (record_of(report), *of_sweep):
            yield Part(path, is_folder=False)

    def delete(self, parts: Iterator[Part], check: Callable[[], object]) -> None:
        """Deletes parts one by one.

        Args:
            check: called before each part; may raise an error to stop.
        Raises:
            OSError: something cannot be deleted.
        """
        for part in parts:
            check()
            part.delete()


def own(store: Store, sweep: str) -> Own:
    """Finds the trials and files that only one sweep uses. The caller must hold the lease.

    Raises:
        Refusal: the sweep has no list, a list or report cannot be read, another sweep's damaged list was set aside, or
            a folder of the storage is a link.
    """
    known = names(store)
    if sweep not in known:
        raise Refusal(
            f"{store.folder} has no sweep {sweep}: "
            + (f"choose one of {', '.join(known)}" if known else "this storage has no sweeps")
        )
    check_links(store)
    lists = all_lists(store)
    if sweep not in lists:
        raise Refusal(
            f"sweep {sweep} from an earlier release has no list of its trials, so all its trials count as used: type"
            " the sweep's command again, which writes the list and trains only missing trials"
        )
    for name, path in damaged(store):
        if name != sweep:
            raise Refusal(
                f"{path} is the damaged list of sweep {name}, and the new list may lack earlier trials: type"
                f" all commands of sweep {name} again, then delete this file"
            )
    others = {}
    for name in known:
        keys = lists[name].keys if name in lists else keys_of(store.reports / name)
        if keys is None:
            raise Refusal(
                f"sweep {name} has no list of its trials, and its report {store.reports / name} cannot be read:"
                " type the command of that sweep again, or move the report away"
            )
        if name != sweep:  # a sweep without a list may need the same models, which no report names
            others[name] = keys if name in lists else keys | frozenset(lists[sweep].needs)
    return Own(store, lists[sweep], others)


def check_links(store: Store) -> None:
    """Refuses a storage in which a folder is a link, because deletion could then reach files outside the storage.

    Raises:
        Refusal: a folder is a link.
    """
    for path in (store.folder, *(store.folder / name for name in FOLDERS), store.reports / ".made_of"):
        if path.is_link():
            raise Refusal(f"{path} is a link, and `mvae rm` never follows links: put the folder itself there")
