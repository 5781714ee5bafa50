"""Results: one JSON file per key and measure. A measure is done if its file exists. Tables use only result files.

    <folder>/<key>.<measure>.json     {"key", "measure", "trial", "metrics", "provenance", "history"}

An existing result is never overwritten. A damaged file is renamed to `.bad` and reported, and its result is
computed again.

In object storage, two processes that compute the same result may both write it. Either their metrics are equal bit for
bit, or one of the two processes raises ResultConflict. Results never change, so a result read from object storage is
kept in memory.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Container, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from mvae.measure import Measure
from mvae.storage.files import Damaged, set_aside
from mvae.storage.objects import place
from mvae.storage.place import AnyPlace, Place, each
from mvae.training.records import Record

_FILE = re.compile(r"(?P<key>[A-Za-z0-9_]+)\.(?P<measure>(?P<label>[A-Za-z0-9_.-]+)-v(?P<version>\d+))\.json")
_log = logging.getLogger(__name__)
_fetched: dict[Place, Result] = {}
"""Results that this process has read from object storage, by path."""


class ResultConflict(Exception):
    """Two runs with the same key gave different numbers: the trial is not reproducible, or two trials share the key."""


@dataclass(frozen=True)
class Result:
    """The numbers of one measure for one trial."""

    key: str
    measure: str
    """Token of the measure, with its parameters and version: accuracy-v1, readout-f0.01-v1."""
    trial: dict[str, Any]
    metrics: dict[str, float]
    """Numbers that are equal bit for bit if the trial runs again."""
    provenance: dict[str, Any]
    """Facts that may differ if the trial runs again: times, host, versions, git sha, attempts."""
    history: list[Record]
    """One record per epoch of training, from which MLflow can be rebuilt."""

    @property
    def samples(self) -> int:
        """Number of samples that the measure draws per example (1000 for likelihood-s1000-v1), or 0 for none."""
        found = re.search(r"-s(\d+)-v", self.measure)
        return int(found[1]) if found else 0


class Results:
    """The results in one folder, sorted by file name. The folder may be missing until the first `write`."""

    def __init__(self, folder: AnyPlace) -> None:
        self.folder = place(folder)
        self._reported: set[Place] = set()

    def path(self, key: str, measure: str) -> Place:
        """Returns the path of a result file. The file need not exist.

        Args:
            measure: token of the measure, for example accuracy-v1.
        """
        path = self.folder / f"{key}.{measure}.json"
        assert _FILE.fullmatch(path.name), f"{path.name} is not a valid name of a result"
        return path

    def read(self, key: str, measure: str) -> Result | None:
        """Returns a stored result, or None if the file does not exist or is damaged. Renames a damaged file to `.bad`.

        Args:
            measure: token of the measure, for example accuracy-v1.
        Raises:
            OSError: the file exists but cannot be read.
        """
        path = self.path(key, measure)
        if path in _fetched:
            return _fetched[path]
        try:
            result = _parsed(path)
            if path.is_remote:
                _fetched[path] = result
            return result
        except FileNotFoundError:
            return None
        except Damaged as error:
            try:
                with self.folder.lock():  # another process may have replaced the file by a good one
                    return _undamaged(path)
            except OSError as refused:
                if path not in self._reported:
                    self._reported.add(path)
                    _log.warning("%s; the file cannot be renamed (%s)", error, refused.strerror)
                return None

    def write(self, result: Result) -> Result:
        """Stores a result, unless an equal one is already stored, and returns the stored result.

        Raises:
            ResultConflict: a result with other metrics is already stored.
            OSError: the file cannot be written; no partial file remains.
        """
        path = self.path(result.key, result.measure)
        metrics = {name: float(value) for name, value in result.metrics.items()}
        data = json.dumps({**asdict(result), "metrics": metrics}, indent=1).encode()
        with self.folder.lock():
            existing = _undamaged(path)
            if existing is None:
                path.write_bytes(data)
                return _parsed(path)
        if differs := difference(existing.metrics, metrics):
            raise ResultConflict(f"{path} already exists, and the new numbers differ: {differs}")
        return existing

    def __iter__(self) -> Iterator[Result]:
        return iter(self.where(lambda *_: True))

    def where(self, wanted: Callable[[str, str], bool]) -> list[Result]:
        """Returns the readable results that `wanted` selects, sorted by file name. Lists the folder once.

        Args:
            wanted: whether to return the result with this key and measure token.
        """
        names = [(match["key"], match["measure"]) for match in self._files() if wanted(match["key"], match["measure"])]
        return [result for result in each(lambda name: self.read(*name), names, self.folder) if result is not None]

    def keys(self, measure: str | None = None) -> list[str]:
        """Returns the sorted keys that have a result. Does not open the files.

        Args:
            measure: token of the measure, for example accuracy-v1, or None for any measure.
        """
        return sorted({match["key"] for match in self._files() if measure in (None, match["measure"])})

    def pairs(self) -> list[tuple[str, str]]:
        """Returns key and measure token of every result, sorted by file name. Does not open the files."""
        return [(match["key"], match["measure"]) for match in self._files()]

    def superseded(self, measure: Measure) -> list[str]:
        """Returns the names of result files with another version of this measure. Does not open the files."""
        return [
            match.string
            for match in self._files()
            if match["label"] == measure.label and int(match["version"]) != measure.version
        ]

    def names(self, keys: Container[str]) -> list[str]:
        """Returns the names of the given keys' result files, for all measures and versions. Does not open the files."""
        return [match.string for match in self._files() if match["key"] in keys]

    def _files(self) -> list[re.Match[str]]:
        names = sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []
        return [match for name in names if (match := _FILE.fullmatch(name))]


def _undamaged(path: Place) -> Result | None:
    """Returns the result in a file, or None if the file does not exist or is damaged. Renames a damaged file.

    The caller must hold the folder's lock.
    """
    try:
        return _parsed(path)
    except FileNotFoundError:
        return None
    except Damaged as error:
        _log.warning("%s; renamed to %s and will be computed again", error, set_aside(path).name)
        return None


def _parsed(path: Place) -> Result:
    """Reads a result from its file.

    Raises:
        FileNotFoundError: the file does not exist.
        Damaged: the file is not a result, or its content contradicts its name.
    """
    data = path.read_bytes()
    try:
        content = json.loads(data)
        result = Result(
            key=content["key"],
            measure=content["measure"],
            trial=dict(content["trial"]),
            metrics={str(name): float(value) for name, value in content["metrics"].items()},
            provenance=dict(content["provenance"]),
            history=list(content["history"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"result {path} is damaged ({type(error).__name__}: {error})") from error
    if path.name != f"{result.key}.{result.measure}.json":
        raise Damaged(f"result {path} contains another key or measure, {result.key}.{result.measure}")
    return result


def difference(stored: dict[str, float], computed: dict[str, float]) -> str:
    """Describes the first metric that differs in any bit (nan equals nan). Returns "" if all metrics are equal."""
    for name in sorted(stored.keys() | computed.keys()):
        before, now = stored.get(name), computed.get(name)
        if repr(before) != repr(now):
            return f"{name} is {before!r} in storage and {now!r} now"
    return ""
