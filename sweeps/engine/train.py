"""Runs a trial with several workers as a Ray Train job inside a Tune trial. The trial's key is the job's name.

All workers run `sweeps.trials.run.run_as_one_of` in a process group that Train sets up. Two features of Train are not
used:

checkpoints  we store our own under the trial's key, where any later attempt finds them
reports      all workers would have to wait for each report; instead, workers send messages through a queue

Train starts all workers of a trial or none, so a trial that does not fit holds no resources while it waits.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mvae.storage.clock import CLOCK, Clock
from sweeps.cli.words import counted
from sweeps.engine.machines import alive, is_private
from sweeps.engine.private import UNWATCHED, meeting_in, trainer_without_datasets
from sweeps.engine.quiet import environment, last_line
from sweeps.planning.demand import Demand
from sweeps.store.scratch import remove_folders_of_the_dead, scratch
from sweeps.trials.messages import Job, Message, Repeats

if TYPE_CHECKING:
    from ray.util.queue import Queue

LOOK_EVERY = 0.5
"""Seconds between Train's checks of its workers, and between a trial's checks for messages from its workers."""

MOST_BROKEN_STARTS = 3
"""Maximum number of failed starts in a row. After one more failed start the trial fails, because retries rarely help.

A start fails if Train itself fails, or if workers are lost before the first checkpoint although no machine is lost.
"""

WAIT_SECONDS = 3600
"""Seconds that Train waits for machines if the number of workers is fixed. Meanwhile, Train holds no resources."""

WAIT_NOTICE_SECONDS = 60.0
"""Seconds without workers after which a trial reports that it waits for machines."""

RESIZE_EVERY = 5.0
"""Seconds between checks for machines that an elastic trial could add."""


def run_together(job: Job, needs: Demand, send: Callable[[Message], None], most_losses: int) -> None:
    """Runs all workers of a job until they finish, and restarts all of them if any worker is lost.

    Called in the trial's Tune process.

    Args:
        send: called in this thread with each message about the trial.
        most_losses: largest number of losses in a row without a new checkpoint; after one more loss, the trial fails.
    """
    from ray.train import ControllerError, WorkerGroupError

    remove_folders_of_the_dead()
    messages = _queue_here()
    reached, losses, broken, machines = 0, 0, 0, _machines()
    with ThreadPoolExecutor(1) as background:
        while True:
            attempt = background.submit(_attempt, job, needs, messages)
            _pass_on(messages, send, attempt, Message(waits=_waits_for(needs)))
            lost = attempt.result()
            if lost is None:
                return
            if isinstance(lost, Repeats):
                send(lost.message)
                return
            newest = job.store.checkpoints(job.key).latest(digests=False)
            epoch = newest.epoch if newest else 0
            if epoch > reached:
                reached, losses, broken = epoch, 0, 0
            losses += 1
            before, machines = machines, _machines()
            # no machine was lost and no epoch saved; for example, the workers cannot reach one another
            never_began = isinstance(lost, WorkerGroupError) and epoch == 0 and machines == before
            broken = broken + 1 if never_began or isinstance(lost, ControllerError) else 0
            if losses > most_losses or broken > MOST_BROKEN_STARTS:
                send(Message(failed=f"workers were lost {losses} times in a row: {last_line(lost)}", details=str(lost)))
                return
            send(Message(epoch, job.trial.epochs, again=f"workers were lost ({last_line(lost)})"))


def _machines() -> set[str]:
    return {node["NodeID"] for node in alive()}  # a machine gets another id when it boots again


def _queue_here() -> Queue:
    """Creates a queue in a process on this machine, so that only the loss of this machine ends the queue."""
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})


def _waits_for(needs: Demand) -> str:
    checks = " (checked once a minute)" if needs.fewest is not None else ""
    return f"waiting for machines that can hold {counted(needs.least, 'worker')} at once{checks}"


def _pass_on(
    messages: Queue,
    send: Callable[[Message], None],
    attempt: Future[Exception | None],
    waits: Message,
    clock: Clock = CLOCK,
) -> None:
    """Sends the workers' messages to the driver until the attempt has ended and the queue is empty.

    Args:
        messages: queue that gets None when the workers start, and then the workers' pickled messages.
        waits: message that is sent once if the workers have not started after WAIT_NOTICE_SECONDS.
    """
    from ray.exceptions import RayActorError
    from ray.util.queue import Empty

    deadline = clock.monotonic() + WAIT_NOTICE_SECONDS
    while True:
        ended = attempt.done()
        try:
            message = messages.get(timeout=LOOK_EVERY)
            deadline = float("inf")
            if message is not None:
                send(pickle.loads(message))  # noqa: S301
        except Empty:
            if ended:
                return
            if clock.monotonic() > deadline:
                deadline = float("inf")
                send(waits)
        except RayActorError:  # only the queue is known to be lost; the attempt's result tells about the workers
            return


def _attempt(job: Job, needs: Demand, messages: Queue) -> Exception | None:
    """Runs one Train job.

    Returns:
        None if the job finished, `Repeats` if the trial itself failed, otherwise the error that ended the job.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError

    elastic = needs.fewest is not None
    scaling: dict[str, Any] = {
        "num_workers": (needs.fewest, needs.workers) if elastic else needs.workers,
        "use_gpu": needs.gpus > 0,
        "resources_per_worker": needs.of_each,
        "elastic_resize_monitor_interval_s": RESIZE_EVERY,
    }
    failures: dict[str, Any] = {
        "max_failures": 0,
        "max_preemption_failures": -1,
        "controller_failure_limit": -1 if elastic else 10,
    }
    settings = {**UNWATCHED, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(LOOK_EVERY)}
    if not elastic:
        settings["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(WAIT_SECONDS)
    with environment(settings), scratch("ray") as folder:
        trainer = trainer_without_datasets()(
            _worker,
            torch_config=meeting_in(folder) if is_private() else None,
            train_loop_config={"job": ray.put(job), "messages": messages},
            scaling_config=ScalingConfig(**scaling),
            run_config=RunConfig(name=job.key, storage_path=str(folder), failure_config=FailureConfig(**failures)),
        )
        try:
            trainer.fit()
        except WorkerGroupError as lost:
            return next((cause for cause in lost.worker_failures.values() if isinstance(cause, Repeats)), lost)
        except TrainingFailedError as lost:
            return lost
        return None


def _worker(config: dict[str, Any]) -> None:
    import ray.train.torch

    from mvae.workers import Workers
    from sweeps.trials.run import run_as_one_of

    context = ray.train.get_context()
    workers = Workers(context.get_world_rank(), context.get_world_size())
    job: Job = ray.get(config["job"])
    if workers.rank == 0:
        config["messages"].put(None)
    with _sender(config["messages"]) as send:
        run_as_one_of(job, send, workers, str(ray.train.torch.get_device()))


@contextmanager
def _sender(messages: Queue) -> Iterator[Callable[[Message], None]]:
    """Yields a function that puts messages into the queue, in order, from a background thread.

    Training therefore never waits for the queue.

    Messages are pickled first; otherwise the queue's process would import their classes, and torch with them. If the
    trial's Tune process is gone, messages are lost, and Ray soon ends this process.
    """
    with ThreadPoolExecutor(1) as thread:

        def send(message: Message) -> None:
            thread.submit(messages.put, pickle.dumps(message))

        yield send
