"""Records a search's trials in Optuna's database (the study), and chooses the next settings to try.

Only this file, database.py and plots.py import Optuna.

The study can be rebuilt from storage: `settle` adds the results and pruned trials that the study lacks. So a search
resumes after its driver was killed or its database was deleted. Only diverged trials are lost with the database.
Settings count as tried and do not run again if any sweep of the same storage name has run these settings.

The sampler is a pure function of (seed, trial number, contents of the study), so it needs no saved state.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import optuna

from mvae.refusal import Refusal
from mvae.streams import numpy_generator
from sweeps.planning.state import TrialState
from sweeps.search.database import StudyLost, database, exists, make
from sweeps.search.space import REDUCTION, Range, Search, Span
from sweeps.search.tried import TriedTrial
from sweeps.store import pruned
from sweeps.store.pruned import Pruned
from sweeps.store.results import Result
from sweeps.store.store import Store

PATIENCE, REPEATS = 10, 100
"""Limits on how often in a row the sampler may propose settings that were already tried. After PATIENCE repeats,
`ask` takes untried settings from the list of all settings, if all settings can be listed. After REPEATS repeats, the
search ends."""


class SearchRecord:
    """The study of one search. One driver at a time may change the study; any process may read the study.

    Args:
        search: the search.
        storage: Optuna's storage.
    """

    def __init__(self, search: Search, storage: optuna.storages.BaseStorage) -> None:
        self.search = search
        self._study = optuna.create_study(
            storage=storage,
            study_name=search.name,
            direction="maximize" if search.maximize else "minimize",
            load_if_exists=True,
        )
        self._space = {name: distribution(span) for name, span in search.varied.items()}
        self._open: list[int] = []
        self._keys: dict[str, int] = {}
        self._handles: dict[int, optuna.Trial] = {}

    def known(self) -> list[TriedTrial]:
        """Returns the database's trials, ordered by number, except trials with repeated or refused settings."""
        found = (self._known(frozen) for frozen in self._study.get_trials(deepcopy=False))
        return [one for one in found if one is not None]

    @property
    def left(self) -> int:
        return self.search.left(self.known())

    def settle(self, store: Store) -> None:
        """Adds stored trials to the study, and finds the trials to resume. In a new study, the default comes first."""
        self._keys = {one.key: one.number for one in self.known()}
        for frozen in self._study.get_trials(deepcopy=False):
            if frozen.state is optuna.trial.TrialState.RUNNING:
                self._study.sampler = self._sampler(frozen.number)  # a kill may have left settings unsampled
                known = self._chosen(optuna.Trial(self._study, frozen._trial_id), store)
                if known is not None and not known.ended:
                    self._open.append(known.number)
        self._adopt(store)
        self._open = self._open[: self.left]  # if the total is smaller than before, the rest stay partial
        default = self.search.default
        if self.search.key(default) not in self._keys and len(self._keys) < self.search.total:
            self._study.enqueue_trial(self.search.settings(default), skip_if_exists=True)

    def ask(self, store: Store) -> TriedTrial | None:
        """Returns the next trial: first the trials to resume, then new ones. Returns None at the end of the search."""
        if self._open:
            return self._tried(self._open.pop(0))
        repeats = 0
        while len(self._keys) < self.search.total and repeats < REPEATS:
            if repeats >= PATIENCE and (untried := self._untried()) is not None:
                self._study.enqueue_trial(untried)
            self._study.sampler = self._sampler(len(self._study.get_trials(deepcopy=False)))
            known = self._chosen(self._study.ask(), store)
            if known is None:
                repeats += 1
            elif not known.ended:
                return known
        return None

    def lags_behind(self, key: str, epoch: int, value: float) -> bool:
        """Whether to prune a trial at a rung, by asynchronous successive halving (ASHA).

        A trial continues if its value is among the best third of the values recorded so far at that rung. With fewer
        than three values, only the best trial continues. The default always continues, because all other trials are
        compared with the default. If a trial has already continued at this rung, it continues again. The value is
        recorded only together with the decision, so a kill before the decision loses nothing.

        We do not use Optuna's pruner, because it stores rungs under private names. A study rebuilt from storage lacks
        these names.
        """
        at_rung = {one.key: one.steps[epoch] for one in self.known() if epoch in one.steps}
        if key in at_rung:
            return False
        values = sorted([*at_rung.values(), value], reverse=self.search.maximize)
        worst = values[max(len(values) // REDUCTION, 1) - 1]
        good = value >= worst if self.search.maximize else value <= worst
        if good or key == self.search.key(self.search.default):
            self._handles[self._keys[key]].report(value, epoch)
            return False
        return True

    def done(self, key: str, store: Store) -> None:
        """Records that a trial is done. The trial's result must already be in storage."""
        result = store.results.read(key, self.search.measure.token)
        assert result is not None, f"{key} is done but has no result"
        self._tell(key, self.search.value(result.history))

    def give_up(self, key: str, epoch: int, value: float, store: Store) -> None:
        """Records in storage, then in the study, that a trial is pruned."""
        newest = store.checkpoints(key).latest(digests=False)
        trial = self._tried(self._keys[key]).trial
        history = [] if newest is None else newest.history
        record = Pruned(key, self.search.name, self.search.metric, value, epoch, trial.model_dump(), history)
        pruned.write(store, record)
        self._tell_pruned(key, epoch, value)

    def diverged(self, key: str, why: str) -> None:
        """Records that a trial's loss or weights became nan or infinite. The sampler then ranks this trial low."""
        self._handles[self._keys[key]].set_user_attr("diverged", why)
        self._study.tell(self._keys[key], state=optuna.trial.TrialState.PRUNED)

    def importances(self) -> dict[str, float]:
        """Returns the share (0 to 1) of the metric's variance that each setting explains, over all finished trials.

        The largest share comes first. The result is empty if fewer than 4 trials are finished, or if all of them have
        the same metric or the same settings.
        """
        finished = [one for one in self.known() if one.state is TrialState.DONE]
        if len(finished) < 4 or len({one.value for one in finished}) < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        try:
            return optuna.importance.get_param_importances(self._study, evaluator=evaluator, params=list(self._space))
        except (ValueError, RuntimeError):  # all finished trials have the same settings
            return {}

    def _known(self, frozen: optuna.trial.FrozenTrial) -> TriedTrial | None:
        key = frozen.user_attrs.get("key")
        if key is None or "repeats" in frozen.user_attrs:
            return None
        why = str(frozen.user_attrs.get("diverged", ""))
        states = {"COMPLETE": TrialState.DONE, "PRUNED": TrialState.DIVERGED if why else TrialState.PRUNED}
        state = states.get(frozen.state.name, TrialState.RUNNING)
        steps = dict(frozen.intermediate_values)
        value = steps[max(steps)] if state is TrialState.PRUNED and steps else frozen.value
        trial = self.search.trial(frozen.params)
        return TriedTrial(frozen.number, key, trial, state, None if why else value, steps, why)

    def _tried(self, number: int) -> TriedTrial:
        return next(one for one in self.known() if one.number == number)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(numpy_generator(self.search.default.seed, "search", number).integers(2**31))
        # The first 8 trials are drawn at random, because the sampler needs data.
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=8, constant_liar=True)

    def _chosen(self, asked: optuna.Trial, store: Store) -> TriedTrial | None:
        """Samples the settings of a trial. If the trial is done or pruned in the storage, records it in the study.

        Returns:
            The trial. If its settings are contradictory or repeat an earlier trial, the study records the trial as
            failed, and the result is None.
        """
        number = asked.number
        self._handles[number] = asked
        chosen = {name: _suggested(asked, name, span) for name, span in self.search.varied.items()}
        try:
            trial = self.search.trial(chosen)
        except Refusal as refusal:
            asked.set_user_attr("refused", str(refusal))
            self._study.tell(number, state=optuna.trial.TrialState.FAIL)
            return None
        key = self.search.key(trial)
        first = self._keys.setdefault(key, number)
        if first != number:
            asked.set_user_attr("repeats", first)
            self._study.tell(number, state=optuna.trial.TrialState.FAIL)
            return None
        if asked.user_attrs.get("key") != key:
            asked.set_user_attr("key", key)
        result = store.results.read(key, self.search.measure.token)
        stored = pruned.read(store, key, self.search.name)
        if stored is not None:
            self._tell_pruned(key, stored.epoch, stored.value)
        elif result is not None:
            self._tell(key, self.search.value(result.history))
        return self._tried(number)

    def _adopt(self, store: Store) -> None:
        """Adds trials that the study lacks: finished trials of this storage's sweeps, and pruned trials of this search.

        Adds the default first, then the other trials in the order in which they ended.
        """
        gone = {one.key: one for one in pruned.of_search(store, self.search.name) if one.key not in self._keys}
        results = store.results.where(
            lambda key, measure: key not in {*self._keys, *gone} and measure == self.search.measure.token
        )
        ended: list[tuple[float, Result | Pruned]] = [(one.provenance.get("finished", 0.0), one) for one in results]
        ended += [(one.history[-1]["time"] if one.history else 0.0, one) for one in gone.values()]
        default = self.search.key(self.search.default)
        ended.sort(key=lambda item: (item[1].key != default, item[0], item[1].key))
        missing = default not in self._keys and all(one.key != default for _, one in ended)
        for _, one in ended:
            if isinstance(one, Pruned):
                state, last, value = optuna.trial.TrialState.PRUNED, one.epoch, one.value
            else:
                state, last, value = optuna.trial.TrialState.COMPLETE, len(one.history), self.search.value(one.history)
            settings = self.search.settings_of(one.trial, one.key)
            if settings is None or not math.isfinite(value) or len(self._keys) + missing >= self.search.total:
                continue
            rungs = [epoch for epoch in self.search.milestones if epoch < last and epoch <= len(one.history)]
            steps = {epoch: one.history[epoch - 1]["metrics"][self.search.metric] for epoch in rungs}
            adopted = optuna.trial.create_trial(
                state=state,
                value=None if isinstance(one, Pruned) else value,
                params=settings,
                distributions=self._space,
                user_attrs={"key": one.key},
                intermediate_values={**steps, last: value} if isinstance(one, Pruned) else steps,
            )
            self._study.add_trial(adopted)
            self._keys[one.key] = len(self._study.get_trials(deepcopy=False)) - 1

    def _untried(self) -> dict[str, Any] | None:
        return next((settings for key, settings in self.search.countable.items() if key not in self._keys), None)

    def _tell(self, key: str, value: float) -> None:
        if math.isfinite(value):
            self._study.tell(self._keys[key], value)
        else:
            self.diverged(key, f"{self.search.metric} is {value} after the last epoch")

    def _tell_pruned(self, key: str, epoch: int, value: float) -> None:
        number = self._keys[key]
        if epoch not in self._tried(number).steps:
            self._handles[number].report(value, epoch)
        self._study.tell(number, state=optuna.trial.TrialState.PRUNED)


def distribution(span: Range) -> optuna.distributions.BaseDistribution:
    """Returns Optuna's distribution of a range."""
    if not isinstance(span, Span):
        return optuna.distributions.CategoricalDistribution(span)
    if span.whole:
        return optuna.distributions.IntDistribution(int(span.low), int(span.high), log=span.log)
    return optuna.distributions.FloatDistribution(span.low, span.high, log=span.log)


def _suggested(asked: optuna.Trial, name: str, span: Range) -> Any:
    if not isinstance(span, Span):
        return asked.suggest_categorical(name, span)
    if span.whole:
        return asked.suggest_int(name, int(span.low), int(span.high), log=span.log)
    return asked.suggest_float(name, span.low, span.high, log=span.log)


def look(search: Search, uri: str, say: Callable[[str], None] | None = None) -> list[TriedTrial]:
    """Returns the trials that a search has tried so far. Creates and changes nothing.

    Args:
        say: as in `database`. Retries only while another program locks the database or its server restarts.
    Raises:
        StudyLost: another program still locks the database. The same command may succeed later.
        Refusal: the database cannot be used.
    """
    if not exists(uri):
        return []
    try:
        with database(uri, say, only_held=True) as storage:
            if search.name not in optuna.get_all_study_names(storage):
                return []
            return SearchRecord(search, storage).known()
    except StudyLost as lost:
        if lost.held:
            raise
        raise Refusal(str(lost)) from None


@contextmanager
def opened(search: Search, uri: str, say: Callable[[str], None] | None = None) -> Iterator[SearchRecord]:
    """Opens the study. Creates it first if it does not exist.

    Args:
        say: as in `database`.
    Raises:
        StudyLost: as in `database`. Also raised by every method of the study.
    """
    make(uri, say)
    with database(uri, say) as storage:
        yield SearchRecord(search, storage)


def forget(name: str, uri: str) -> None:
    """Deletes the study of a search, if it exists.

    Raises:
        StudyLost: the database cannot be used.
    """
    if not exists(uri):
        return
    with database(uri) as storage:
        if name in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name=name, storage=storage)
