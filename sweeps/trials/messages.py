"""Job: one trial, as the driver sends it to a process. Message: what the process reports. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mvae.measure import Measure
from mvae.plugins import Plugin, loaded
from mvae.training.records import Record
from mvae.trial import Trial
from sweeps.planning.plan import shape_of
from sweeps.store.store import Store

TRANSLATIONS = "translations.md"
"""The file of what a trial of sentences writes: Tables 6 to 8."""


REPORT_EVERY = 1.0
"""Seconds between two words on a trial's progress; committed records are always passed on at once."""


@dataclass(frozen=True)
class Job:
    """One trial to run, with all that its process must know; plain values, so that it can be sent anywhere."""

    key: str
    trial: Trial
    measures: tuple[Measure, ...]
    """Those without a result."""
    store: Store
    data_root: Path | None = None
    cache: Path | None = None
    gpus: float = 0.0
    """GPUs of each of its processes: a share of one, or whole."""
    checkpoint_every: float = 60.0
    checkpoint_at: tuple[int, ...] = ()
    """Epochs after which there is a checkpoint in any case."""
    git: str = ""
    """Commit of the driver's code."""
    speeds: bool = False
    """Measure what its workers gain, against one of them alone."""
    test_curve: bool = False
    """Measure test accuracy after every epoch, as a diagnostic."""
    namespace: str = ""
    """The store's, as the driver reads it: whoever reads another works on another storage."""
    plugins: tuple[Plugin, ...] = field(default_factory=loaded)
    """What its process must run before it knows the trial's data set and arm: those of the process that makes the job.
    """

    @property
    def workers(self) -> int:
        """Processes that it runs in."""
        return shape_of(self.trial)[0]


@dataclass(frozen=True)
class Message:
    """What a trial process says to the driver."""

    epoch: int = 0
    epochs: int = 0
    committed: tuple[Record, ...] = ()
    """Records that a checkpoint newly covers."""
    done: bool = False
    failed: str = ""
    """One line: why the trial ended without a result."""
    details: str = ""
    """The traceback of a failure."""
    diverged: bool = False
    """It failed because its numbers are not finite, as they would be the next time."""
    measured: float | None = None
    """Share, 0 to 1, of a long measure of the trained model that is computed."""
    again: str = ""
    """Why a trial of several workers starts again from its last checkpoint."""
    waits: str = ""
    """What a trial of several workers has waited for so far, in vain."""


class Repeats(Exception):
    """A worker's failure that another attempt would only repeat; the loss of a worker is none."""

    def __init__(self, word: Message) -> None:
        super().__init__(word)
        self.word = word
