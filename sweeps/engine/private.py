"""Every private name of Ray that this package uses, and why. No other file uses one (tests/test_private_names.py).

Checked with Ray 2.60.0. The table gives the CPU seconds that a command saves, all its processes together: the median
difference of five pairs of commands, with and without, which took turns on two busy cores. Each command starts a
private cluster and runs one task (A), a trial of one epoch (B), or a Train job whose only worker does nothing (C).
A private name that saves less than half a second needs another reason; those are below the line.

name                                                saves    without it
utils.get_dashboard_dependency_error                A  0.7   the driver imports the dashboard's packages
node.Node.start_monitor                             A  0.8   a process that would scale a cluster
node.Node.start_log_monitor                         A  0.7   a process that would send logs to the driver
RAY_prestart_worker_first_driver                    B  2.2   workers started ahead, none of which suits Tune
ray_constants.SETUP_WORKER_FILENAME                 B  1.1   each worker imports Ray twice (start_worker.py)
TorchTrainer._create_default_callbacks              C  1.3   a process for Ray's data sets
RAY_TRAIN_ENABLE_PREEMPTION_WATCHER                 C  0.8   a process for notices that we ignore
---
worker.print_to_stdstream                           -        Ray prints its processes' errors on stdout
utils.set_sigterm_handler                           -        SIGTERM ends the driver while Ray starts
_temp_dir                                           -        sockets and logs stay in /tmp/ray
node:__internal_head__                              -        a lost machine may take the process that drives a trial
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from sweeps.engine import start_worker
from sweeps.engine.quiet import environment

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

HEAD = {"node:__internal_head__": 0.001}
"""Resources that only the head of a cluster has."""

FOLDER = "_temp_dir"
"""Option of `ray.init`: where a private cluster keeps its sockets and logs."""

UNWATCHED = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
"""Environment of a Train job that does not watch for notices of preemption."""


@contextmanager
def hushed() -> Iterator[None]:
    """Keeps Ray from printing its processes' errors on stdout: the listener has them, and no setting turns it off."""
    from ray._private import worker

    with patch.object(worker, "print_to_stdstream", lambda *_, **__: None):
        yield


@contextmanager
def bare() -> Iterator[None]:
    """Starts a head within the block without the parts that one machine's sweep has no use for."""
    from ray._private import node, ray_constants, utils

    absent = ImportError("the dashboard is not wanted")
    with (
        patch.object(utils, "get_dashboard_dependency_error", lambda: absent),
        patch.object(node.Node, "start_monitor", lambda _: None),
        patch.object(node.Node, "start_log_monitor", lambda _: None),
        patch.object(ray_constants, "SETUP_WORKER_FILENAME", start_worker.__file__),
        environment({"RAY_prestart_worker_first_driver": "0"}),
    ):
        yield


@contextmanager
def own_signal_handlers() -> Iterator[None]:
    """Keeps our handlers in place of those that `ray.init` installs, which end the process at once."""
    from ray._private import utils

    ours = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with patch.object(utils, "set_sigterm_handler", lambda _handler: None):
            yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


def trainer_without_datasets() -> type[TorchTrainer]:
    """A TorchTrainer that starts no process for Ray's data sets, of which we use none."""
    from ray.train.torch import TorchTrainer

    class Trainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()  # type: ignore[misc]
            return [one for one in callbacks if type(one).__name__ != "DatasetsCallback"]

    return Trainer
