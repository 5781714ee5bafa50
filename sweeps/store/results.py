"""Results: one JSON file a key and measure. That the file exists means done; tables are made from these files alone.

    <folder>/<key>.<measure>.json     {"key", "measure", "trial", "metrics", "provenance", "history"}

A result that exists is never overwritten. One that cannot be read is set aside as `.bad`, reported, and made again.
On a store without locks two processes that compute one key at once may both write it: the same metrics, bit for bit, or
a conflict that one of them sees. What was once read from there is not asked for again: it never changes.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Container, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mvae.storage.files import Damaged, set_aside
from mvae.storage.objects import place
from mvae.storage.place import AnyPlace, Place, each
from mvae.training.records import Record

if TYPE_CHECKING:
    from mvae.measure import Measure

_FILE = re.compile(r"(?P<key>[A-Za-z0-9_]+)\.(?P<measure>(?P<label>[A-Za-z0-9_.-]+)-v(?P<version>\d+))\.json")
_log = logging.getLogger(__name__)
_fetched: dict[Place, Result] = {}
"""Read from a remote place by this process."""


class ResultConflict(Exception):
    """A key was computed twice and the numbers differ: not reproducible, or two things under one key."""


@dataclass(frozen=True)
class Result:
    """What a measure gives for one trial."""

    key: str
    """Content key of the trial."""
    measure: str
    """Token of the measure, with its parameters and version: accuracy-v1, readout-f0.01-v1."""
    trial: dict[str, Any]
    """All fields of the trial."""
    metrics: dict[str, float]
    """The numbers that are equal bit for bit when the trial runs again."""
    provenance: dict[str, Any]
    """All that may differ: times, host, versions, git sha, attempts."""
    history: list[Record]
    """One record an epoch of the training, so that MLflow can be rebuilt from the file."""

    @property
    def samples(self) -> int:
        """Samples that the measure draws per example, as likelihood-s1000-v1; 0 if it draws none."""
        found = re.search(r"-s(\d+)-v", self.measure)
        return int(found[1]) if found else 0


class Results:
    """The results in one folder, which need not exist before the first `write`."""

    def __init__(self, folder: AnyPlace) -> None:
        self.folder = place(folder)
        self._reported: set[Place] = set()

    def path(self, key: str, measure: str) -> Place:
        """Where the result of this key and measure (token) lies when it is there."""
        path = self.folder / f"{key}.{measure}.json"
        assert _FILE.fullmatch(path.name), f"{path.name} is no name of a result"
        return path

    def read(self, key: str, measure: str) -> Result | None:
        """The result, or None where there is none; a file that cannot be understood is set aside first.

        Raises:
            OSError: the file is there but the disk or its permissions refuse it.
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
            return self._set_aside(path, error)

    def write(self, result: Result) -> Result:
        """Store a result and return what is stored: of two equal ones, the first.

        Raises:
            ResultConflict: another result with other metrics is there.
            OSError: it cannot be written; nothing half-written is left behind.
        """
        path = self.path(result.key, result.measure)
        metrics = {name: float(value) for name, value in result.metrics.items()}
        data = json.dumps({**asdict(result), "metrics": metrics}, indent=1).encode()
        with self.folder.lock():
            try:
                existing = _parsed(path)
            except FileNotFoundError:
                existing = None
            except Damaged as error:
                _log.warning("%s; set aside as %s", error, set_aside(path).name)
                existing = None
            if existing is None:
                path.write_bytes(data)
                return _parsed(path)
        difference = _difference(existing.metrics, metrics)
        if difference:
            raise ResultConflict(f"{path} exists and differs from what was computed now: {difference}")
        return existing

    def __iter__(self) -> Iterator[Result]:
        """Every readable result, of all measures and versions, sorted by file name."""
        return iter(self.where(lambda *_: True))

    def where(self, wanted: Callable[[str, str], bool]) -> list[Result]:
        """Every readable result whose key and measure (token) are wanted, by file name; the folder is listed once."""
        names = [(match["key"], match["measure"]) for match in self._files() if wanted(match["key"], match["measure"])]
        return [result for result in each(lambda name: self.read(*name), names, self.folder) if result is not None]

    def keys(self, measure: str | None = None) -> list[str]:
        """Keys that have a file for this measure (token), or for any. The files are not opened."""
        return sorted({match["key"] for match in self._files() if measure in (None, match["measure"])})

    def superseded(self, measure: Measure) -> list[str]:
        """Names of the files that hold another version of this measure: listed, never read."""
        return [
            match.string
            for match in self._files()
            if match["label"] == measure.label and int(match["version"]) != measure.version
        ]

    def names(self, keys: Container[str]) -> list[str]:
        """Names of the files of some keys, of all measures and versions. The files are not opened."""
        return [match.string for match in self._files() if match["key"] in keys]

    def _files(self) -> list[re.Match[str]]:
        names = sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []
        return [match for name in names if (match := _FILE.fullmatch(name))]

    def _set_aside(self, path: Place, error: Damaged) -> Result | None:
        """Rename a damaged file, unless another process has meanwhile put a good one in its place."""
        try:
            with self.folder.lock():
                try:
                    return _parsed(path)
                except FileNotFoundError:
                    return None
                except Damaged as still:
                    _log.warning("%s; set aside as %s, to be made again", still, set_aside(path).name)
                    return None
        except OSError as refused:
            if path not in self._reported:
                self._reported.add(path)
                _log.warning("%s; it cannot be set aside (%s)", error, refused.strerror)
            return None


def _parsed(path: Place) -> Result:
    """Read one file.

    Raises:
        FileNotFoundError: no such file.
        Damaged: it is not a result, or not the one that its name says.
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
        raise Damaged(f"result {path} cannot be read ({type(error).__name__}: {error})") from error
    if path.name != f"{result.key}.{result.measure}.json":
        raise Damaged(f"result {path} holds {result.key}.{result.measure}")
    return result


def _difference(stored: dict[str, float], computed: dict[str, float]) -> str:
    """Where two sets of metrics differ in a single bit (nan equals nan), in words; empty where they do not."""
    for name in sorted(stored.keys() | computed.keys()):
        one, other = stored.get(name), computed.get(name)
        if repr(one) != repr(other):
            return f"{name} is {one!r} there and {other!r} now"
    return ""
