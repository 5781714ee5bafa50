"""Equal seeds give equal numbers bit for bit, in any process, next to any other work, in any environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeps.store.store import Store
from sweeps.trials.run import run
from tests.sweeping import EPOCHS, ROOT, Unbroken, digits_job, unbroken

__all__ = ["unbroken"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

MODELS = ("logreg", "nn", "mvae")

PROCESS = """
import json, os, sys
from pathlib import Path
from tests.test_determinism import numbers_of
root, cache, *trials = sys.argv[1:]
print(json.dumps([numbers_of(Path(root), Path(cache), *json.loads(trial)) for trial in trials]))
"""
"""Runs the trials named by its arguments, one after the other."""

Numbers = list[Any]
"""Final metrics, then the metrics of every epoch. They are stored as JSON, which keeps every bit of a float."""


def numbers_of(root: Path, cache: Path, model: str, seed: int) -> Numbers:
    """Trains a trial of the undisturbed sweep in this process, with its own storage."""
    store = Store.open(root, f"{model}-{seed}-{len(list(root.iterdir()))}", create=True)
    job = digits_job(store, cache, model=model, seed=seed, epochs=EPOCHS)
    run(job, lambda _: None)
    (result,) = store.results
    return [result.metrics, *(record["metrics"] for record in result.history)]


def process(root: Path, cache: Path, threads: int, *trials: tuple[str, int]) -> subprocess.Popen[str]:
    """Starts a process with the given number of OpenMP threads that runs these trials."""
    root.mkdir()
    threading = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    arguments = [str(root), str(cache), *(json.dumps(trial) for trial in trials)]
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, *arguments],
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, **threading},
        cwd=ROOT,
    )


def answer(started: subprocess.Popen[str]) -> list[Numbers]:
    out, _ = started.communicate(timeout=300)
    assert started.returncode == 0
    return list(json.loads(out))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, Numbers]:
    """Each model's trial of seed 0, in this process, without concurrent work."""
    root = tmp_path_factory.mktemp("alone")
    return {model: numbers_of(root, cache, model, 0) for model in MODELS}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, cache: Path, alone: object) -> tuple[list[Numbers], list[Numbers]]:
    """Two concurrent processes run the same trials in opposite orders, one with one OpenMP thread and one with two."""
    root = tmp_path_factory.mktemp("pair")
    trials = [(model, 0) for model in MODELS]
    one = process(root / "one", cache, 1, *trials)
    two = process(root / "two", cache, 2, *reversed(trials))
    return answer(one), answer(two)[::-1]


def test_a_fresh_process_and_a_reused_one_give_the_same_numbers(
    pair: tuple[list[Numbers], list[Numbers]],
) -> None:
    forwards, backwards = pair
    assert forwards == backwards


def test_single_and_concurrent_runs_with_any_number_of_threads_give_the_same_numbers(
    alone: dict[str, Numbers], pair: tuple[list[Numbers], list[Numbers]]
) -> None:
    for numbers in pair:
        assert dict(zip(MODELS, numbers, strict=True)) == alone


def test_a_sweep_in_reused_ray_processes_gives_the_same_numbers_as_single_trials(
    alone: dict[str, Numbers], unbroken: Unbroken
) -> None:
    results = {
        result.trial["model"]: [result.metrics, *(record["metrics"] for record in result.history)]
        for result in unbroken.place.store.results
        if result.trial["paired_fraction"] == 0.05
    }
    assert results == alone


@pytest.mark.parametrize("model", ["nn", "mvae"])
def test_another_seed_changes_the_numbers(model: str, alone: dict[str, Numbers], tmp_path: Path, cache: Path) -> None:
    other = numbers_of(tmp_path, cache, model, 1)
    assert all(mine != others for mine, others in zip(alone[model][1:], other[1:], strict=True))
