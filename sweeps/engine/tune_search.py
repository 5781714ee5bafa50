"""Runs the trials of a search with Ray Tune. Asks the search which trial comes next, and whether a trial ends early.

The record of the search is in sweeps/search/study.py. Trials are compared at certain epochs (rungs). At a rung, a trial
saves a checkpoint, reports the metric, and waits for the search's decision. A trial that continues gives the same
numbers, bit for bit, as without the search.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from mvae.plugins import load as load_plugins
from sweeps.engine.events import Listener
from sweeps.engine.quiet import environment
from sweeps.engine.tune import demand_of, fit
from sweeps.trials.messages import Job, Message

OBJECTIVE, EPOCH = "objective", "epoch"
"""Names of the values that a trial reports at a rung."""


@dataclass(frozen=True)
class Question:
    """The next trial of a search: its key, and the values of the settings that the search varies."""

    key: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class SearchListener:
    """Callbacks of the search; called in the driver's main thread."""

    ask: Callable[[], Question | None]
    """Returns the next trial; None if there are no more."""
    stop: Callable[[str, int, float], bool]
    """Returns whether to end a trial at a rung. Arguments: the trial's key, the epoch, and the metric at this epoch."""
    trials: Listener


def run_search(template: Job, listener: SearchListener, *, metric: str, max_concurrent: int) -> None:
    """Runs trials until `listener.ask` returns None. Call this function within `cluster()`.

    Args:
        template: job that is copied for each trial; the copy gets the trial's key and settings. The template's
            `checkpoint_at` lists the rungs.
        metric: name of the validation metric whose value is passed to `listener.stop`.
        max_concurrent: largest number of trials at a time.
    """
    import ray
    from ray import tune
    from ray.tune.search import Searcher
    from ray.tune.stopper import NoopStopper

    running: dict[str, str] = {}  # maps Tune's id of a trial to the trial's key

    class Asking(Searcher):
        def __reduce__(self) -> tuple[type[Searcher], tuple[()]]:
            """Makes pickle store a plain Searcher: Tune pickles its searcher, but a listener cannot be pickled."""
            return Searcher, ()

        def suggest(self, trial_id: str) -> Any:
            question = listener.ask()
            if question is None:
                return Searcher.FINISHED
            running[trial_id] = question.key
            return {"key": question.key, "settings": dict(question.settings)}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            """Does nothing, because the callbacks in `listener.trials` already report the end of each trial."""

    class Stopping(tune.Stopper):
        def __reduce__(self) -> tuple[type[tune.Stopper], tuple[()]]:
            return NoopStopper, ()

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return OBJECTIVE in result and listener.stop(running[trial_id], result[EPOCH], result[OBJECTIVE])

        def stop_all(self) -> bool:
            return False

    shared = ray.put(template)

    def tune_trial(config: dict[str, Any]) -> None:
        from sweeps.trials.run import run

        base: Job = ray.get(shared)
        load_plugins(base.plugins)  # first, because the trial may use a plug-in's data set or arm
        job = replace(base, key=config["key"], trial=base.trial.with_(**config["settings"]))

        def send(message: Message) -> None:
            tune.report({"word": asdict(message)})
            for record in message.committed:
                if record["epoch"] in job.checkpoint_at:
                    tune.report({EPOCH: record["epoch"], OBJECTIVE: record["metrics"][metric]})

        run(job, send)

    with environment({"TUNE_DISABLE_STRICT_METRIC_CHECKING": "1"}):
        fit(
            tune_trial,
            demand_of(template).of_each,
            listener.trials,
            max_concurrent,
            stop=Stopping(),
            search_alg=Asking(),
            num_samples=-1,
        )
