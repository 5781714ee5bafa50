"""Runs one command while holding the lease: trains the missing trials, updates MLflow, then reports from storage."""

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from mvae import plugins
from mvae.data import default_cache
from mvae.storage.clock import CLOCK, Clock
from mvae.storage.files import remedy
from mvae.storage.place import Place, each
from sweeps import engine
from sweeps.cli.browsing import how_to_browse
from sweeps.cli.console import Console, Progress
from sweeps.cli.options import CommonOptions
from sweeps.cli.programs import COMPLETE, INCOMPLETE, INTERRUPTED, OUT_OF_HOURS, command, stopped_by
from sweeps.cli.signals import Interrupted, Interruption
from sweeps.cli.tracking_uri import place_of_artifacts
from sweeps.cli.words import counted, duration, error
from sweeps.planning.listed import list_trials
from sweeps.planning.plan import Fingerprints, Plan, PlannedTrial, plan, shape_of
from sweeps.planning.price import left
from sweeps.planning.state import TrialState
from sweeps.planning.times import kind_of
from sweeps.store.lease import Lease
from sweeps.store.provenance import git_sha
from sweeps.store.scratch import remove_folders_of_the_dead
from sweeps.store.store import Store
from sweeps.sweep import Sweep
from sweeps.table.comparison import Report
from sweeps.table.files import known_links, recall_statistics, show, tabulate, write
from sweeps.table.rounding import shown_value
from sweeps.tracking.cells import cell_views, sweep_numbers, watched
from sweeps.tracking.notes import view_page
from sweeps.tracking.tracker import UNHEARD_SECONDS, Tracker
from sweeps.tracking.view import RunView, SweepView
from sweeps.tracking.views import Catalogue
from sweeps.trials.messages import Job, Message, waves

PATIENTLY, BRIEFLY = 60.0, 15.0
"""Seconds without progress after which the driver stops waiting for MLflow.

PATIENTLY: at the end of an uninterrupted command. BRIEFLY: before the report, after an interruption, and if the
cluster's head is lost.
"""


@dataclass
class Driver:
    """Trains the missing trials, keeps MLflow up to date, and reports the table.

    `run` calls the other public methods as its steps. A search (sweeps/search/driver.py) overrides some methods.
    """

    sweep: Sweep
    options: CommonOptions
    planned: Plan
    data_marks: Fingerprints
    store: Store
    uri: str
    console: Console
    lease: Lease
    interruption: Interruption
    failures: dict[str, str] = field(default_factory=dict)
    reported: Report | None = None
    capacity: engine.Capacity | None = None
    clock: Clock = CLOCK

    def run(self) -> int:
        """Trains the missing trials, reports the table, and returns the exit code."""
        self.started = self.clock.time()
        self._tidy()
        self._keep_plugins()
        self.list_trials()
        self.catalogue = Catalogue(self.planned, self.store, self.data_marks, self.options.cache, self.clock)
        self.correct_views()
        self.console.header(f"{self.sweep.title}: {self.what_there_is()}")
        for line in (*self.sweep.facts, *(self.sweep.remarks if self.unfinished else ())):
            self.console.say(line)
        if changed := self.catalogue.made_by_others():
            self.console.say(changed)
        self._tracker = tracker = Tracker(
            self.uri,
            namespace=self.store.namespace(),
            experiment=self.store.name,
            sweep=self.view(TrialState.RUNNING),
            artifacts=place_of_artifacts(self.uri, self.store.root),
            load_model=self.catalogue.load_model,
            say=self.console.say,
            record=self.store.mirrored(self.sweep.name),
            cache=self.options.cache or default_cache(),
            clock=self.clock,
        )
        for key in self.planned.trials:
            tracker.update(self.catalogue.view(key))
        code = INCOMPLETE
        try:
            if self.unfinished:
                self.train(tracker)
            self.interruption.without_limit()
            tracker.start()
            code = self.report(tracker.links(BRIEFLY))
        except KeyboardInterrupt as stop:
            code = OUT_OF_HOURS if self.interruption.out_of_hours else INTERRUPTED
            with suppress(OSError):
                self.console.say(self.left())
            self.console.say(stopped_by(self.interruption.heard or str(stop)))
        finally:
            if self.lease.lost.is_set():  # another driver writes to MLflow now
                tracker.give_up()
            else:
                stopped = dict.fromkeys((OUT_OF_HOURS, INTERRUPTED), TrialState.INTERRUPTED)
                state = ({COMPLETE: TrialState.DONE} | stopped).get(code, TrialState.FAILED)
                tracker.start()
                tracker.update_sweep(self.view(state))
                tracker.close(BRIEFLY if code in stopped else PATIENTLY)
                code = INCOMPLETE if tracker.stuck and code == COMPLETE else code
        page = view_page(self.sweep.name, tracker.experiment) if tracker.experiment else ""
        self.console.say(f"Browse: {how_to_browse(self.uri, page, on_cluster=engine.address() is not None)}")
        return code

    def _head_lost(self, reason: str) -> None:
        """Reports that the cluster's head is lost, and exits. Runs in a thread: the main thread may hang in Ray."""
        try:
            self.console.stop_progress()
            error(f"stopped: {reason}; finished trials are kept. To resume: {command()}")
            self._tracker.update_sweep(self.view(TrialState.FAILED))
            self._tracker.close(BRIEFLY)
            self.lease.release()
            sys.stdout.flush()
        finally:
            os._exit(INCOMPLETE)

    def correct_views(self) -> None:
        """Adds to the catalogue the information that storage lacks. Only a search has such information."""

    def what_there_is(self) -> str:
        """Returns the number of trials, and how many are done or half done: "32 trials, 8 done, 2 half done"."""
        done = self.planned.count(TrialState.DONE)
        half_done = self.planned.count(TrialState.INTERRUPTED)
        progress = f", {done} done" * bool(done) + f", {half_done} half done" * bool(half_done)
        return f"{counted(len(self.planned.trials), 'trial')}{progress}"

    def left(self) -> str:
        """Returns a line with the number of unfinished trials, and the time that they will take."""
        machine = engine.host_now(self.options.gpus_per_trial, self.capacity)
        latest = plan(self.sweep.cells, self.store, self.data_marks, device=machine.device)
        return left(latest.estimate, latest.count(TrialState.INTERRUPTED), machine, self.options)

    @property
    def unfinished(self) -> bool:
        return bool(self.planned.todo)

    def report(self, links: dict[str, str]) -> int:
        """Prints and writes the table; returns COMPLETE if every cell has its result, else INCOMPLETE."""
        code, self.reported = report_on(self.sweep, self.planned, self.store, self.console, self.failures, links)
        return code

    def _tidy(self) -> None:
        """Deletes temporary folders of killed processes, and files that finished trials no longer need."""
        remove_folders_of_the_dead()

        def tidy(key: str) -> None:
            self._drop_traceback(key)
            with suppress(OSError):
                self.store.measuring(key).remove_tree()
            checkpoints = self.store.checkpoints(key)
            newest = checkpoints.latest(digests=False)
            if newest is not None and not newest.final:
                checkpoints.keep_final_weights()

        each(tidy, [key for key, one in self.planned.trials.items() if one.state is TrialState.DONE], self.store.root)

    def _keep_plugins(self) -> None:
        """Copies the plug-ins into storage, because git has no copy, and results only name a plug-in's digest."""
        for plugin in plugins.loaded():
            copy = self.store.plugin(plugin.path.name, plugin.digest)
            if not copy.exists():
                copy.write_bytes(plugin.content)

    def list_trials(self, study: str = "") -> None:
        """Adds the planned trials to the sweep's list in storage (`mvae ls`, `mvae rm`).

        Args:
            study: URI of a search's database, without credentials.
        """
        about = {"sweep": self.sweep.name, "title": self.sweep.title, "command": command(), "study": study}
        list_trials(self.planned, self.store, self.data_marks, now=self.started, **about)

    def train(self, tracker: Tracker) -> None:
        todo = self.planned.todo
        work = {planned.key: float(planned.trial.epochs) for planned in todo}
        before = {planned.key: planned.epoch / planned.trial.epochs for planned in todo}
        kinds = {planned.key: " ".join(kind_of(planned.trial.model_dump()) or ()) for planned in todo}
        with (
            self.console.progress(work, before, kinds) as progress,
            engine.cluster(self._head_lost, self.console.say) as capacity,
        ):
            self.capacity = capacity
            jobs = [self._job(planned, capacity) for planned in todo]
            most = self.options.max_concurrent
            groups = [group for wave in waves(jobs) for group in engine.alike(wave)]
            expected = max(engine.trials_at_once(capacity, needs, most) for needs, _ in groups)
            estimate = self.planned.estimate
            progress.expect(None if estimate.unknown else estimate.lasting(expected))
            for needs, alike in groups:
                at_once = engine.trials_at_once(capacity, needs, most, len(alike))
                if memory_limit := engine.memory_bound(capacity, needs, most, len(alike)):
                    self.console.say(memory_limit)
                engine.run_jobs(alike, self._listener(tracker, progress), max_concurrent=at_once)
            self.interruption.without_limit()  # before Ray shuts down

    def _job(self, planned: PlannedTrial, capacity: engine.Capacity) -> Job:
        return Job(
            key=planned.key,
            trial=planned.trial,
            measures=planned.missing,
            store=self.store,
            data_root=self.options.data_root,
            cache=self.options.cache,
            gpus=engine.demand(*shape_of(planned.trial), self.options.gpus_per_trial, capacity).gpus,
            checkpoint_every=self.options.checkpoint_every,
            until=self.interruption.stops_at,
            git=git_sha(),
            namespace=self.store.namespace(),
            speeds=self.sweep.speeds,
            test_curve=self.options.test_curve,
        )

    def _listener(self, tracker: Tracker, progress: Progress) -> engine.Listener:
        def started(key: str) -> None:
            self._stop_if_told()
            progress.started(key, self.catalogue.name(key))
            tracker.update(self.catalogue.running(key))
            tracker.start(UNHEARD_SECONDS)  # importing MLflow now would delay the trial's start

        def received(key: str, message: Message) -> None:
            self._stop_if_told()
            tracker.start()
            if message.again:
                self.console.say(f"{self.catalogue.name(key)}: {message.again}; resuming from the last checkpoint")
            elif message.waits:
                self.console.say(f"{self.catalogue.name(key)}: {message.waits}")
            elif message.failed:
                traceback = self._write_traceback(key, message)
                self.failures[key] = message.failed + f" (traceback: {traceback})" * bool(traceback)
                progress.stopped(key, self.catalogue.name(key), f"failed: {self.failures[key]}")
                tracker.update(self.catalogue.failed(key, message.failed, traceback))
            elif message.done:
                self._drop_traceback(key)
                view = self.catalogue.finished(key)
                spent = max((result.provenance.get("seconds", 0.0) for result in view.results), default=0.0)
                spent += sum(result.provenance.get("measured_in_seconds", 0.0) for result in view.results)
                progress.finished(key, self.catalogue.name(key), f"{self.metric(view)}  {duration(spent)}")
                tracker.update(view)
            else:
                progress.epoch(key, message.epoch, message.epochs)
                if message.measured is not None:
                    progress.relabelled(key, f"{self.catalogue.name(key)}: measured {message.measured:.0%}")
                if message.committed:
                    tracker.update(self.catalogue.committed(key, message.committed))

        return engine.Listener(started, received)

    def _write_traceback(self, key: str, message: Message) -> Place | None:
        path = self.store.traceback(key)
        if message.details:
            with suppress(OSError):
                path.write_bytes(f"{self.catalogue.name(key)}\n{message.failed}\n\n{message.details}\n".encode())
                return path
        return None

    def _drop_traceback(self, key: str) -> None:
        with suppress(OSError):
            self.store.traceback(key).unlink()

    def metric(self, view: RunView) -> str:
        """Returns the metric printed when a trial finishes: "accuracy 0.352"; a range if there are several values."""
        cell = self.planned.cells[self.planned.keys.index(view.key)]
        measures = self.planned.trials[view.key].measures
        quantity = cell.quantity or measures[0].quantity
        metrics = [cell.quantity] if cell.quantity else [m.metric for m in measures if m.quantity == quantity]
        values = sorted(view.final[metric] for metric in metrics if metric in view.final)
        if not values:
            return "done"
        shown = " to ".join(map(shown_value, [values[0], values[-1]][: len(values)]))
        return f"{quantity.rpartition('/')[2]} {shown}"

    def _stop_if_told(self) -> None:
        self.interruption.check()
        if self.lease.lost.is_set():
            raise Interrupted("another driver, which took over the lease")

    def view(self, state: TrialState) -> SweepView:
        return SweepView(
            name=self.sweep.name,
            state=state,
            title=self.sweep.title,
            source=self.sweep.table.source if self.sweep.table else self.sweep.source,
            command=command(),
            program=Path(sys.argv[0]).name,
            metrics=tuple(dict.fromkeys(cell.metric for cell in self.sweep.cells)),
            quantities=tuple(dict.fromkeys(cell.quantity or cell.measure.quantity for cell in self.sweep.cells)),
            watched=watched(self.catalogue.views()),
            numbers=sweep_numbers(self.reported) if self.reported else {},
            cells=cell_views(self.reported, self.catalogue.view) if self.reported else None,
            tags={
                "git": git_sha(),
                "dataset": self.options.dataset,
                "preset": self.options.preset,
                "plugins": {plugin.path.name: plugin.digest for plugin in plugins.loaded()} or None,
            },
            report=self.store.reports / self.sweep.name,
            started=self.started,
            ended=None if state is TrialState.RUNNING else self.clock.time(),
        )


def report_on(
    sweep: Sweep, planned: Plan, store: Store, console: Console, failures: dict[str, str], links: dict[str, str]
) -> tuple[int, Report]:
    """Prints and writes the table of the stored results. Returns the exit code (COMPLETE or INCOMPLETE) and the table.

    Args:
        failures: error message of each trial that failed in this command, by key.
        links: link to the MLflow run of each trial, by key. Links of an earlier report are kept.
    """
    folder = store.reports / sweep.name
    links = known_links(folder) | links
    recall_statistics(folder)
    build = partial(tabulate, table=sweep.table, failures=failures, links=links, axis=sweep.axis, heading=sweep.heading)
    report = build(planned, store.results)
    report = report.without_comparing(sweep.under_trained(report))
    report = replace(report, statements=(*sweep.facts, *sweep.statements(report)))
    details = build(planned.over(sweep.details), store.results) if sweep.details else None
    show(report, console.rich)
    if store.folder.exists():
        try:
            pictures = sweep.pictures(report, details) if sweep.pictures else None
            write(folder, report, details, pictures)
        except OSError as failure:
            console.say(f"Cannot write the report: {failure}{remedy(failure)}")
            return INCOMPLETE, report
        console.say(f"Report: {folder}")
    return COMPLETE if report.complete else INCOMPLETE, report
