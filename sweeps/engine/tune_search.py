"""Tune runs a search. The engine asks two questions: what to try next, and whether a trial ends at an epoch.

What was tried and what came of it is recorded elsewhere (sweeps/search/study.py). A trial reports at the epochs where
trials are compared, which a checkpoint covers, and waits there for the answer. So a trial that continues gives the
same numbers, bit for bit, as without the search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from mvae.plugins import load as load_plugins
from sweeps.engine.quiet import environment
from sweeps.engine.tune import Listener, demand_of, fit
from sweeps.trials.messages import Job, Message

OBJECTIVE, EPOCH = "objective", "epoch"
"""What a trial reports at a rung."""


@dataclass(frozen=True)
class Question:
    """What to try next: a trial's key, and the settings in which it differs from the search's default."""

    key: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class SearchListener:
    """What the engine asks and reports; called in the driver's main thread."""

    ask: Callable[[], Question | None]
    """Gives the next trial; None if there are no more."""
    stop: Callable[[str, int, float], bool]
    """Whether the trial of a key ends at this epoch, given the value of the metric there."""
    trials: Listener


def run_search(template: Job, listener: SearchListener, *, metric: str, max_concurrent: int) -> None:
    """Runs trials until `ask` gives no more, within `cluster()`.

    Args:
        template: the job of any trial, except for its key and settings; at its `checkpoint_at` trials are compared.
        metric: name of the validation metric that `stop` is asked about.
        max_concurrent: largest number of trials at a time.
    """
    import ray
    from ray import tune
    from ray.tune.search import Searcher
    from ray.tune.stopper import NoopStopper

    running: dict[str, str] = {}  # Tune's id of a trial to its key

    class Asking(Searcher):
        """Asks the listener what to try next."""

        def __reduce__(self) -> tuple[type[Searcher], tuple[()]]:
            """Tune pickles its configuration when it starts; the listener stays behind."""
            return Searcher, ()

        def suggest(self, trial_id: str) -> Any:
            question = listener.ask()
            if question is None:
                return Searcher.FINISHED
            running[trial_id] = question.key
            return {"key": question.key, "settings": dict(question.settings)}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            """Nothing: the listener hears of it by `trials`."""

    class Stopping(tune.Stopper):
        """Asks the listener, at the epochs where trials are compared, whether one ends there."""

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
        load_plugins(base.plugins)  # before the trial is made again: they may hold its data set or arm
        job = replace(base, key=config["key"], trial=base.trial.with_(**config["settings"]))

        def say(word: Message) -> None:
            tune.report({"word": asdict(word)})
            for record in word.committed:
                if record["epoch"] in job.checkpoint_at:
                    tune.report({EPOCH: record["epoch"], OBJECTIVE: record["metrics"][metric]})

        run(job, say)

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
