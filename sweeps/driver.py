"""One driver at work, under the lease: trials run, MLflow follows, the table comes last, made from storage again."""

from __future__ import annotations

import os
import shlex
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from mvae import plugins
from mvae.storage.place import Place, each
from sweeps import engine
from sweeps.cli.console import Console, Progress
from sweeps.cli.options import CommonOptions
from sweeps.cli.programs import installed
from sweeps.cli.signals import Interrupted, Interruption
from sweeps.cli.tracking_uri import place_of_artifacts, without_credentials
from sweeps.cli.words import counted, duration, error
from sweeps.planning.plan import Fingerprints, Plan, PlannedTrial, kind_of, shape_of
from sweeps.planning.state import TrialState
from sweeps.store.lease import Lease
from sweeps.store.provenance import git_sha
from sweeps.store.scratch import remove_folders_of_the_dead
from sweeps.store.store import Store
from sweeps.sweep import Sweep
from sweeps.table.files import known_links, show, tabulate, write
from sweeps.table.rounding import shown_value
from sweeps.tracking.tracker import Tracker
from sweeps.tracking.view import RunView, SweepView
from sweeps.tracking.views import Catalogue
from sweeps.trials.messages import Job, Message

COMPLETE, INCOMPLETE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes of every pipeline."""

PATIENTLY, BRIEFLY = 60.0, 15.0
"""Seconds without progress that MLflow gets to catch up at the end; few where the user waits for a sweep to stop."""


@dataclass
class Driver:
    """One driver at work, under the lease: trials run, MLflow follows, the table comes last.

    Its public methods except `run` are steps of `run`. A search does them in its own way (sweeps/search/driver.py).
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

    def run(self) -> int:
        """Runs what is missing and reports everything; the exit code says how it went."""
        self.started = time.time()
        self._tidy()
        self._keep_plugins()
        self.catalogue = Catalogue(self.planned, self.store, self.data_marks, self.options.cache)
        self.correct_views()
        self.console.header(f"{self.sweep.title}: {self.what_there_is()}")
        remarks = self.sweep.remarks if self.unfinished else ()
        for line in (*self.sweep.facts, *remarks):
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
        )
        for key in self.planned.trials:
            tracker.update(self.catalogue.view(key))
        code = INCOMPLETE
        try:
            if self.unfinished:
                self.train(tracker)
            tracker.start()
            code = self.report(tracker.links(BRIEFLY))
        except KeyboardInterrupt as stop:
            code = INTERRUPTED
            self.console.say(stopped_by(self.interruption.heard or str(stop)))
        finally:
            if self.lease.lost.is_set():  # MLflow has another writer now
                tracker.give_up()
            else:
                state = {COMPLETE: TrialState.DONE, INTERRUPTED: TrialState.INTERRUPTED}.get(code, TrialState.FAILED)
                tracker.start()
                tracker.update_sweep(self.view(state))
                tracker.close(BRIEFLY if code == INTERRUPTED else PATIENTLY)
                if tracker.stuck and code == COMPLETE:
                    code = INCOMPLETE
        self.console.say(f"Browse: {_how_to_browse(self.uri)}")
        return code

    def _head_lost(self, what: str) -> None:
        """Ends this process in order, from a thread of the engine: no call of Ray's in the main thread may return."""
        try:
            self.console.stop_progress()
            error(f"stopped: {what}; what is finished stays. To go on: {command()}")
            self._tracker.update_sweep(self.view(TrialState.FAILED))
            self._tracker.close(BRIEFLY)
            self.lease.release()
            sys.stdout.flush()
        finally:
            os._exit(INCOMPLETE)

    def correct_views(self) -> None:
        """Puts into the catalogue what storage alone does not say."""

    def what_there_is(self) -> str:
        """How many trials, and what of them is done already, in words."""
        done = self.planned.count(TrialState.DONE)
        partial = self.planned.count(TrialState.INTERRUPTED)
        kept = f", {done} done" * bool(done) + f", {partial} half done" * bool(partial)
        return f"{counted(len(self.planned.trials), 'trial')}{kept}"

    @property
    def unfinished(self) -> bool:
        """Whether there is anything to train."""
        return bool(self.planned.todo)

    def report(self, links: dict[str, str]) -> int:
        """Shows and writes the table; the exit code says whether it is complete."""
        return report_on(self.sweep, self.planned, self.store, self.console, self.failures, links)

    def _tidy(self) -> None:
        """Finishes what killed processes left undone: temporary folders, and all but the final weights of a result."""
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
        """The plug-ins as they are, beside the results that name their digests: no commit of ours holds them."""
        for plugin in plugins.loaded():
            kept = self.store.plugin(plugin.path.name, plugin.digest)
            if not kept.exists():
                kept.write_bytes(plugin.content)

    def train(self, tracker: Tracker) -> None:
        """Runs what is missing."""
        todo = self.planned.todo
        work = {planned.key: float(planned.trial.epochs) for planned in todo}
        before = {planned.key: planned.epoch / planned.trial.epochs for planned in todo}
        kinds = {planned.key: " ".join(kind_of(planned.trial.model_dump()) or ()) for planned in todo}
        with (
            self.console.progress(work, before, kinds) as progress,
            engine.cluster(self._head_lost, self.console.say) as capacity,
        ):
            jobs = [self._job(planned, capacity) for planned in todo]
            most, groups = self.options.max_concurrent, list(engine.alike(jobs))
            expected = max(engine.trials_at_once(capacity, needs, most) for needs, _ in groups)
            estimate = self.planned.estimate
            progress.expect(None if estimate.unknown else estimate.lasting(expected))
            for needs, alike in groups:
                at_once = engine.trials_at_once(capacity, needs, most, len(alike))
                if bound := engine.memory_bound(capacity, needs, most, len(alike)):
                    self.console.say(bound)
                engine.run_jobs(alike, self._listener(tracker, progress), max_concurrent=at_once)

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
            tracker.start()  # not before: its imports would hold the start of the cluster up

        def word(key: str, said: Message) -> None:
            self._stop_if_told()
            if said.again:
                again(key, said.again)
            elif said.waits:
                self.console.say(f"{self.catalogue.name(key)}: {said.waits}")
            elif said.failed:
                kept = self._keep_traceback(key, said)
                self.failures[key] = said.failed + f" (traceback: {kept})" * bool(kept)
                progress.failed(key, self.catalogue.name(key), self.failures[key])
                tracker.update(self.catalogue.failed(key, said.failed, kept))
            elif said.done:
                self._drop_traceback(key)
                view = self.catalogue.finished(key)
                spent = max((result.provenance.get("seconds", 0.0) for result in view.results), default=0.0)
                spent += sum(result.provenance.get("measured_in_seconds", 0.0) for result in view.results)
                shown = self.metric(view)
                progress.finished(key, self.catalogue.name(key), f"{shown}  {duration(spent)}")
                tracker.update(view)
            else:
                progress.epoch(key, said.epoch, said.epochs)
                if said.measured is not None:
                    progress.relabelled(key, f"{self.catalogue.name(key)} measured to {said.measured:.0%}")
                if said.committed:
                    tracker.update(self.catalogue.committed(key, said.committed))

        def again(key: str, why: str) -> None:
            self.console.say(f"{self.catalogue.name(key)}: {why}; resuming from the last checkpoint")

        return engine.Listener(started, word, again)

    def _keep_traceback(self, key: str, said: Message) -> Place | None:
        """Writes it down and returns where; None where there is none, or no room for it."""
        if not said.details:
            return None
        path = self.store.traceback(key)
        try:
            path.write_bytes(f"{self.catalogue.name(key)}\n{said.failed}\n\n{said.details}\n".encode())
        except OSError:
            return None
        return path

    def _drop_traceback(self, key: str) -> None:
        with suppress(OSError):
            self.store.traceback(key).unlink()

    def metric(self, view: RunView) -> str:
        """What a trial's line shows of its numbers: of several of one kind, the range."""
        key, final = view.key, view.final
        own = [cell.quantity for cell, of in zip(self.planned.cells, self.planned.keys, strict=True) if of == key]
        if own[0]:
            return f"{own[0].rpartition('/')[2]} {shown_value(final[own[0]])}" if own[0] in final else "done"
        measures = self.planned.trials[key].measures
        quantity = measures[0].quantity
        values = sorted(final[m.metric] for m in measures if m.quantity == quantity and m.metric in final)
        if not values:
            return "done"
        shown = " to ".join(map(shown_value, [values[0], values[-1]][: len(values)]))
        return f"{quantity.rpartition('/')[2]} {shown}"

    def _stop_if_told(self) -> None:
        self.interruption.check()
        if self.lease.lost.is_set():
            raise Interrupted("the loss of the lease to another driver")

    def view(self, state: TrialState) -> SweepView:
        """The sweep as MLflow shows it."""
        return SweepView(
            name=self.sweep.name,
            state=state,
            title=self.sweep.title,
            source=self.sweep.table.source if self.sweep.table else self.sweep.source,
            command=command(),
            program=Path(sys.argv[0]).name,
            metrics=tuple(dict.fromkeys(cell.metric for cell in self.sweep.cells)),
            tags={
                "git": git_sha(),
                "dataset": self.options.dataset,
                "preset": self.options.preset,
                "plugins": {plugin.path.name: plugin.digest for plugin in plugins.loaded()} or None,
            },
            report=self.store.reports / self.sweep.name,
            started=self.started,
            ended=None if state is TrialState.RUNNING else time.time(),
        )


def report_on(
    sweep: Sweep, planned: Plan, store: Store, console: Console, failures: dict[str, str], links: dict[str, str]
) -> int:
    """Shows and writes the table of what is in storage; the exit code says whether it is complete.

    Args:
        failures: key to what went wrong in this command.
        links: key to MLflow run; those of an earlier report stay.
    """
    folder = store.reports / sweep.name
    links = known_links(folder) | links
    made = partial(tabulate, table=sweep.table, failures=failures, links=links, axis=sweep.axis, heading=sweep.heading)
    report = made(planned, store.results)
    report = replace(report, statements=(*sweep.facts, *sweep.statements(report)))
    details = made(planned.over(sweep.details), store.results) if sweep.details else None
    show(report, console.rich)
    if store.folder.exists():
        try:
            pictures = sweep.pictures(report, details) if sweep.pictures else None
            write(folder, report, details, pictures)
        except OSError as refused:
            console.say(f"The report is not written: {refused}")
            return INCOMPLETE
        console.say(f"Report: {folder}")
    return COMPLETE if report.complete else INCOMPLETE


def command() -> str:
    """What was typed, to be typed again; --fresh and --resume are dropped, since the next start is neither."""
    words = [word for word in sys.argv[1:] if word not in ("--fresh", "--resume")]
    return without_credentials(shlex.join([installed("python"), sys.argv[0], *words]))


def stopped_by(what: str) -> str:
    """The last line of a driver that was stopped."""
    return f"Stopped by {what}; what is finished stays. To go on: {command()}"


def _how_to_browse(uri: str) -> str:
    if uri.startswith("http"):
        here = urlsplit(uri).hostname in ("127.0.0.1", "localhost") and engine.address()
        return without_credentials(uri) + " of this machine (from yours: ray attach CLUSTER.yaml -p 5000)" * bool(here)
    return f"{installed('mlflow')} ui --backend-store-uri {shlex.quote(without_credentials(uri))}"
