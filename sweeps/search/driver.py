"""Runs a search: a sweep in which an Optuna study chooses the trials during the run, and records them.

As for any sweep (sweeps/main.py), one command starts, resumes, extends and reports a search. If a driver dies, the
study still lists the trials that were running. The next command resumes these trials under the same numbers. `--trials`
is the total over all commands.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from mvae.storage.files import remedy
from sweeps import engine
from sweeps.cli.console import Console, Progress
from sweeps.cli.options import CommonOptions
from sweeps.cli.programs import COMPLETE, INCOMPLETE
from sweeps.cli.signals import Interrupted
from sweeps.cli.tracking_uri import without_credentials
from sweeps.cli.words import counted
from sweeps.driver import Driver
from sweeps.planning.plan import Plan, PlannedTrial, plan, shape_of
from sweeps.planning.price import Host, costs, left
from sweeps.planning.state import TrialState
from sweeps.search import report as search_report
from sweeps.search.database import StudyLost, study_uri
from sweeps.search.report import Outcome
from sweeps.search.space import Search, words
from sweeps.search.study import SearchRecord, look, opened
from sweeps.search.tried import TriedTrial, counts
from sweeps.store.lists import STUDY
from sweeps.store.store import Store
from sweeps.sweep import LookUp, Sweep
from sweeps.table.files import known_links
from sweeps.table.rounding import shown_value
from sweeps.tracking.tracker import Tracker
from sweeps.tracking.view import RunView, SweepView
from sweeps.trials.messages import Message

OTHER_SEEDS = 1_000_000
"""Added to the seed to get a trial that nobody has run, because only trials without a result get a time estimate."""


def sweep_of(search: Search, uri: str) -> Sweep:
    """Returns the sweep of a search. Its cells are the default trial and the trials that the study has chosen so far.

    Args:
        uri: URI of the study's database.
    Raises:
        Refusal: the database cannot be used.
        StudyLost: another program still locks the database after minutes of retries.
    """
    searching = Searching(search, uri)
    cells = [search.cell(one.number, one.trial) for one in searching.known]
    default = search.default
    if all(cell.trial != default for cell in cells):
        cells = [search.cell(0, default), *cells]
    title = f"Search on {default.dataset}: {search.metric} of {default.model}"
    return Sweep(search.name, title, tuple(cells), heading=title, search=searching)


@dataclass(frozen=True)
class Searching:
    """Implements `sweeps.sweep.Work` for a search, so that `sweeps.main.main` can run it."""

    search: Search
    uri: str

    @cached_property
    def known(self) -> list[TriedTrial]:
        """The trials in the study at the start of the command."""
        return look(self.search, self.uri, Console().say)

    def folder(self, sweep: Sweep, planned: Plan, store: Store, options: CommonOptions) -> str:
        return sweep.name

    def left(self, planned: Plan) -> int:
        """Returns the number of trials still to run, counted in the study because the plan does not contain them."""
        return self.search.left(self.known)

    def show_plan(self, look_up: LookUp, sweep: Sweep, options: CommonOptions, host: Host, console: Console) -> int:
        """Prints the state of the search, and the highest possible costs: the costs if no trial is pruned."""
        search, default = self.search, self.search.default
        console.say(Outcome(search, tuple(self.known)).counts())
        ranges = ", ".join(f"{name} ({words(span)})" for name, span in search.varied.items())
        console.say(f"varied: {ranges}")
        if search.milestones:
            rungs = ", ".join(map(str, search.milestones))
            console.say(f"trials that lag behind are pruned at epochs {rungs} of {default.epochs}")
        another = search.cell(0, default.with_(seed=default.seed + OTHER_SEEDS))
        estimate = look_up([another]).estimate.times(search.left(self.known))
        for line in costs(estimate, host, options):
            console.say(line)
        if estimate.known and search.milestones:
            console.say("this is an upper bound: pruned trials take less time")
        return COMPLETE

    def report(self, sweep: Sweep, planned: Plan, store: Store, console: Console) -> int:
        if not self.known:
            console.say(Outcome(self.search, ()).counts())
            return INCOMPLETE
        with opened(self.search, self.uri, console.say) as study:
            return report_on(study, store, {}, console)

    def drive(self, *start: Any) -> int:
        return SearchDriver(*start).run()


class SearchDriver(Driver):
    """Drives a search. The study stays open, and the plan grows with each trial that the study chooses."""

    study: SearchRecord
    _loss: StudyLost | None = None

    def run(self) -> int:
        assert isinstance(self.sweep.search, Searching)
        with opened(self.sweep.search.search, self.sweep.search.uri, self.console.say) as self.study:
            self.study.settle(self.store)
            cells = [self.study.search.cell(one.number, one.trial) for one in self.study.known()]
            if cells:
                self.planned = plan(cells, self.store, self.data_marks)
            return super().run()

    def what_there_is(self) -> str:
        parts = [counted(self.study.search.total, "trial"), counts(self.study.known())]
        return ", ".join(filter(None, parts))

    def list_trials(self, study: str = "") -> None:
        assert isinstance(self.sweep.search, Searching)
        uri, remote = self.sweep.search.uri, self.store.folder.is_remote
        usual = not remote and uri == study_uri(self.store, None)
        super().list_trials(STUDY if usual else without_credentials(uri))

    def left(self) -> str:
        machine = engine.host_now(self.options.gpus_per_trial, self.capacity)
        search = self.study.search
        another = search.cell(0, search.default.with_(seed=search.default.seed + OTHER_SEEDS))
        latest = plan([another], self.store, self.data_marks, device=machine.device)
        half_done = sum(one.state is TrialState.RUNNING for one in self.study.known())
        return left(latest.estimate.times(self.study.left), half_done, machine, self.options)

    @property
    def unfinished(self) -> bool:
        return self.study.left > 0

    def view(self, state: TrialState) -> SweepView:
        """Returns the usual view of a sweep, with the search's metric as the first metric, and the varied settings."""
        usual, search = super().view(state), self.study.search
        metrics = (search.metric, *(name for name in usual.metrics if name != search.metric))
        known = self.study.known()
        numbers = {"trials/ended": float(search.total - search.left(known)), "trials/all": float(search.total)}
        return replace(
            usual, metrics=metrics, settings=tuple(search.varied), quantities=(), watched=(), numbers=numbers
        )

    def train(self, tracker: Tracker) -> None:
        search, epochs = self.study.search, float(self.study.search.default.epochs)
        waiting = [f"trial {place}" for place in range(self.study.left)]
        with (
            self.console.progress(dict.fromkeys(waiting, epochs)) as progress,
            engine.cluster(self._head_lost, self.console.say) as capacity,
        ):
            self.capacity = capacity
            planned = PlannedTrial("", search.default, (search.measure,), missing=(search.measure,), epoch=0)
            template = replace(self._job(planned, capacity), checkpoint_at=search.milestones)
            needs = engine.demand(*shape_of(search.default), self.options.gpus_per_trial, capacity)
            at_once = engine.trials_at_once(capacity, needs, self.options.max_concurrent)
            if bound := engine.memory_bound(capacity, needs, self.options.max_concurrent, self.study.left):
                self.console.say(bound)

            def ask() -> engine.Question | None:
                self._stop_if_told()
                with self._ending_if_study_lost():
                    known = self.study.ask(self.store)
                if known is None:
                    return None
                self._add(known)
                progress.named(waiting.pop(), known.key)
                return engine.Question(known.key, search.settings(known.trial))

            def stop(key: str, epoch: int, value: float) -> bool:
                with self._ending_if_study_lost():
                    if not self.study.lags_behind(key, epoch, value):
                        return False
                    self.study.give_up(key, epoch, value, self.store)
                line = f"pruned at epoch {epoch}  {search.metric.rpartition('/')[2]} {shown_value(value)}"
                progress.stopped(key, self.catalogue.name(key), line)
                tracker.update(self.catalogue.pruned(key, epoch))
                return True

            listener = engine.SearchListener(ask, stop, self._listening(tracker, progress))
            try:
                engine.run_search(template, listener, metric=search.metric, max_concurrent=at_once)
            finally:
                if self._loss is not None:
                    raise self._loss
            self.interruption.without_limit()  # before Ray shuts down

    @contextmanager
    def _ending_if_study_lost(self) -> Iterator[None]:
        """Raises Interrupted if the study is lost, so that the trials end. Tune would swallow any other exception."""
        try:
            yield
        except StudyLost as lost:
            self._loss = lost
            raise Interrupted(str(lost)) from None

    def _listening(self, tracker: Tracker, progress: Progress) -> engine.Listener:
        usual = self._listener(tracker, progress)

        def word(key: str, message: Message) -> None:
            usual.word(key, message)
            with self._ending_if_study_lost():
                if message.done:
                    self.study.done(key, self.store)
                elif message.diverged:
                    self.failures.pop(key)
                    self.study.diverged(key, message.failed)

        return replace(usual, word=word)

    def metric(self, view: RunView) -> str:
        search = self.study.search
        return f"{search.metric.rpartition('/')[2]} {shown_value(search.value(view.history))}"

    def _add(self, known: TriedTrial) -> None:
        if known.key in self.planned.trials:
            return
        cell = self.study.search.cell(known.number, known.trial)
        one = plan([cell], self.store, self.data_marks)
        self.planned = replace(
            self.planned,
            cells=(*self.planned.cells, cell),
            keys=(*self.planned.keys, known.key),
            trials={**self.planned.trials, **one.trials},
        )
        self.list_trials()
        self.catalogue.add(self.planned, known.key)

    def correct_views(self) -> None:
        for one in self.study.known():
            if one.state is TrialState.DIVERGED:
                self.catalogue.failed(one.key, one.why)
            elif one.state is TrialState.PRUNED and self.catalogue.view(one.key).state is not TrialState.DONE:
                self.catalogue.pruned(one.key, max(one.steps, default=0))

    def report(self, links: dict[str, str]) -> int:
        code = report_on(self.study, self.store, links, self.console)
        for key, why in self.failures.items():
            self.console.say(f"failed: {self.catalogue.name(key)}: {why}")
        return INCOMPLETE if self.failures else code


def report_on(study: SearchRecord, store: Store, links: dict[str, str], console: Console) -> int:
    """Prints and writes the report of the trials so far. Returns the exit code, which says whether all trials ended.

    Args:
        links: MLflow run of each key, added to the links in the last report.
    """
    known, folder = tuple(study.known()), store.reports / study.search.name
    tested = search_report.tested(store, study.search, known)
    outcome = Outcome(study.search, known, tested, study.importances(), known_links(folder) | links)
    search_report.show(outcome, console.rich)
    try:
        search_report.write(folder, outcome)
    except OSError as refused:
        console.say(f"Cannot write the report: {refused}{remedy(refused)}")
        return INCOMPLETE
    console.say(f"Report: {folder}")
    return INCOMPLETE if study.search.left(known) else COMPLETE
