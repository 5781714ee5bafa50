"""A search without trial processes: tests write the files that trial processes would leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from mvae.training.records import Record
from mvae.trial import Trial
from pipelines.search import Options, search
from sweeps.cli.options import read
from sweeps.search.database import study_uri
from sweeps.search.space import Search
from sweeps.search.study import SearchRecord, opened
from sweeps.search.tried import TriedTrial
from sweeps.store.results import Result
from sweeps.store.store import Store

EPOCHS = 10


@pytest.fixture
def store(storage: Path) -> Store:
    return Store.open(storage, "main", create=True)


def wanted(*arguments: str) -> Search:
    return search(read(Options, ["--epochs", str(EPOCHS), "--paired-fraction", "0.05", *arguments]))


@pytest.fixture
def reopen(store: Store) -> Iterator[Callable[..., SearchRecord]]:
    """Opens the study like the next driver; the previous driver has ended without closing it."""
    with ExitStack() as stack:

        def again(of: Search) -> SearchRecord:
            stack.close()
            study = stack.enter_context(opened(of, study_uri(store, None)))
            study.settle(store)
            return study

        yield again


def history(values: Sequence[float], start: float = 0.0) -> list[Record]:
    return [
        Record(epoch=epoch, time=start + epoch, metrics={"validation/accuracy": value})
        for epoch, value in enumerate(values, 1)
    ]


def finish(store: Store, of: Search, trial: Trial, value: float, finished: float = 0.0) -> str:
    """Writes what a finished trial process leaves; returns its key."""
    key, values = of.key(trial), [value] * trial.epochs
    about = {"finished": finished, "seconds": 5.0, "epochs": trial.epochs}
    metrics = {"test/accuracy": value / 2}
    store.results.write(Result(key, of.measure.token, trial.model_dump(), metrics, about, history(values)))
    return key


def asked(study: SearchRecord, store: Store) -> TriedTrial:
    known = study.ask(store)
    assert known is not None
    return known


def run_to_the_end(study: SearchRecord, store: Store) -> list[TriedTrial]:
    """Finishes every trial that the study asks for; a trial's value is its learning rate."""
    found = []
    while (known := study.ask(store)) is not None:
        finish(store, study.search, known.trial, known.trial.learning_rate)
        study.done(known.key, store)
        found.append(known)
    return found
