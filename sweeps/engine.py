"""Ray: Tune drives the trials of a sweep, in processes that are used again, with a share of a GPU each.

The only module that imports Ray. A trial on one device is a plain Tune function (a nested Train job costs tens of
seconds before its first step). Tune's own state is not used to resume: storage says what is missing, and a fresh Tuner
runs just that.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from mvae.data.pictures import cores
from sweeps.scratch import remove_folders_of_the_dead, scratch
from sweeps.worker import Job, Word, run

MOST_PROCESS_DEATHS = 5
"""Times that a trial is started again after Tune lost it, as when its process died; an error of its own is final."""

STARTS = 3
"""Times that a private cluster is tried to start: a machine that is busy with other things may be too slow once."""

REACH_SECONDS = 5.0
"""How long the address of a cluster may take to answer."""


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
    again: Callable[[str, str], None] = lambda _, __: None
    """A key's trial starts again from its last checkpoint, and why: its process died, or what Tune said."""


@dataclass(frozen=True)
class Capacity:
    """What a cluster has."""

    cpus: float
    gpus: float


@contextmanager
def cluster() -> Iterator[Capacity]:
    """Attaches to the cluster that RAY_ADDRESS names, else starts a private one on this machine for this block."""
    import ray

    address = _address()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": True}
    with ExitStack() as stack:
        stack.enter_context(_environment(_SILENCE))
        stack.enter_context(_hushed())
        if address:
            with _own_signal_handlers():
                ray.init(address=address, **quiet)
        else:
            stack.callback(remove_folders_of_the_dead)  # processes of theirs may have written there until now
            folder = stack.enter_context(scratch("ray"))
            with _environment({"RAY_AUTH_MODE": "disabled"}), _own_signal_handlers():
                _start(
                    address="local",
                    num_cpus=cores(),
                    include_dashboard=False,
                    object_store_memory=100 * 2**20,
                    _temp_dir=str(folder),
                    **quiet,
                )
        try:
            held: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            yield Capacity(held.get("CPU", 0.0), held.get("GPU", 0.0))
        finally:
            _shut_down()


def _shut_down() -> None:
    """`ray.shutdown`, while no other thread can free what is Ray's.

    Ray ends the whole process, with exit code 1, where a reference of its is freed while it shuts down; and whichever
    thread happens to collect garbage frees those that Tune leaves in cycles, MLflow's thread as well.
    """
    import ray

    collecting = gc.isenabled()
    gc.disable()
    try:
        gc.collect()
        ray.shutdown()
    finally:
        if collecting:
            gc.enable()


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


def check_devices(wanted: float | Literal["auto"]) -> None:
    """Refuses a cluster that is not there, and more GPUs than there are, before anything starts or is written.

    A cluster that RAY_ADDRESS names is attached to for a moment; without one, torch knows this machine's GPUs.

    Raises:
        ValueError: one line.
    """
    if address := _address():
        gpus_a_trial(wanted, _capacity_of(address), 0.0)
    elif wanted != "auto" and wanted:
        import torch

        _enough_gpus(wanted, torch.cuda.device_count())


def _address() -> str | None:
    """RAY_ADDRESS; None where a private cluster is to be started, for which Ray has a word too."""
    address = os.environ.get("RAY_ADDRESS")
    return None if address in (None, "", "local") else address


def _capacity_of(address: str) -> Capacity:
    try:
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        if colon and port.isdigit():  # Ray itself would try for two minutes; all other forms it answers at once
            socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
        with cluster() as capacity:
            return capacity
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"RAY_ADDRESS {address}: no Ray cluster can be used there ({said}): start it, correct the address,"
            " or unset RAY_ADDRESS to run on this machine alone"
        ) from None


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
            listener.again(trial.config["key"], _happened_to(trial))

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            why = f"{_happened_to(trial)}, the last of {trial.num_failures} times"
            listener.word(trial.config["key"], Word(failed=why, details=_error_text(trial)))

    by_key = {job.key: job for job in jobs}
    gpus = jobs[0].gpus
    assert all(job.gpus == gpus for job in jobs), "trial processes are used again: all trials need the same resources"
    shared = ray.put(by_key)

    def tune_trial(config: dict[str, Any]) -> None:
        job = ray.get(shared)[config["key"]]
        run(job, lambda word: tune.report({"word": asdict(word)}))

    with scratch("ray") as session:
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

    with _replaced(worker, "print_to_stdstream", lambda *_, **__: None):
        yield


@contextmanager
def _replaced(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    """Something of a module that is not ours stands for something else within the block."""
    before = getattr(module, name, None)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Keeps our handlers in place of those that `ray.init` installs: they end the process, the first thing it does.

    The name through which it installs one is private to Ray; where a version lacks it, ours come back at the end.
    """
    from ray._private import utils

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _replaced(utils, "set_sigterm_handler", lambda _handler: None):
            yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


def _happened_to(trial: Any) -> str:
    """Why Tune lost a trial the last time, in words: the death of its process, or else what Tune said."""
    from ray.exceptions import RayActorError

    last = _error_text(trial).rpartition("Failure # ")[2].partition("\n")[2]
    error = _last_error(trial)
    if isinstance(error, RayActorError) and str(error).strip() in last:
        return "its process died"
    said = [line.strip() for line in last.splitlines() if line.strip()]
    return f"Tune reports {said[-1] if said else 'an error without a word'}"


def _error_text(trial: Any) -> str:
    """Tune's errors of a trial, the last one at the end; each begins with a line "Failure # ..."."""
    try:
        return Path(trial.error_file).read_text() if trial.error_file else ""
    except OSError:
        return ""


def _last_error(trial: Any) -> Exception | None:
    """The last error of a trial that Tune could pickle: a process's death is always one."""
    from ray import cloudpickle

    try:
        return cloudpickle.loads(Path(trial.pickled_error_file).read_bytes()) if trial.pickled_error_file else None
    except Exception:  # what was raised may be of a class that this process does not have
        return None
