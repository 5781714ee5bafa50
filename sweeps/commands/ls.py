"""`mvae ls`: lists the sweeps of a storage, with the number of finished cells, files and bytes.

Reads only names and sizes: no result and no checkpoint is opened. A trial that two sweeps use counts for both, but only
once in the totals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich import box
from rich.table import Table

from mvae.data import default_cache
from mvae.refusal import Refusal
from mvae.storage.objects import place
from mvae.storage.place import Place, Version
from sweeps.cli.console import Console
from sweeps.cli.words import counted, error, size
from sweeps.commands.options import Parser, root_of
from sweeps.store.lists import NAME, SweepList, names, read
from sweeps.store.store import RESERVED, Store
from sweeps.table.files import keys_of

ABOUT = """Lists the sweeps of a storage: when each one started and last changed, how many of its cells are done, and
the files and bytes of checkpoints, artifacts and cache. Writes nothing."""


@dataclass(frozen=True)
class Taken:
    """Number of files, and their total size in bytes."""

    files: int = 0
    bytes: int = 0

    @classmethod
    def of(cls, found: Mapping[str, Version]) -> Taken:
        return cls(len(found), sum(version.size for version in found.values()))

    def __add__(self, other: Taken) -> Taken:
        return Taken(self.files + other.files, self.bytes + other.bytes)

    def __str__(self) -> str:
        return f"{size(self.bytes)} in {counted(self.files, 'file')}" if self.files else "-"


@dataclass(frozen=True)
class Held:
    """Checkpoints, artifacts and results that are stored under one --name, by trial key."""

    checkpoints: Mapping[str, Taken]
    artifacts: Mapping[str, Taken]
    done: frozenset[tuple[str, str]]
    """Trial key and measure token of each result."""

    @classmethod
    def of(cls, store: Store) -> Held:
        return cls(
            _by_key(store.folder / "checkpoints"),
            _by_key(store.folder / "artifacts"),
            frozenset(store.results.pairs()),
        )

    def of_keys(self, keys: Iterable[str]) -> tuple[Taken, Taken]:
        """Returns two totals for these keys: first of the checkpoints, then of the artifacts."""
        chosen = list(keys)
        return tuple(  # type: ignore[return-value]
            sum((held.get(key, Taken()) for key in chosen), Taken()) for held in (self.checkpoints, self.artifacts)
        )


def parser() -> Parser:
    """Returns the parser of `mvae ls`."""
    made = Parser("ls", "", ABOUT)
    made.where(default_name=None)
    made.cache()
    return made


def main(typed: Sequence[str]) -> int:
    """Prints the sweeps; returns 0.

    Raises:
        Refusal: the storage does not exist, or cannot be reached.
    """
    chosen = parser().parse_args(typed)
    root, console = root_of(chosen), Console()
    found = [chosen.name] if chosen.name else _names_below(root)
    stores = [Store.open(root, name, create=False) for name in found]
    stores = [store for store in stores if store.folder.is_dir()]
    console.header(f"{root}: {counted(len(stores), 'name')}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("name", "sweep", "what", "started", "changed"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "sweep")  # a name to copy after `mvae rm`
    for heading in ("cells done", "trials", "checkpoints", "artifacts"):
        table.add_column(heading, justify="right")
    sums = []
    for store in stores:
        held, listed = Held.of(store), set[str]()
        for sweep in names(store):
            try:
                of_sweep = read(store, sweep)
            except Refusal as refusal:
                error(str(refusal))
                of_sweep = None
            listed |= of_sweep.keys if of_sweep else (keys_of(store.reports / sweep) or frozenset())
            table.add_row(*_row(store, sweep, of_sweep, held))
        sums.append(_sum(store, held, listed))
    if table.rows:
        console.rich.print(table)
    for line in sums:
        console.say(line)
    artifacts = root / "mlartifacts"
    console.say(f"MLflow's artifacts: {Taken.of(artifacts.listing() if artifacts.is_dir() else {})}")
    cache = place(chosen.cache or default_cache())
    console.say(f"Cache {cache}: {Taken.of(cache.listing() if cache.is_dir() else {})}")
    return 0


def _row(store: Store, sweep: str, found: SweepList | None, held: Held) -> list[str]:
    report = store.reports / sweep
    written = [version.changed / 1e9 for version in report.listing().values()] if report.is_dir() else []
    if found is None:
        keys = keys_of(report) or frozenset()
        what, started, cells = "no list; run the sweep again", "-", "-"
    else:
        keys, what, started = found.keys, found.title, _when(found.started)
        written.append(found.changed)
        wanted = {(key, token): count for key, of_key in found.cells.items() for token, count in of_key.items()}
        done = sum(count for pair, count in wanted.items() if pair in held.done)
        cells = f"{done:,} of {sum(wanted.values()):,}"
    checkpoints, artifacts = held.of_keys(keys)
    changed = _when(max(written)) if written else "-"
    return [store.name, sweep, what, started, changed, cells, f"{len(keys):,}", str(checkpoints), str(artifacts)]


def _sum(store: Store, held: Held, listed: set[str]) -> str:
    everything = held.checkpoints.keys() | held.artifacts.keys() | {key for key, _ in held.done}
    checkpoints, artifacts = held.of_keys(everything)
    alone = len(everything - listed)
    return (
        f"{store.name}: {counted(len(everything), 'trial')}, checkpoints {checkpoints}, artifacts {artifacts}"
        + f"; {counted(alone, 'trial')} in no sweep" * bool(alone)
    )


def _names_below(root: Place) -> list[str]:
    """Returns the names in a storage: folders that contain a namespace, results, checkpoints or lists of sweeps."""
    found = sorted(path.name for path in root.iterdir() if NAME.fullmatch(path.name) and path.name not in RESERVED)
    inside = ("namespace", "results", "checkpoints", "sweeps")
    return [name for name in found if any((root / name / one).exists() for one in inside)]


def _by_key(folder: Place) -> dict[str, Taken]:
    found: dict[str, dict[str, Version]] = {}
    for path, version in (folder.listing() if folder.is_dir() else {}).items():
        found.setdefault(path.partition("/")[0], {})[path] = version
    return {key: Taken.of(files) for key, files in found.items()}


def _when(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"
