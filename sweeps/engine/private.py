"""All private names of Ray that this package uses, and why.

No other file may use a private name of Ray (tests/test_private_names.py).

Checked with Ray 2.60.0. The table lists the CPU seconds that each name saves per command, summed over all processes.
Each number is the median difference of five pairs of commands, with and without the name. The commands ran alternately
on two busy cores. Each command starts a private cluster. The command then runs one task (A), a trial of one epoch (B),
or a Train job whose only worker does nothing (C). A number with a star is measured directly: it is the CPU time of the
omitted process or import, the lower of two measurements. Names below the line save less than half a second; we use
them for the reason in the last column.

name                                                saves    without it
utils.get_dashboard_dependency_error                A  0.7   the driver imports the dashboard's packages
node.Node.start_monitor                             A  0.8   Ray starts a process that scales clusters
node.Node.start_log_monitor                         A  0.7   Ray starts a process that sends logs to the driver
node.Node.start_api_server                          A  1.1*  Ray starts a process that serves HTTP requests
services._build_python_executable_command_memory_profileable
                                                    A  1.1*  Ray starts its dashboard agent (idle_agent.py)
usage.tag_callbacks                                 B  0.7*  Tune imports MLflow before the first trial
RAY_prestart_worker_first_driver                    B  2.2   Ray starts workers in advance, which Tune cannot use
ray_constants.SETUP_WORKER_FILENAME                 B  1.1   each worker imports Ray twice (start_worker.py)
TorchTrainer._create_default_callbacks              C  1.3   Train starts a process for Ray's data sets
RAY_TRAIN_ENABLE_PREEMPTION_WATCHER                 C  0.8   Train starts a process for notices that we ignore
---
worker.print_to_stdstream                           -        Ray prints errors of its processes on stdout
utils.set_sigterm_handler                           -        SIGTERM ends the driver while Ray starts
_temp_dir                                           -        sockets and logs stay in /tmp/ray
node:__internal_head__                              -        a trial's Tune process may run on a machine that is lost
ray_constants.ENABLE_RAY_CLUSTER                    -        all processes listen on all addresses of the machine
_raylet.Config, _raylet.AuthenticationTokenLoader   -        this process keeps the token of its first cluster
class_cache.ENV_VARS_TO_PROPAGATE                   -        Tune copies AWS keys into logs and a worker's command line
services._is_raylet_process                         -        RAY_ADDRESS=auto finds private clusters
services._find_address_from_flag                    -        Ray does not report that it found only private clusters
config._TorchBackend, _setup_torch_process_group    -        workers of a trial meet at a port open to all users
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from sweeps.engine import idle_agent, start_worker
from sweeps.engine.quiet import environment

if TYPE_CHECKING:
    from ray.train.torch import TorchConfig, TorchTrainer

HEAD = {"node:__internal_head__": 0.001}
"""Resources that only the head of a cluster has."""

FOLDER = "_temp_dir"
"""Option of `ray.init`: folder for sockets and logs of a private cluster. Each of Ray's processes lets all users write
to this folder, so it must be inside a folder that only this user can open."""

TOKEN = "token"  # noqa: S105
"""Name of the file with a private cluster's token, in the cluster's own folder."""

LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""Environment in which a trial's workers exchange gradients inside this machine only."""

UNWATCHED = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
"""Environment of a Train job that ignores notices of preemption."""


@contextmanager
def hushed() -> Iterator[None]:
    """Keeps Ray from printing errors of its processes on stdout. The driver's listener reports these errors."""
    from ray._private import worker

    with patch.object(worker, "print_to_stdstream", lambda *_, **__: None):
        yield


@contextmanager
def bare() -> Iterator[None]:
    """Within the block, Ray starts a head without the parts that a sweep on one machine does not use.

    The head's processes listen on 127.0.0.1 only. For this, the block changes one of Ray's constants, because
    `ray.init` replaces an explicit 127.0.0.1 with the machine's address.
    """
    from ray._private import node, ray_constants, services, utils

    python_command = services._build_python_executable_command_memory_profileable

    def without_agent(component: str, *arguments: Any, **options: Any) -> list[str]:
        if component == ray_constants.PROCESS_TYPE_DASHBOARD_AGENT:
            return [sys.executable, "-S", idle_agent.__file__]
        command: list[str] = python_command(component, *arguments, **options)
        return command

    with (
        patch.object(
            utils, "get_dashboard_dependency_error", lambda: ImportError("a private cluster has no dashboard")
        ),
        patch.object(node.Node, "start_monitor", lambda _: None),
        patch.object(node.Node, "start_log_monitor", lambda _: None),
        patch.object(node.Node, "start_api_server", lambda _, **__: None),
        patch.object(services, python_command.__name__, without_agent),
        patch.object(ray_constants, "SETUP_WORKER_FILENAME", start_worker.__file__),
        patch.object(ray_constants, "ENABLE_RAY_CLUSTER", False),
        environment({"RAY_prestart_worker_first_driver": "0"}),
    ):
        yield


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Within the block, a cluster that this process starts accepts only clients with a token made for this block.

    Args:
        folder: a folder of mode 0700. The token is in a file of mode 0600 there. An environment
            variable contains the file's path.
    """
    token = folder / TOKEN
    with os.fdopen(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))
    # Ray prefers RAY_AUTH_TOKEN, which may hold the token of another cluster
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_AUTH_TOKEN": None}
    with environment({**ours, **LOOPBACK}):
        read_token()
        yield


def read_token() -> None:
    """Makes Ray read the authentication token again, from where the environment variables say.

    Ray itself reads the token only once per process. Call this function only while no cluster is attached.
    """
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def labelled(label: str) -> set[str]:
    """Returns the addresses (HOST:PORT) of the clusters on this machine that have this label."""
    from ray._private import services

    with _searching(lambda line: label in line):
        return set(services._find_address_from_flag("--gcs-address"))


@contextmanager
def hidden(label: str) -> Iterator[None]:
    """Within the block, RAY_ADDRESS=auto finds no cluster with this label."""
    with _searching(lambda line: label not in line):
        yield


@contextmanager
def _searching(right: Callable[[str], bool]) -> Iterator[None]:
    """Within the block, Ray finds a cluster on this machine only if `right` accepts its raylet's command line."""
    from ray._private import services

    is_raylet = services._is_raylet_process

    def found(words: list[str] | None) -> bool:
        return bool(words) and is_raylet(words) and right(" ".join(words or ()))

    with patch.object(services, "_is_raylet_process", found):
        yield


@contextmanager
def own_signal_handlers() -> Iterator[None]:
    """Keeps our handlers of SIGINT and SIGTERM. Handlers that `ray.init` installs would end the process at once."""
    from ray._private import utils

    ours = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with patch.object(utils, "set_sigterm_handler", lambda _handler: None):
            yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


@contextmanager
def without_keys() -> Iterator[None]:
    """Within the block, Tune does not copy AWS keys of this process into the environment of trials.

    Ray writes a trial's environment into its logs and onto the command line of the trial's process. Trials do not need
    the copied keys: `look_at_machines` has checked that Ray's processes on each machine can access the storage.
    """
    from ray.tune.execution import class_cache

    names = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if not name.startswith("AWS_")}
    with patch.object(class_cache, "ENV_VARS_TO_PROPAGATE", names):
        yield


@contextmanager
def uncounted() -> Iterator[None]:
    """Within the block, Tune does not count callbacks for usage reports, which we have turned off."""
    from ray.air._internal import usage

    with patch.object(usage, "tag_callbacks", lambda _: False):
        yield


def trainer_without_datasets() -> type[TorchTrainer]:
    """Returns a TorchTrainer that starts no process for Ray's data sets, because we use none."""
    from ray.train.torch import TorchTrainer

    class Trainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()  # type: ignore[misc]
            return [one for one in callbacks if type(one).__name__ != "DatasetsCallback"]

    return Trainer


def meeting_in(folder: Path) -> TorchConfig:
    """Returns a Train configuration with which workers on one machine connect through a file instead of a port.

    torch would open the port on all of the machine's addresses, so others could change what the workers read.

    Args:
        folder: a folder of mode 0700, on the machine that runs all workers.
    """
    from ray.train.torch import TorchConfig, config

    set_up = config._setup_torch_process_group

    class Backend(config._TorchBackend):
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            meeting = f"file://{folder}/meeting-{secrets.token_hex(8)}"  # each attempt needs a new file

            def set_up_there(**settings: Any) -> None:
                set_up(**{**settings, "init_method": meeting})

            with patch.object(config, "_setup_torch_process_group", set_up_there):
                super().on_start(worker_group, backend_config)

    class Meeting(TorchConfig):
        @property
        def backend_cls(self) -> type[Backend]:
            return Backend

    return Meeting()
