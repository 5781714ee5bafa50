"""All private names of Ray that this package uses, and why. No other file may use one (tests/test_private_names.py).

Checked with Ray 2.60.0. The table lists the CPU seconds that each name saves per command, over all processes: the
median difference of five pairs of commands, with and without the name, run alternately on two busy cores. Each command
starts a private cluster and runs one task (A), a trial of one epoch (B), or a Train job whose only worker does nothing
(C). Names below the line save less than half a second; we use them for another reason.

name                                                saves    without it
utils.get_dashboard_dependency_error                A  0.7   the driver imports the dashboard's packages
node.Node.start_monitor                             A  0.8   Ray starts a process that scales clusters
node.Node.start_log_monitor                         A  0.7   Ray starts a process that sends logs to the driver
RAY_prestart_worker_first_driver                    B  2.2   Ray starts workers in advance, which Tune cannot use
ray_constants.SETUP_WORKER_FILENAME                 B  1.1   each worker imports Ray twice (start_worker.py)
TorchTrainer._create_default_callbacks              C  1.3   Train starts a process for Ray's data sets
RAY_TRAIN_ENABLE_PREEMPTION_WATCHER                 C  0.8   Train starts a process for notices that we ignore
---
worker.print_to_stdstream                           -        Ray prints errors of its processes on stdout
utils.set_sigterm_handler                           -        SIGTERM ends the driver while Ray starts
_temp_dir                                           -        sockets and logs stay in /tmp/ray
node:__internal_head__                              -        the process that drives a trial may be lost with a machine
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
"""Option of `ray.init`: folder for sockets and logs of a private cluster."""

UNWATCHED = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
"""Environment of a Train job that ignores notices of preemption."""


@contextmanager
def hushed() -> Iterator[None]:
    """Keeps Ray from printing errors of its processes on stdout. The listener reports these errors."""
    from ray._private import worker

    with patch.object(worker, "print_to_stdstream", lambda *_, **__: None):
        yield


@contextmanager
def bare() -> Iterator[None]:
    """Within the block, Ray starts a head without the parts that a sweep on one machine does not use."""
    from ray._private import node, ray_constants, utils

    with (
        patch.object(
            utils, "get_dashboard_dependency_error", lambda: ImportError("a private cluster has no dashboard")
        ),
        patch.object(node.Node, "start_monitor", lambda _: None),
        patch.object(node.Node, "start_log_monitor", lambda _: None),
        patch.object(ray_constants, "SETUP_WORKER_FILENAME", start_worker.__file__),
        environment({"RAY_prestart_worker_first_driver": "0"}),
    ):
        yield


@contextmanager
def own_signal_handlers() -> Iterator[None]:
    """Keeps our signal handlers. The handlers that `ray.init` installs would end the process at once."""
    from ray._private import utils

    ours = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with patch.object(utils, "set_sigterm_handler", lambda _handler: None):
            yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


def trainer_without_datasets() -> type[TorchTrainer]:
    """Returns a TorchTrainer that starts no process for Ray's data sets, because we use none."""
    from ray.train.torch import TorchTrainer

    class Trainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()  # type: ignore[misc]
            return [one for one in callbacks if type(one).__name__ != "DatasetsCallback"]

    return Trainer
