"""Runs the trials of a sweep with Ray Tune.

Each process runs one trial after another, and may share a GPU with other processes.

one worker       a plain Tune function, because a nested Train job needs tens of seconds before its first step
several workers  a Train job inside a Tune function (sweeps/engine/train.py)

Tune's own state is not used to resume: a new Tuner runs the trials whose results are missing in storage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.engine.events import Events, Listener
from sweeps.engine.machines import address
from sweeps.engine.private import HEAD, uncounted, without_keys
from sweeps.planning.demand import Demand
from sweeps.planning.plan import shape_of
from sweeps.store.scratch import scratch
from sweeps.trials.messages import Job, Message

if TYPE_CHECKING:
    from ray import tune

MOST_PROCESS_DEATHS = 5
"""Maximum number of restarts per trial that Tune has lost, for example because the trial's process died.

A trial that itself raises an error is not restarted.
"""

MOST_DEATHS_ON_A_CLUSTER = 100
"""Maximum number of restarts per trial on a cluster, where a long trial on spot machines may lose many machines."""


def demand_of(job: Job) -> Demand:
    """Returns the resources that a job needs."""
    workers, fewest = shape_of(job.trial)
    return Demand(workers, job.gpus, fewest)


def alike(jobs: Sequence[Job]) -> Iterator[tuple[Demand, list[Job]]]:
    """Groups jobs by the resources that they need. Jobs with one worker come first.

    A Tune process runs one trial after another, so all trials of a Tuner must need the same resources.
    """
    ordered = sorted(jobs, key=lambda job: (shape_of(job.trial)[0], job.gpus))
    return ((needs, list(group)) for needs, group in groupby(ordered, demand_of))


def run_jobs(jobs: Sequence[Job], listener: Listener, *, max_concurrent: int) -> None:
    """Runs jobs to their end. Call this function within `cluster()`.

    The last message about each job has `done` or `failed` set.

    Args:
        jobs: one or more jobs that need the same resources.
        max_concurrent: largest number of trials at a time.
    """
    import ray
    from ray import tune

    by_key = {job.key: job for job in jobs}
    needs = demand_of(jobs[0])
    assert all(demand_of(job) == needs for job in jobs), "reused processes need equal resources"
    shared, deaths = ray.put(by_key), most_deaths()
    # Workers hold the resources of their trial, so the process that drives them must take almost none. This process
    # runs on the head, with Train's controller and cleanup. If controller and cleanup were lost together with a
    # worker's machine, the resources reserved on other machines would never be released.
    holds = HEAD if needs.workers > 1 else needs.of_each

    def tune_trial(config: dict[str, Any]) -> None:
        from sweeps.trials.run import run

        job = ray.get(shared)[config["key"]]

        def send(message: Message) -> None:
            tune.report({"word": asdict(message)})

        if needs.workers == 1:
            run(job, send)
        else:
            from sweeps.engine.train import run_together  # only now, because it imports the whole engine

            run_together(job, needs, send, deaths)

    fit(tune_trial, holds, listener, max_concurrent, param_space={"key": tune.grid_search(list(by_key))})


def most_deaths() -> int:
    """Returns the maximum number of restarts per trial, which is larger on a cluster than on one machine."""
    return MOST_DEATHS_ON_A_CLUSTER if address() else MOST_PROCESS_DEATHS


def fit(
    trial: Callable[[dict[str, Any]], None],
    holds: dict[str, float],
    listener: Listener,
    max_concurrent: int,
    *,
    param_space: dict[str, Any] | None = None,
    stop: tune.Stopper | None = None,
    **choice: Any,
) -> None:
    """Runs trials with Tune, in processes that run one trial after another.

    Args:
        trial: function that runs one trial. Its argument is Tune's configuration; the entry "key" is the trial's key.
        holds: resources of each trial's process.
        param_space: argument of Tuner.
        stop: argument of RunConfig.
        choice: arguments of TuneConfig that decide which trials run.
    """
    from ray import tune

    with scratch("ray") as session, without_keys(), uncounted():
        tune.Tuner(
            tune.with_resources(trial, holds),
            param_space=param_space,
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                max_concurrent_trials=max_concurrent,
                trial_name_creator=lambda trial: trial.config["key"],
                trial_dirname_creator=lambda trial: trial.config["key"],
                **choice,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(session),
                stop=stop,
                verbose=0,
                callbacks=[relay(listener)],
                failure_config=tune.FailureConfig(max_failures=most_deaths()),
            ),
        ).fit()


def relay(listener: Listener) -> Any:
    """Returns a Tune callback that calls the listener."""
    from ray import tune

    events = Events(listener)

    class Relay(tune.Callback):
        def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
            """Makes pickle store a plain callback: Tune pickles its callbacks, but a listener cannot be pickled."""
            return tune.Callback, ()

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            events.started(trial.config["key"])

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            if "word" in result:
                events.sent(trial.config["key"], Message(**result["word"]))

        def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            events.restarted(trial.config["key"], _why_lost(trial))

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            events.lost(trial.config["key"], _why_lost(trial), trial.num_failures, _error_text(trial))

    return Relay()


def _why_lost(trial: Any) -> str:
    """Returns why Tune last lost a trial: "process died", or the last line of Tune's error."""
    from ray.exceptions import RayActorError

    last = _error_text(trial).rpartition("Failure # ")[2].partition("\n")[2]
    error = _last_error(trial)
    if isinstance(error, RayActorError) and str(error).strip() in last:
        return "process died"
    lines = [line.strip() for line in last.splitlines() if line.strip()]
    return f"Tune reports {lines[-1] if lines else 'an error without a message'}"


def _error_text(trial: Any) -> str:
    """Returns Tune's errors of a trial, oldest first. Each error begins with a line "Failure # ..."."""
    try:
        return Path(trial.error_file).read_text(encoding="utf-8", errors="replace") if trial.error_file else ""
    except OSError:
        return ""


def _last_error(trial: Any) -> Exception | None:
    """Returns the last error of a trial that Tune could pickle, or None if this process cannot load it.

    Tune can always pickle the error that reports a dead process.
    """
    from ray import cloudpickle

    try:
        return cloudpickle.loads(Path(trial.pickled_error_file).read_bytes()) if trial.pickled_error_file else None
    except Exception:  # the error's class may not exist in this process
        return None
