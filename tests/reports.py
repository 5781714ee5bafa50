"""Reports of made-up results for tests of tables."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from mvae.measure import ACCURACY
from mvae.trial import Trial
from sweeps.planning.plan import Cell, plan
from sweeps.store.results import Result
from sweeps.store.store import Store
from sweeps.table.comparison import Entry, Report, Run
from sweeps.table.files import show, tabulate
from sweeps.table.published import TABLE_4

Value = Callable[[Cell], float | None]
Build = Callable[..., Report]


def grid(arms: Sequence[str], columns: Sequence[float], seeds: int = 3, epochs: int = 10) -> list[Cell]:
    return [
        Cell(
            row=arm,
            column=column,
            trial=Trial.create(
                dataset="fashion_mnist",
                model=arm,
                image_network="mlp",
                paired_fraction=column,
                seed=seed,
                epochs=epochs,
            ),
            measure=ACCURACY,
            published=TABLE_4.published(arm, column),
            arm=arm,
        )
        for arm in arms
        for column in columns
        for seed in range(seeds)
    ]


def report_of(folder: Path, cells: Sequence[Cell], value: Value, **settings: object) -> Report:
    """Makes a report of cells whose values come from a function; None means no result."""
    store = Store.open(folder, "main", create=True)
    planned = plan(cells, store, "f")
    for cell, key in zip(planned.cells, planned.keys, strict=True):
        found = value(cell)
        if found is not None:
            fields = cell.trial.model_dump()
            store.results.write(Result(key, ACCURACY.token, fields, {"test/accuracy": found}, {}, []))
    return tabulate(planned, store.results, **{"table": TABLE_4, **settings})  # type: ignore[arg-type]


def entry(values: Sequence[float | None], published: float | None = None) -> Entry:
    runs = tuple(
        Run("nn", 0.1, seed, f"{seed:016x}", "accuracy-v1", value, 10, None, None, mixed=False)
        for seed, value in enumerate(values)
    )
    return Entry("nn", 0.1, "nn", published, tolerance=0.03, runs=runs)


def around(spread: float) -> Callable[[Cell], float]:
    """Three seeds with the published mean and this standard deviation."""
    return lambda cell: (cell.published or 0) + spread * (cell.trial.seed - 1)


def printed(report: Report, width: int = 120, *, terminal: bool = False, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    show(report, Console(file=file, width=width, force_terminal=terminal, color_system=None))
    file.flush()
    return raw.getvalue().decode(encoding)
