"""Keeps Ray from printing, from ending when the terminal closes, and from ending the process at shutdown."""

import gc
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

SILENCE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_RESULT_BUFFER_LENGTH": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
}
"""Environment variables that turn off Ray's output, and make Ray's snapshots rare because a sweep resumes from storage.

Warnings are ignored because PYTHONWARNINGS=error would end Ray's own processes when they start.
"""


@contextmanager
def environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Sets environment variables within the block. The value None removes a variable.

    The block must not use `warnings.catch_warnings`. MLflow's import changes the warning filters in another thread, and
    `catch_warnings` would undo these changes at the end of the block. MLflow's warnings would then be printed.
    """
    before = {name: os.environ[name] for name in values if name in os.environ}
    for name, value in values.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name, None)
        os.environ.update(before)


@contextmanager
def without_hangups() -> Iterator[None]:
    """Blocks SIGHUP within the block. Processes that start within the block keep SIGHUP blocked.

    A closed terminal sends SIGHUP to Ray's processes too, and the driver needs these processes to stop the trials
    cleanly. A SIGHUP to this process is delivered after the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def shut_down() -> None:
    """Calls `ray.shutdown` with garbage collection turned off.

    If an object reference is freed while Ray shuts down, Ray ends the whole process with exit code 1. Tune leaves
    references in cycles. Any thread that collects garbage, for example MLflow's, would free these references.
    """
    import ray

    gc.disable()
    try:
        gc.collect()
        ray.shutdown()
    finally:
        gc.enable()


def last_line(error: Exception) -> str:
    """Returns the last line of one of Ray's errors. It follows the traceback and names the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
