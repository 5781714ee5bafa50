"""Tune drives the trials of a sweep, in processes that are used again, with a share of a GPU each.

A trial on one device is a plain Tune function (a nested Train job costs tens of seconds before its first step); a trial
of several workers is a Train job inside one (sweeps/engine/train.py). Tune's own state is not used to resume:
storage says what is missing, and a fresh Tuner runs just that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.engine.machines import address
from sweeps.engine.private import HEAD
from sweeps.engine.train import run_together
from sweeps.planning.demand import Demand
from sweeps.planning.plan import shape_of
from sweeps.store.scratch import scratch
from sweeps.trials.messages import Job, Message

if TYPE_CHECKING:
    from ray import tune

MOST_PROCESS_DEATHS = 5
"""Times that a trial is started again after Tune lost it, as when its process died; an error of its own is final."""

MOST_DEATHS_ON_A_CLUSTER = 100
"""The same where machines may be taken away: a long trial on spot machines loses many."""


@dataclass(frozen=True)
class Listener:
    """What the driver does with what it hears; called in the driver's main thread."""

    started: Callable[[str], None]
    """A key's trial begins, or begins again after its process died."""
    word: Callable[[str, Message], None]
    """A key's trial says something; its last word is done or failed."""
    again: Callable[[str, str], None] = lambda _, __: None
    """A key's trial starts again from its last checkpoint, and why: its process died, or what Tune said."""


def demand_of(job: Job) -> Demand:
    """What a job takes of the cluster."""
    workers, fewest = shape_of(job.trial)
    return Demand(workers, job.gpus, fewest)


def alike(jobs: Sequence[Job]) -> Iterator[tuple[Demand, list[Job]]]:
    """The jobs by what they take, those in one process first: processes are used again, so trials must be alike."""
    ordered = sorted(jobs, key=lambda job: (job.workers, job.gpus))
    for needs, group in groupby(ordered, demand_of):
        yield needs, list(group)


def run_jobs(jobs: Sequence[Job], listener: Listener, *, max_concurrent: int) -> None:
    """Runs jobs to their end, within `cluster()`; each ends with a word `done` or `failed` to the listener.

    Args:
        jobs: at least one, all of one demand.
        max_concurrent: most trials at a time.
    """
    import ray
    from ray import tune

    by_key = {job.key: job for job in jobs}
    needs = demand_of(jobs[0])
    assert all(demand_of(job) == needs for job in jobs), "trial processes are used again: all trials need the same"
    shared, deaths = ray.put(by_key), most_deaths()

    def tune_trial(config: dict[str, Any]) -> None:
        from sweeps.trials.run import run

        job = ray.get(shared)[config["key"]]

        def say(word: Message) -> None:
            tune.report({"word": asdict(word)})

        if needs.workers == 1:
            run(job, say)
        else:
            run_together(job, needs, say, deaths)

    fit(
        tune_trial,
        _held_by_tune(needs),
        listener,
        max_concurrent,
        param_space={"key": tune.grid_search(list(by_key))},
    )


def most_deaths() -> int:
    """Times that a trial is started again after Tune lost it."""
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
    """Lets Tune run trials in processes that are used again; every trial's configuration holds its key.

    Args:
        holds: resources of each trial's process.
        param_space, stop: as Tuner and RunConfig have them.
        choice: how TuneConfig chooses what to run.
    """
    from ray import tune

    with scratch("ray") as session:
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
    """A callback that turns Tune's events into the listener's.

    Tune runs a trial again if its process dies after the last message and before Tune has ended the trial. Such a trial
    has its result, so nothing more is reported about it.
    """
    from ray import tune

    done = set[str]()

    def tell(trial: Any, act: Callable[..., None], *what: Any) -> None:
        if trial.config["key"] not in done:
            act(trial.config["key"], *what)

    class Relay(tune.Callback):
        def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
            """Tune pickles its configuration when it starts; the listener stays behind."""
            return tune.Callback, ()

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            tell(trial, listener.started)

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            if "word" in result:
                message = Message(**result["word"])
                tell(trial, listener.word, message)
                if message.done:
                    done.add(trial.config["key"])

        def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            tell(trial, listener.again, _happened_to(trial))

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            why = f"{_happened_to(trial)}, the last of {trial.num_failures} times"
            tell(trial, listener.word, Message(failed=why, details=_error_text(trial)))

    return Relay()


def _held_by_tune(needs: Demand) -> dict[str, float]:
    """What a trial's own process holds: next to nothing where its workers hold what it takes, or they would wait for
    it. It is then on the head, with Train's controller and what clears up after that: if they were lost together with a
    worker's machine, what they had reserved on others would stay reserved for ever."""
    return HEAD if needs.workers > 1 else needs.of_each


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
        return Path(trial.error_file).read_text(encoding="utf-8", errors="replace") if trial.error_file else ""
    except OSError:
        return ""


def _last_error(trial: Any) -> Exception | None:
    """The last error of a trial that Tune could pickle: a process's death is always one."""
    from ray import cloudpickle

    try:
        return cloudpickle.loads(Path(trial.pickled_error_file).read_bytes()) if trial.pickled_error_file else None
    except Exception:  # what was raised may be of a class that this process does not have
        return None
