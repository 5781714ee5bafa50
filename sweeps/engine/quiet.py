"""What Ray does to a process that it has no business doing: its chatter, its signal handlers, its way of ending."""

from __future__ import annotations

import gc
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

from sweeps.engine import start_worker

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
def hushed() -> Iterator[None]:
    """Keeps Ray from printing its processes' errors on stdout, which no setting of its own does: the listener has them.

    This name is private to Ray; where a version lacks it, its errors are printed.
    """
    from ray._private import worker

    with _replaced(worker, "print_to_stdstream", lambda *_, **__: None):
        yield


@contextmanager
def bare() -> Iterator[None]:
    """A head that `ray.init` starts does without what one machine's sweep has no use for, a third of its start.

    That is: packages of the dashboard, which the driver would import to see whether they are installed; the processes
    that scale clusters and that send logs to the driver; workers started ahead, which do not suit Tune's settings; and
    the import of Ray that every worker would make before its own (start_worker.py). The names are private to Ray; where
    a version lacks one, that part is started.
    """
    from ray._private import node, ray_constants, utils

    with ExitStack() as stack:
        absent = ImportError("the dashboard is not wanted")
        stack.enter_context(_replaced(utils, "get_dashboard_dependency_error", lambda: absent))
        for name in ("start_monitor", "start_log_monitor"):
            stack.enter_context(_replaced(node.Node, name, lambda _: None))
        stack.enter_context(_replaced(ray_constants, "SETUP_WORKER_FILENAME", start_worker.__file__))
        stack.enter_context(environment({"RAY_prestart_worker_first_driver": "0"}))
        yield


@contextmanager
def own_signal_handlers() -> Iterator[None]:
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

    collecting = gc.isenabled()
    gc.disable()
    try:
        gc.collect()
        ray.shutdown()
    finally:
        if collecting:
            gc.enable()


def last_line(error: Exception) -> str:
    """What an error of Ray's says in the end: the rest is its way there."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextmanager
def _replaced(owner: ModuleType | type, name: str, value: Any) -> Iterator[None]:
    """Something of a module or class that is not ours stands for something else within the block."""
    before = getattr(owner, name, None)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
