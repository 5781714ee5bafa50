"""Keeps Ray from printing, from dying with the terminal, and from exiting the process when it shuts down."""

from __future__ import annotations

import gc
import os
import signal
import warnings
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
"""Ray's chatter off; its snapshots rare, since storage is what a sweep resumes from. Warnings are ignored because
PYTHONWARNINGS=error would end Ray's own processes when they start."""


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables that stand for the block, without warnings of what will be different one day."""
    before = {name: os.environ[name] for name in values if name in os.environ}
    os.environ.update(values)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        try:
            yield
        finally:
            for name in values:
                os.environ.pop(name, None)
            os.environ.update(before)


@contextmanager
def without_hangups() -> Iterator[None]:
    """Processes that start within the block get no SIGHUP: a closed terminal sends it to them too, and the driver could
    not end their work in order if they were gone. One that comes to this process meanwhile is delivered afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def shut_down() -> None:
    """`ray.shutdown`, while no other thread can free what is Ray's.

    Ray ends the whole process, with exit code 1, where a reference of its is freed while it shuts down; and whichever
    thread happens to collect garbage frees those that Tune leaves in cycles, MLflow's thread as well.
    """
    import ray

    gc.disable()
    try:
        gc.collect()
        ray.shutdown()
    finally:
        gc.enable()


def last_line(error: Exception) -> str:
    """What an error of Ray's says in the end: the rest is its way there."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
