"""A trial of several workers: a Ray Train job inside a Tune trial, named by the trial's key.

The workers run the one training loop (`sweeps.trials.run.run_as_one_of`) in a process group that Train sets up. Train
is told of no checkpoint: ours are found under the key, by whoever goes on, and words go to the trial past Train's own
reports, for which all workers would have to wait. Its worker group is all or nothing, so that trials that do not fit
wait without holding anything.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mvae.storage.clock import CLOCK, Clock
from sweeps.cli.words import counted
from sweeps.engine.machines import alive
from sweeps.engine.private import UNWATCHED, trainer_without_datasets
from sweeps.engine.quiet import environment, last_line
from sweeps.planning.demand import Demand
from sweeps.store.scratch import remove_folders_of_the_dead, scratch
from sweeps.trials.messages import Job, Message, Repeats

if TYPE_CHECKING:
    from ray.util.queue import Queue

LOOK_EVERY = 0.5
"""Seconds between two looks of Train at its workers, and of a trial at what they say."""

MOST_BROKEN_STARTS = 3
"""Times in a row that Train itself may fail, or workers be lost before anything is saved while all machines stay: being
tried again hardly ever mends either."""

WAIT_SECONDS = 3600
"""How long workers of a fixed number wait for their machines at a time; nothing is held meanwhile."""

SAYS_SO_AFTER = 60.0
"""Seconds without its workers after which a trial says that it waits for them."""

RESIZE_EVERY = 5.0
"""Seconds between two looks for machines that an elastic trial could grow onto."""


def run_together(job: Job, needs: Demand, say: Callable[[Message], None], most_losses: int) -> None:
    """Runs a job's workers to their end, again after some of them were lost; called in the trial's Tune process.

    Args:
        say: called in this thread alone.
        most_losses: losses in a row, without a new checkpoint between them, after which it gives up.
    """
    from ray.train import ControllerError, WorkerGroupError

    remove_folders_of_the_dead()
    words = _queue_here()
    reached, losses, broken, machines = 0, 0, 0, _machines()
    with ThreadPoolExecutor(1) as aside:
        while True:
            attempt = aside.submit(_attempt, job, needs, words)
            _pass_on(words, say, attempt, Message(waits=_waits_for(needs)))
            lost = attempt.result()
            if lost is None:
                return
            if isinstance(lost, Repeats):
                say(lost.word)
                return
            newest = job.store.checkpoints(job.key).latest(digests=False)
            epoch = newest.epoch if newest else 0
            if epoch > reached:
                reached, losses, broken = epoch, 0, 0
            losses += 1
            before, machines = machines, _machines()
            # no machine was lost and no epoch saved: they cannot reach one another, say
            never_began = isinstance(lost, WorkerGroupError) and epoch == 0 and machines == before
            broken = broken + 1 if never_began or isinstance(lost, ControllerError) else 0
            if losses > most_losses or broken > MOST_BROKEN_STARTS:
                say(Message(failed=f"workers were lost {losses} times in a row: {last_line(lost)}", details=str(lost)))
                return
            say(Message(epoch, job.trial.epochs, again=f"workers were lost ({last_line(lost)})"))


def _machines() -> set[str]:
    """Those that are there now; one that was booted again is another."""
    return {node["NodeID"] for node in alive()}


def _queue_here() -> Queue:
    """A queue in a process on this machine, so that it is lost with this process and not before."""
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})


def _waits_for(needs: Demand) -> str:
    looks = " (it looks once a minute)" if needs.fewest is not None else ""
    return f"waits for machines with room for {counted(needs.least, 'worker')} at a time{looks}"


def _pass_on(
    words: Queue,
    say: Callable[[Message], None],
    attempt: Future[Exception | None],
    waits: Message,
    clock: Clock = CLOCK,
) -> None:
    """Says what the workers say, until the attempt has ended and all is said.

    Args:
        words: the first is None, once the workers have begun; the others are pickled.
        waits: said once where that takes long.
    """
    from ray.exceptions import RayActorError
    from ray.util.queue import Empty

    deadline = clock.monotonic() + SAYS_SO_AFTER
    while True:
        ended = attempt.done()
        try:
            word = words.get(timeout=LOOK_EVERY)
            deadline = float("inf")
            if word is not None:
                say(pickle.loads(word))  # noqa: S301
        except Empty:
            if ended:
                return
            if clock.monotonic() > deadline:
                deadline = float("inf")
                say(waits)
        except RayActorError:  # the queue is gone, the workers may not be: their results say how it went
            return


def _attempt(job: Job, needs: Demand, words: Queue) -> Exception | None:
    """One Train job; None where it came to its end, `Repeats` where it failed by itself, else what was lost."""
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
            train_loop_config={"job": ray.put(job), "words": words},
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
        config["words"].put(None)
    with _sent(config["words"]) as say:
        run_as_one_of(job, say, workers, str(ray.train.torch.get_device()))


@contextmanager
def _sent(words: Queue) -> Iterator[Callable[[Message], None]]:
    """Sends words to the driver from a thread of their own, in order, so that training never waits for it.

    They are pickled here, since the queue's process would import all that they are made of, torch included. If the
    trial's own process is gone, they are lost, and this process will be ended.
    """
    with ThreadPoolExecutor(1) as thread:

        def say(word: Message) -> None:
            thread.submit(words.put, pickle.dumps(word))

        yield say
