"""Ray: Tune drives the trials of a sweep, in processes that are used again, with a share of a GPU each.

The only module that imports Ray. A trial on one device is a plain Tune function (a nested Train job costs tens of
seconds before its first step). Tune's own state is not used to resume: storage says what is missing, and a fresh Tuner
runs just that.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sweeps.worker import Job, Word, run

MOST_PROCESS_DEATHS = 5
"""Times that a trial is started again after its process died; an error that it reports itself is final."""

STARTS = 3
"""Times that a private cluster is tried to start: a machine that is busy with other things may be too slow once."""

TEMPORARY = "mvae-ray-"
"""Prefix of the private folders of local Ray clusters and of Tune's sessions; the rest names the process."""


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came: what is committed stays, the rest goes on with the next command.

    Ray's waiting calls let no other exception of a signal handler through, and even of this one only a plain
    KeyboardInterrupt is left; Tune wraps those that are an `Exception`.
    """


@dataclass(frozen=True)
class Listener:
    """What the driver does with what it hears; called in the driver's main thread."""

    started: Callable[[str], None]
    """A key's trial begins, or begins again after its process died."""
    word: Callable[[str, Word], None]
    """A key's trial says something; its last word is done or failed."""
    died: Callable[[str], None] = lambda _: None
    """The process of a key's trial died; it starts again from its last checkpoint."""


@dataclass(frozen=True)
class Capacity:
    """What a cluster has."""

    cpus: float
    gpus: float


@contextmanager
def cluster() -> Iterator[Capacity]:
    """Attaches to the cluster that RAY_ADDRESS names, else starts a private one on this machine for this block."""
    import ray

    address = os.environ.get("RAY_ADDRESS")
    folder: Path | None = None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": True}
    with _environment(_SILENCE), _hushed():
        if address:
            with _own_signal_handlers():
                ray.init(address=address, **quiet)
        else:
            _remove_folders_of_the_dead()
            folder = _temporary_folder()
            with _environment({"RAY_AUTH_MODE": "disabled"}), _own_signal_handlers():
                _start(
                    address="local",
                    num_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
                    include_dashboard=False,
                    object_store_memory=100 * 2**20,
                    _temp_dir=str(folder),
                    **quiet,
                )
        try:
            held: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            yield Capacity(held.get("CPU", 0.0), held.get("GPU", 0.0))
        finally:
            ray.shutdown()
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
                _remove_folders_of_the_dead()


def _start(**options: Any) -> None:
    """`ray.init`, again where its processes did not come up within the 30 s that Ray gives them.

    Raises:
        OSError: they never did.
    """
    import ray

    for attempt in range(1, STARTS + 1):
        try:
            ray.init(**options)
        except Exception as error:
            ray.shutdown()
            if attempt == STARTS:
                said = " ".join(str(error).split())
                raise OSError(f"Ray does not start on this machine, {STARTS} times tried: {said}") from error
        else:
            return


def check_gpus(wanted: float | Literal["auto"]) -> None:
    """Refuses more GPUs than this machine has, where it is the cluster.

    Raises:
        ValueError: one line.
    """
    if wanted == "auto" or not wanted or os.environ.get("RAY_ADDRESS"):
        return
    import torch

    _enough_gpus(wanted, torch.cuda.device_count())


def gpus_a_trial(wanted: float | Literal["auto"], capacity: Capacity, share: float) -> float:
    """GPUs of each trial: what was asked for, or `share` of one where there are any.

    Raises:
        ValueError: more than the cluster has.
    """
    if wanted == "auto":
        return share if capacity.gpus else 0.0
    _enough_gpus(wanted, capacity.gpus)
    return wanted


def _enough_gpus(wanted: float, there: float) -> None:
    if wanted > there:
        has = f"are {there:g} GPUs" if there > 1 else f"is {there:g} GPU" if there else "is no GPU"
        right = f"ask for at most {there:g}, or auto" if there else "write 0 or auto"
        raise ValueError(f"--gpus-per-trial {wanted:g}: there {has} here; {right}")


def trials_at_once(capacity: Capacity, gpus: float, most: int | None) -> int:
    """How many trials of one CPU and `gpus` GPUs run at a time."""
    fits = int(capacity.cpus) if not gpus else int(min(capacity.cpus, capacity.gpus / gpus))
    return max(1, fits if most is None else min(fits, most))


def run_jobs(jobs: Sequence[Job], listener: Listener, *, max_concurrent: int) -> None:
    """Runs jobs to their end, within `cluster()`; each ends with a word `done` or `failed` to the listener.

    Args:
        max_concurrent: most trials at a time.
    """
    import ray
    from ray import tune

    if not jobs:
        return

    class Relay(tune.Callback):
        """Turns Tune's events into the listener's."""

        def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
            """Tune pickles its configuration when it starts; the listener stays behind."""
            return tune.Callback, ()

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            listener.started(trial.config["key"])

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            if "word" in result:
                listener.word(trial.config["key"], Word(**result["word"]))

        def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            listener.died(trial.config["key"])

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            died = f"its process died {MOST_PROCESS_DEATHS + 1} times (out of memory, or killed)"
            listener.word(trial.config["key"], Word(failed=died, details=_error_text(trial)))

    by_key = {job.key: job for job in jobs}
    gpus = jobs[0].gpus
    assert all(job.gpus == gpus for job in jobs), "trial processes are used again: all trials need the same resources"
    shared = ray.put(by_key)

    def tune_trial(config: dict[str, Any]) -> None:
        job = ray.get(shared)[config["key"]]
        run(job, lambda word: tune.report({"word": asdict(word)}))

    session = _temporary_folder()
    try:
        tune.Tuner(
            tune.with_resources(tune_trial, {"CPU": 1, "GPU": gpus} if gpus else {"CPU": 1}),
            param_space={"key": tune.grid_search(list(by_key))},
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                max_concurrent_trials=max_concurrent,
                trial_name_creator=lambda trial: trial.config["key"],
                trial_dirname_creator=lambda trial: trial.config["key"],
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(session),
                verbose=0,
                callbacks=[Relay()],
                failure_config=tune.FailureConfig(max_failures=MOST_PROCESS_DEATHS),
            ),
        ).fit()
    finally:
        shutil.rmtree(session, ignore_errors=True)


_SILENCE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_RESULT_BUFFER_LENGTH": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}
"""Ray's chatter off; its snapshots rare, since storage is what a sweep resumes from."""


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


@contextmanager
def _hushed() -> Iterator[None]:
    """Keeps Ray from printing its processes' errors on stdout, which no setting of its own does: the listener has them.

    This name is private to Ray; where a version lacks it, its errors are printed.
    """
    from ray._private import worker

    printing = getattr(worker, "print_to_stdstream", None)
    setattr(worker, "print_to_stdstream", lambda *_, **__: None)  # noqa: B010  mypy knows the function's own type
    try:
        yield
    finally:
        setattr(worker, "print_to_stdstream", printing)  # noqa: B010


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Puts our handlers back, in place of those that `ray.init` installs: they print a stack and end the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


def _error_text(trial: Any) -> str:
    path = getattr(trial, "error_file", None)
    try:
        return Path(path).read_text() if path else ""
    except OSError:
        return ""


def _temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{os.getpid()}-", dir=_short_temporary()))


def _short_temporary() -> str | None:
    """A folder whose paths leave room for Ray's sockets, which may have 107 characters."""
    default = tempfile.gettempdir()
    return default if len(default) <= 24 or not Path("/tmp").is_dir() else "/tmp"  # noqa: S108


def _remove_folders_of_the_dead() -> None:
    """What killed drivers left behind; processes of theirs may write there for some seconds, so it is done twice."""
    for folder in Path(_short_temporary() or tempfile.gettempdir()).glob(f"{TEMPORARY}*-*"):
        pid = folder.name.removeprefix(TEMPORARY).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc").is_dir():
            shutil.rmtree(folder, ignore_errors=True)
