"""Runs stored trials again in a temporary storage of this process, and compares the numbers bit for bit."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvae.data import DATASETS, fingerprint
from mvae.evaluation.judges import needed
from mvae.measure import Measure, measure_named
from mvae.refusal import Refusal
from mvae.trial import ADDED_AS, TRAINING_VERSION, Trial
from sweeps.store.provenance import MadeOn, made_on
from sweeps.store.results import Result, difference
from sweeps.store.store import Store
from sweeps.trials.messages import Job, Message

RARELY = 1e9
"""Seconds between checkpoints. The number is so large that only the final weights are saved."""


@dataclass(frozen=True)
class Finished:
    """A finished trial that can run again on this machine."""

    key: str
    trial: Trial
    results: tuple[Result, ...]
    """Stored results whose measures this version can compute."""

    @property
    def name(self) -> str:
        return f"{self.trial.model} on {self.trial.dataset}, seed {self.trial.seed} ({self.key})"

    @property
    def measures(self) -> tuple[Measure, ...]:
        return tuple(measure for result in self.results if (measure := measure_named(result.measure)) is not None)

    @property
    def made_on(self) -> frozenset[MadeOn]:
        return frozenset().union(*(made_on(result.provenance) for result in self.results))


@dataclass(frozen=True)
class Outcome:
    """The result of running one trial again."""

    differs: str = ""
    """First number that differs; empty if all bits are equal."""
    failed: str = ""
    """Why the trial, or one of its measures, did not finish here; empty if all finished."""
    here: MadeOn | None = None
    """The machine and versions of this run; None if the trial did not finish."""


class Candidates:
    """Chooses finished trials of a storage at random. A seed makes the choice repeatable.

    Args:
        store: the storage to choose from. Nothing is written to it.
        data_root, cache: same as for `mvae.data.load`.
    """

    def __init__(self, store: Store, data_root: Path | None, cache: Path | None) -> None:
        self._store = store
        self._data_root, self._cache = data_root, cache
        self._marks: dict[str, str] = {}
        self.altered: dict[str, str] = {}
        """The contradiction in each altered result, by trial key."""
        self.passed: dict[str, str] = {}
        """Why a trial was not chosen, by trial key."""

    def choose(self, number: int, seed: int) -> Iterator[Finished]:
        """Yields trials in an order that depends only on the seed and on the keys in the storage.

        Raises:
            Refusal: raw files of a trial's data set are missing or damaged.
        """
        keys = self._store.results.keys()
        random.Random(seed).shuffle(keys)  # noqa: S311  no secret
        chosen = 0
        for key in keys:
            if chosen + len(self.altered) >= number:
                return
            if (found := self._candidate(key)) is not None:
                chosen += 1
                yield found

    def _mark(self, dataset: str) -> str:
        if dataset not in self._marks:
            self._marks[dataset] = fingerprint(dataset, self._data_root, self._cache)
        return self._marks[dataset]

    def _candidate(self, key: str) -> Finished | None:
        results = self._store.results.where(lambda this, measure: this == key and measure_named(measure) is not None)
        if not results:
            self.passed[key] = "this version computes none of the trial's measures"
            return None
        dataset, provenance = str(results[0].trial.get("dataset")), results[0].provenance
        if dataset not in DATASETS:
            self.passed[key] = f"unknown data set {dataset}; give its file to --plugins"
            return None
        if provenance.get("training_version") != TRAINING_VERSION:
            self.passed[key] = "trained by another version of the training code"
            return None
        try:
            trials = [Trial.create(**{**ADDED_AS, **one.trial}) for one in results]
        except Refusal as refusal:
            self.passed[key] = str(refusal)
            return None
        trial, mark = trials[0], self._mark(dataset)
        if any(one.key(str(provenance.get("data"))) != key for one in trials):
            self.altered[key] = "the stored settings belong to another key"
            return None
        if trial.key(mark) != key:
            self.passed[key] = f"trained on other files of {dataset} than the files on this machine"
            return None
        if trial.workers > 1:
            self.passed[key] = f"trained by {trial.workers} workers together"
            return None
        return Finished(key, trial, tuple(results))


def run_again(
    one: Finished, scratch: Store, data_root: Path | None, cache: Path | None, heard: Callable[[Message], None]
) -> Outcome:
    """Runs a trial again in this process, and compares its numbers with the stored numbers.

    First trains the models that the trial's measures need.

    Args:
        scratch: temporary storage.
        heard: called with each message of the trial.
    """
    import torch  # only now, because the import takes a second

    from sweeps.trials.run import run

    on_gpu = any(facts.device == "cuda" for facts in one.made_on) and torch.cuda.is_available()
    about: dict[str, Any] = {"store": scratch, "data_root": data_root, "cache": cache, "gpus": float(on_gpu)}
    judges = needed(one.measures, one.trial.dataset)
    mark = fingerprint(one.trial.dataset, data_root, cache)
    jobs = [Job(trial.key(mark), trial, (), checkpoint_every=RARELY, **about) for trial in judges]
    jobs.append(Job(one.key, one.trial, one.measures, checkpoint_every=RARELY, **about))
    messages: list[Message] = []

    def hear(message: Message) -> None:
        messages.append(message)
        heard(message)

    for job in jobs:
        run(job, hear)
        if messages[-1].failed:
            return Outcome(failed=messages[-1].failed)
    differs, here = "", None
    for stored in one.results:
        now = scratch.results.read(one.key, stored.measure)
        if now is None:
            return Outcome(failed=f"the measure {stored.measure} was not computed")
        differs = differs or _differs(stored, now)
        here = here or next(iter(made_on(now.provenance)))
    return Outcome(differs=differs, here=here)


def _differs(stored: Result, now: Result) -> str:
    """Describes the first number that differs, in the final metrics or an epoch. Returns "" if none differs."""
    if found := difference(stored.metrics, now.metrics):
        return f"{stored.measure}: {found}"
    if len(stored.history) != len(now.history):
        return f"{len(stored.history)} epochs in storage and {len(now.history)} now"
    for before, after in zip(stored.history, now.history, strict=True):
        both = before["metrics"].keys() & after["metrics"].keys()  # a test curve is recorded only on request
        if found := difference(
            {name: before["metrics"][name] for name in both}, {name: after["metrics"][name] for name in both}
        ):
            return f"epoch {before['epoch']}: {found}"
    return ""
