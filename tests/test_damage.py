"""Files truncated by a power cut are set aside, and only their contents are made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from mvae.training.records import MODEL
from sweeps.store.store import Store
from sweeps.trials.messages import Job
from sweeps.trials.run import run
from tests.crashes import on_disk
from tests.sweeping import (
    EPOCHS,
    ONE_AT_A_TIME,
    SWEEP,
    Ended,
    Place,
    copy_of,
    digits_job,
    history_of,
    mlflow_differs,
    newest_first,
    place,
    run_until,
)
from tests.tiny_mnist import truncate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

CUT_OFF_AT = 7
"""Epoch at which the half-done trial was interrupted."""


@dataclass(frozen=True)
class Mended:
    """A sweep repeated after its files were damaged in every way."""

    place: Place
    before: dict[str, tuple[int, bytes]]
    half_done: str
    """Key of the trial whose newest checkpoint was truncated."""
    corrupt: str
    """Name of the result file that was truncated."""
    ended: Ended


@pytest.fixture(scope="module")
def whole() -> Iterator[Place]:
    """Runs the sweep's trials one after the other in this process, without damage."""
    with place(begun=True) as here:
        store = Store.open(here.storage, "main", create=True)
        for model in ("nn", "logreg", "mvae"):
            for fraction in (0.05, 1.0):
                run(digits_job(store, here.cache, model=model, paired_fraction=fraction, epochs=EPOCHS), lambda _: None)
        yield here


@pytest.fixture(scope="module")
def mended(whole: Place) -> Iterator[Mended]:
    with copy_of(whole) as here:
        half_done = digits_job(here.store, here.cache, model="mvae", paired_fraction=1.0, epochs=EPOCHS)
        forget(half_done)
        run_until(half_done, CUT_OFF_AT)
        newest, before_it = newest_first(on_disk(here.store.folder / "checkpoints" / half_done.key))
        assert [len(history_of(one)) for one in (newest, before_it)] == [CUT_OFF_AT, CUT_OFF_AT - 1]
        truncate(newest / MODEL)
        before = here.files()
        done = digits_job(here.store, here.cache, epochs=EPOCHS).key
        corrupt = on_disk(here.store.results.path(done, "accuracy-v1"))
        truncate(corrupt)
        truncate(next(here.cache.glob("digits-*/train.arrow")))
        yield Mended(here, before, half_done.key, corrupt.name, here.run(*SWEEP, *ONE_AT_A_TIME))


def forget(job: Job) -> None:
    """Deletes all traces of a trial."""
    job.store.results.path(job.key, "accuracy-v1").unlink()
    shutil.rmtree(on_disk(job.store.folder / "checkpoints" / job.key))


def test_a_sweep_with_damaged_files_ends_with_the_same_numbers(mended: Mended, whole: Place) -> None:
    assert mended.ended.code == 0, mended.ended
    assert mended.place.numbers() == whole.numbers()
    assert mlflow_differs(mended.place) == []


def test_a_truncated_newest_checkpoint_costs_one_epoch(mended: Mended) -> None:
    attempts = mended.place.results()[mended.half_done].provenance["attempts"]
    assert [attempt["from_epoch"] for attempt in attempts] == [0, CUT_OFF_AT - 1]


def test_a_corrupt_result_is_set_aside_and_recomputed_from_the_final_weights(mended: Mended) -> None:
    folder = on_disk(mended.place.store.results.folder)
    assert len(list(folder.glob(f"{mended.corrupt}.bad"))) == 1
    again = json.loads((folder / mended.corrupt).read_bytes())
    was = json.loads(mended.before[mended.corrupt][1])
    assert again["metrics"] == was["metrics"]
    assert again["history"] == was["history"]
    assert [attempt["from_epoch"] for attempt in again["provenance"]["attempts"]] == [0, EPOCHS]


def test_complete_results_are_left_unchanged(mended: Mended) -> None:
    now = mended.place.files()
    others = mended.before.keys() - {mended.corrupt}
    assert len(others) == 4
    assert {name: now[name] for name in others} == {name: mended.before[name] for name in others}


def test_a_truncated_arrow_file_is_set_aside_and_converted_again(mended: Mended, whole: Place) -> None:
    (bad,) = mended.place.cache.glob("digits-*/train.arrow.bad")
    again = bad.with_suffix("")
    assert again.read_bytes() == (whole.cache / again.relative_to(mended.place.cache)).read_bytes()


def test_each_damaged_file_is_named_once(mended: Mended) -> None:
    lines = mended.ended.err.splitlines()
    for name in (mended.corrupt, "train.arrow", f"{mended.half_done}/{CUT_OFF_AT:06d}-"):
        assert sum(name in line for line in lines) == 1, (name, lines)
    assert len(lines) == 3
