"""Tune runs a search: its searcher asks a study what to try, its ASHA gives up what lags behind at a rung.

The searcher is Tune's OptunaSearch over our own study, which it neither makes nor saves: a study in a database outlives
any driver, and what was running when one died is asked for again, with its number. ASHA decides at rungs alone, ends
of epochs that a checkpoint covers, and waits there for its word; so a trial that goes on is the trial that it would
have been alone, bit for bit. What it decided before it need not decide again: past trials are shown to it first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace
from typing import Any

from mvae.plugins import load as load_plugins
from sweeps.engine.attach import address
from sweeps.engine.quiet import environment
from sweeps.engine.trials import MOST_DEATHS_ON_A_CLUSTER, MOST_PROCESS_DEATHS, Listener, demand_of, relay
from sweeps.scratch import scratch
from sweeps.search import REDUCTION
from sweeps.study import Known, Standing, Study
from sweeps.worker import Job, Word, run

OBJECTIVE, EPOCH = "objective", "epoch"
"""What a trial reports at a rung."""


@dataclass(frozen=True)
class SearchListener:
    """What the driver does with what it hears; called in the driver's main thread."""

    ask: Callable[[], Known | None]
    """Gives the next trial; None: there is no more."""
    passed: Callable[[str, int, float], None]
    """A key's trial goes on beyond a rung: epoch and value there."""
    given_up: Callable[[str, int, float], None]
    """A key's trial does not."""
    trials: Listener


def run_search(study: Study, template: Job, listener: SearchListener, *, max_concurrent: int) -> None:
    """Runs trials until the study has no more to ask, within `cluster()`.

    Args:
        template: the job of any trial, but for its key and the settings of its trial.
        max_concurrent: most trials at a time.
    """
    import ray
    from ray import tune
    from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
    from ray.tune.search import Searcher
    from ray.tune.search.optuna import OptunaSearch

    search, metric = study.search, study.search.metric
    mode = "max" if search.maximize else "min"

    class Asking(OptunaSearch):
        """Asks our study, and tells the listener what became of its trials at rungs."""

        def __init__(self) -> None:
            super().__init__(
                space=study.space, metric=OBJECTIVE, mode=mode, storage=study.storage, study_name=search.name
            )
            self.asked: dict[str, Known] = {}

        def __reduce__(self) -> tuple[type[Searcher], tuple[()]]:
            """Tune pickles its configuration when it starts; the study stays behind."""
            return Searcher, ()

        def suggest(self, trial_id: str) -> Any:
            known = listener.ask()
            if known is None:
                return Searcher.FINISHED
            self.asked[trial_id] = known
            return {
                "key": known.key,
                "settings": search.settings(known.trial),
                "decided": search.default.epochs if known.trial == search.default else max(known.steps, default=0),
            }

        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            if OBJECTIVE in result:
                listener.passed(self.asked[trial_id].key, result[EPOCH], result[OBJECTIVE])

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            if result and OBJECTIVE in result:  # its last word came from a rung: it was stopped there
                listener.given_up(self.asked[trial_id].key, result[EPOCH], result[OBJECTIVE])

        def save(self, checkpoint_path: str) -> None:
            """Nothing: the study's database is what a search resumes from."""

    class Rungs(AsyncHyperBandScheduler):
        """ASHA, which stands by what it decided, and gives the default, against which all are held, its whole time."""

        def __reduce__(self) -> tuple[type[FIFOScheduler], tuple[()]]:
            return FIFOScheduler, ()

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            action = super().on_trial_result(tune_controller, trial, result)
            decided = EPOCH in result and result[EPOCH] <= trial.config["decided"]
            return TrialScheduler.CONTINUE if decided else action

    scheduler: Any = None
    if search.milestones:
        scheduler = Rungs(
            time_attr=EPOCH,
            metric=OBJECTIVE,
            mode=mode,
            max_t=search.default.epochs,
            grace_period=search.first_rung,
            reduction_factor=REDUCTION,
        )
        _show_the_past(scheduler, study.known())
    shared = ray.put(template)

    def tune_trial(config: dict[str, Any]) -> None:
        base: Job = ray.get(shared)
        load_plugins(base.plugins)  # before the trial is made again: they may hold its data set or arm
        job = replace(base, key=config["key"], trial=base.trial.with_(**config["settings"]))

        def say(word: Word) -> None:
            tune.report({"word": asdict(word)})
            for record in word.committed:
                if record["epoch"] in job.checkpoint_at:
                    tune.report({EPOCH: record["epoch"], OBJECTIVE: record["metrics"][metric]})

        run(job, say)

    deaths = MOST_DEATHS_ON_A_CLUSTER if address() else MOST_PROCESS_DEATHS
    with scratch("ray") as session, environment({"TUNE_DISABLE_STRICT_METRIC_CHECKING": "1"}):
        tune.Tuner(
            tune.with_resources(tune_trial, demand_of(template).of_each),
            tune_config=tune.TuneConfig(
                search_alg=Asking(),
                scheduler=scheduler,
                num_samples=-1,
                reuse_actors=True,
                max_concurrent_trials=max_concurrent,
                trial_name_creator=lambda trial: trial.config["key"],
                trial_dirname_creator=lambda trial: trial.config["key"],
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=str(session),
                verbose=0,
                callbacks=[relay(listener.trials)],
                failure_config=tune.FailureConfig(max_failures=deaths),
            ),
        ).fit()


def _show_the_past(scheduler: Any, known: list[Known]) -> None:
    """Fills the rungs with the trials that ended before; those that go on come by again themselves."""
    for one in known:
        if one.standing not in (Standing.DONE, Standing.PRUNED):
            continue
        past = SimpleNamespace(trial_id=f"past-{one.number}", config={"decided": 0})
        scheduler.on_trial_add(None, past)
        for epoch, value in sorted(one.steps.items()):
            scheduler.on_trial_result(None, past, {EPOCH: epoch, OBJECTIVE: value})
