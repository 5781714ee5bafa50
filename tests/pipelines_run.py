"""Runs pipelines in tests: commands in this process, their cells as jobs, and undisturbed results to compare with."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from mvae.data import load
from mvae.evaluation.measures import compute
from mvae.measure import Measure
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import best_epoch, train
from sweeps.cli.options import parse, read
from sweeps.main import main
from sweeps.planning.plan import Cell
from sweeps.store.store import Store
from sweeps.sweep import Sweep
from sweeps.trials.messages import Job
from tests.sweeping import ROOT, Place


def run(pipeline: str, *argv: str) -> int:
    """Runs a command in this process; returns its exit code."""
    module = import_module(f"pipelines.{pipeline}")
    try:
        options: Any = parse(module.Options, argv)
    except SystemExit as end:
        return int(end.code or 0)
    return main(lambda: module.sweep(options), options)


def sweep(pipeline: str, *argv: str) -> Sweep:
    """Sweep of a command line."""
    module = import_module(f"pipelines.{pipeline}")
    made: Sweep = module.sweep(read(module.Options, argv))
    return made


def command(here: Place, pipeline: str, arguments: Iterable[str]) -> list[str]:
    """Command line of a pipeline with its own storage and cache."""
    return [sys.executable, str(ROOT / "pipelines" / f"{pipeline}.py"), *here.command()[2:], *arguments]


def by_key(cells: Iterable[Cell], fingerprint: str) -> dict[str, list[Cell]]:
    """Cells grouped by their trial's key, in order."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.trial.key(fingerprint), []).append(cell)
    return found


def jobs(here: Place, cells: tuple[Cell, ...], root: Path | None) -> list[Job]:
    """Jobs of trial processes for these cells, with a checkpoint after every epoch."""
    data = load(cells[0].trial.dataset, root, here.cache)
    store = Store.open(here.storage, "main", create=True)
    return [
        Job(key, those[0].trial, measures_of(those), store, root, here.cache, checkpoint_every=0.0)
        for key, those in by_key(cells, data.fingerprint).items()
    ]


def measures_of(cells: Iterable[Cell]) -> tuple[Measure, ...]:
    return tuple(dict.fromkeys(cell.measure for cell in cells))


def assert_as_computed_alone(here: Place, cells: tuple[Cell, ...], root: Path | None, tmp_path: Path) -> None:
    """Asserts that every result equals, bit for bit, the result of a single undisturbed process."""
    data = load(cells[0].trial.dataset, root, here.cache)
    for key, those in by_key(cells, data.fingerprint).items():
        trained = train(those[0].trial, data, Checkpoints(tmp_path / key, "alone"))
        for measure in measures_of(those):
            result = here.store.results.read(key, measure.token)
            assert result is not None, (those[0].row, measure.token)
            expected = compute(measure, trained.model, those[0].trial, data)
            assert result.metrics == {**expected, **best_epoch(trained.history)}, (those[0].row, measure.token)
            assert [record["metrics"] for record in result.history] == [r["metrics"] for r in trained.history]
