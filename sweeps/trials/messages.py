"""Defines `Job`, a trial that the driver sends to a process, and `Message`, a report that the process sends back.

This module imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mvae.evaluation.judges import needed
from mvae.measure import Measure
from mvae.plugins import Plugin, loaded
from mvae.training.records import Record
from mvae.trial import Trial
from sweeps.store.store import Store

TRANSLATIONS = "translations.md"
"""Name of the file with translated sentences (Tables 6 to 8)."""

REPORT_EVERY = 1.0
"""Seconds between progress messages of a trial. A message about a new checkpoint is sent at once."""


@dataclass(frozen=True)
class Job:
    """One trial to run, with everything that the trial's process needs. All values can be sent to any machine."""

    key: str
    trial: Trial
    measures: tuple[Measure, ...]
    """Measures without a result."""
    store: Store
    data_root: Path | None = None
    cache: Path | None = None
    gpus: float = 0.0
    """GPUs per process: a fraction of one GPU, or whole GPUs."""
    checkpoint_every: float = 60.0
    """Seconds between checkpoints."""
    until: float | None = None
    """Earliest Unix time in seconds at which the driver will stop the trial; None if it may run to its end."""
    checkpoint_at: tuple[int, ...] = ()
    """Epochs after which a checkpoint is always saved."""
    git: str = ""
    """Commit of the driver's code."""
    speeds: bool = False
    """Whether to compare the speed of all workers with the speed of one worker."""
    test_curve: bool = False
    """Whether to measure test accuracy after every epoch, as a diagnostic."""
    namespace: str = ""
    """UUID that the driver reads in the storage. A process that reads another UUID does not see the same storage."""
    plugins: tuple[Plugin, ...] = field(default_factory=loaded)
    """Plug-ins that define the trial's data set and arm. Default: all plug-ins loaded in the process that makes the
    job."""


def waves(jobs: Sequence[Job]) -> list[list[Job]]:
    """Groups jobs. The groups run one after another: first the trials whose models other jobs need."""
    first_trained = {trial for job in jobs for trial in needed(job.measures, job.trial.dataset)}
    first = [job for job in jobs if job.trial in first_trained]
    return [wave for wave in (first, [job for job in jobs if job.trial not in first_trained]) if wave]


@dataclass(frozen=True)
class Message:
    """A message from a trial's process to the driver."""

    epoch: int = 0
    epochs: int = 0
    committed: tuple[Record, ...] = ()
    """Records of the epochs that the newest checkpoint has added."""
    done: bool = False
    failed: str = ""
    """One line: why the trial ended without a result. The traceback is in `details`."""
    details: str = ""
    diverged: bool = False
    """Whether the trial failed because its numbers are not finite. Such a trial would fail again."""
    measured: float | None = None
    """Progress of a long measure of the trained model, 0 to 1."""
    again: str = ""
    """Why a trial of several workers restarts from its last checkpoint."""
    waits: str = ""
    """Progress text while a trial of several workers waits for machines."""


class Repeats(Exception):
    """The trial itself failed in a worker, and a restart would fail again. Not raised if a worker is lost."""

    def __init__(self, message: Message) -> None:
        super().__init__(message)
        self.message = message
