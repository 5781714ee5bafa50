"""A sweep from the command to its exit code: the same call starts, resumes, extends and reports it.

What is done is read from storage, what is missing runs, and the table is made from storage again. Bad input is refused
with one line before anything starts or is written.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from mvae import plugins
from mvae.data import MissingFiles, fingerprint, load, training_examples
from mvae.data.dataset import check_train_examples
from mvae.files import remove_tree, write_atomically
from mvae.remote import Place, each
from mvae.trial import Measure, Trial
from sweeps import engine
from sweeps.catalogue import Catalogue
from sweeps.console import Console, Progress, counted, duration, error
from sweeps.cost import Machine, costs, this_machine
from sweeps.interruption import Interrupted, Interruption
from sweeps.lease import Lease
from sweeps.options import CommonOptions
from sweeps.plan import Cell, Fingerprints, Plan, State, kind_of, plan, shape_of
from sweeps.probe import Probe
from sweeps.provenance import git_sha, stale_package
from sweeps.rendering import show_plan
from sweeps.report import Pictures, Report, known_links, own_name, show, tabulate, write
from sweeps.scratch import remove_folders_of_the_dead
from sweeps.storage import Store
from sweeps.tables import Table
from sweeps.tracker import Tracker, check, place_of_artifacts, shown, tracking_uri
from sweeps.view import Status, SweepView
from sweeps.worker import Job, Word

COMPLETE, INCOMPLETE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes of every pipeline."""

LookUp = Callable[[Sequence[Cell]], Plan]
"""Looks cells up in storage, with what they will cost."""

PATIENTLY, BRIEFLY = 60.0, 15.0
"""Seconds without progress that MLflow gets to catch up at the end; few where the user waits for a sweep to stop."""


@dataclass(frozen=True)
class Sweep:
    """What a pipeline asks for: the cells of a table, and how they are shown."""

    name: str
    """A simple token, unique among the sweeps of a storage name: weak_supervision-digits."""
    title: str
    """One line: what is computed."""
    cells: tuple[Cell, ...]
    table: Table | None = None
    """The published table that the cells stand beside."""
    axis: str = ""
    """What the columns are; empty: as the published table says, or paired fractions."""
    heading: str = ""
    """Title of the table, where none is published; empty: as the data set, metric and axis say."""
    source: str = ""
    """What is reproduced, where it is no table: supplement, section 6, Figure 5."""
    statements: Callable[[Report], tuple[str, ...]] = lambda _: ()
    """What the numbers say, as lines below the table."""
    details: tuple[Cell, ...] = ()
    """A second table of the same trials and measures: written beside the first, not printed."""
    speeds: bool = False
    """Measure what the workers of a trial gain."""
    pictures: Callable[[Report, Report | None], Pictures] | None = None
    """Makes the report's pictures of the table and of the details; None: the one that every table has."""
    search: Searching | None = None
    """What is searched, where the cells are not all known at the start."""


class Searching(Protocol):
    """A search, as `main` sees it (sweeps/searching.py)."""

    @property
    def left(self) -> int:
        """Trials that are still to be run."""
        ...

    def plan(self, options: CommonOptions, look_up: LookUp, machine: Machine, console: Console) -> int:
        """Prints what is done and what the rest will cost; the exit code."""
        ...

    def report(self, store: Store, links: dict[str, str], console: Console) -> int:
        """Prints and writes the table; the exit code."""
        ...

    def driver(self) -> type[Driver]:
        """What runs it."""
        ...


def main(sweep: Callable[[], Sweep], options: CommonOptions) -> int:
    """Runs a sweep as the options say and returns the exit code; a user's mistake is one line on stderr.

    A user's mistake is a ValueError up to the moment at which the lease is taken; one that is raised later is ours,
    and passes through with its traceback.

    Args:
        sweep: makes the cells; a ValueError in it is a user's mistake.
    """
    console, interruption = Console(), Interruption()
    try:
        with interruption, ExitStack() as held:
            try:
                work = _checked(sweep(), options, console, interruption, held)
            except ValueError as refusal:
                looks_only = isinstance(refusal, MissingFiles) and (options.plan or options.report)
                error(f"{refusal}" + "; --plan and --report download nothing" * looks_only)
                return BAD_INPUT
            return work()
    except OSError as refused:
        error(f"stopped by the system: {refused}; what is finished stays, to go on: {_command()}")
        return INCOMPLETE
    except KeyboardInterrupt as stop:
        console.say(_stopped_by(interruption.heard or str(stop)))
        return INTERRUPTED


def _checked(
    sweep: Sweep, options: CommonOptions, console: Console, interruption: Interruption, held: ExitStack
) -> Callable[[], int]:
    """Everything that can be refused; returns the work that the options ask for, which gives the exit code.

    Args:
        held: keeps the lease, where the work needs it.
    Raises:
        ValueError: one line; nothing was started.
    """
    data_marks = _fingerprints(sweep, options)
    uri = tracking_uri(options.tracking_uri)
    if not (options.plan or options.report):
        place_of_artifacts(uri, options.storage)
    store = Store.open(options.storage, options.name, create=False)
    planned = plan(sweep.cells, store, data_marks)
    wanted = ((key, cell.measure.token) for key, cell in zip(planned.keys, planned.cells, strict=True))
    if sweep.search is None:
        sweep = replace(sweep, name=own_name(store.reports, sweep.name, wanted))
    if options.resume and planned.count(State.DONE) + planned.count(State.PARTIAL) == 0:
        raise ValueError(
            f"nothing to resume: {store.folder} holds no result and no checkpoint of these cells;"
            " leave --resume out to start them"
        )
    if options.fresh and store.folder.exists():
        raise ValueError(f"--fresh: {store.folder} exists already; choose a --name that does not, or leave --fresh out")
    if options.plan:
        return lambda: _plan(sweep, options, store, data_marks, console)
    if options.report and sweep.search is not None:
        links = known_links(store.reports / sweep.name)
        return partial(sweep.search.report, store, links, console)
    if options.report:
        return lambda: _report(sweep, planned, store, console, {}, known_links(store.reports / sweep.name))
    store.check_writable()
    check(uri)
    if stale := stale_package(Path(sys.argv[0])):
        console.say(stale)
    if planned.todo if sweep.search is None else sweep.search.left:
        trials = [trial for _, trial, _ in planned.todo] or [cell.trial for cell in sweep.cells]
        shapes = [shape_of(trial) for trial in trials]
        wait = options.wait_for_nodes
        engine.check(shapes, options.gpus_per_trial, store, wait_minutes=wait, say=console.say)
        for name in dict.fromkeys(trial.dataset for trial in trials):
            load(name, options.data_root, options.cache)
    Store.open(options.storage, options.name, create=True)
    lease = held.enter_context(Lease(store.folder, console.say))
    store.namespace()

    def drive() -> int:
        now = plan(sweep.cells, store, data_marks)  # another driver may have been at work up to now
        driver = Driver if sweep.search is None else sweep.search.driver()
        return driver(sweep, options, now, data_marks, store, uri, console, lease, interruption).run()

    return drive


def _fingerprints(sweep: Sweep, options: CommonOptions) -> dict[str, str]:
    """Of the cells' data sets, by name.

    Raises:
        ValueError: raw files are missing or damaged; a trial wants more training examples than there are.
    """
    trials = dict.fromkeys(cell.trial for cell in sweep.cells)
    marks = {name: fingerprint(name, options.data_root) for name in dict.fromkeys(trial.dataset for trial in trials)}
    for trial in trials:
        if trial.train_examples is not None:
            there = training_examples(trial.dataset, options.data_root)
            check_train_examples(trial.train_examples, there, trial.dataset)
    return marks


def _plan(sweep: Sweep, options: CommonOptions, store: Store, data_marks: Fingerprints, console: Console) -> int:
    machine = this_machine(options.gpus_per_trial)
    probe = Probe(data_marks, options.cache, machine.kind)
    look_up = partial(plan, store=store, fingerprints=data_marks, probe=probe, device=machine.device)
    if sweep.search is not None:
        return sweep.search.plan(options, look_up, machine, console)
    planned = look_up(sweep.cells)
    show_plan(planned, console.rich, options.max_concurrent, costs(planned.estimate, machine, options))
    return COMPLETE


def _report(
    sweep: Sweep,
    planned: Plan,
    store: Store,
    console: Console,
    failures: dict[str, str],
    links: dict[str, str] | None = None,
) -> int:
    made = partial(tabulate, table=sweep.table, failures=failures, links=links, axis=sweep.axis, heading=sweep.heading)
    report = made(planned, store.results)
    report = replace(report, statements=sweep.statements(report))
    details = made(planned.over(sweep.details), store.results) if sweep.details else None
    show(report, console.rich)
    if store.folder.exists():
        try:
            pictures = sweep.pictures(report, details) if sweep.pictures else None
            write(store.reports / sweep.name, report, details, pictures)
        except OSError as refused:
            console.say(f"The report is not written: {refused}")
            return INCOMPLETE
        console.say(f"Report: {store.reports / sweep.name}")
    return COMPLETE if report.complete else INCOMPLETE


@dataclass
class Driver:
    """One driver at work, under the lease: trials run, MLflow follows, the table comes last."""

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
        self._correct_views()
        self.console.header(f"{self.sweep.title}: {self._what_there_is()}")
        if changed := self.catalogue.made_by_others():
            self.console.say(changed)
        tracker = Tracker(
            self.uri,
            namespace=self.store.namespace(),
            experiment=self.store.name,
            sweep=self._view(Status.RUNNING),
            artifacts=place_of_artifacts(self.uri, self.store.root),
            load_model=self.catalogue.load_model,
            say=self.console.say,
        )
        for key in self.planned.trials:
            tracker.update(self.catalogue.view(key))
        code = INCOMPLETE
        try:
            if self._unfinished:
                self._train(tracker)
            tracker.start()
            code = self._report(known_links(self.store.reports / self.sweep.name) | tracker.links(BRIEFLY))
        except KeyboardInterrupt as stop:
            code = INTERRUPTED
            self.console.say(_stopped_by(self.interruption.heard or str(stop)))
        finally:
            if self.lease.lost.is_set():  # MLflow has another writer now
                tracker.give_up()
            else:
                status = {COMPLETE: Status.FINISHED, INTERRUPTED: Status.KILLED}.get(code, Status.FAILED)
                tracker.start()
                tracker.update_sweep(self._view(status))
                tracker.close(BRIEFLY if code == INTERRUPTED else PATIENTLY)
        self.console.say(f"Browse: {_how_to_browse(self.uri)}")
        return code

    def _correct_views(self) -> None:
        """Puts into the catalogue what storage alone does not say."""

    def _what_there_is(self) -> str:
        """How many trials, and what of them is done already, in words."""
        done = self.planned.count(State.DONE)
        partial = self.planned.count(State.PARTIAL)
        kept = f", {done} done" * bool(done) + f", {partial} half done" * bool(partial)
        return f"{counted(len(self.planned.trials), 'trial')}{kept}"

    @property
    def _unfinished(self) -> bool:
        return bool(self.planned.todo)

    def _report(self, links: dict[str, str]) -> int:
        return _report(self.sweep, self.planned, self.store, self.console, self.failures, links)

    def _tidy(self) -> None:
        """Finishes what killed processes left undone: temporary folders, and all but the final weights of a result."""
        remove_folders_of_the_dead()

        def tidy(key: str) -> None:
            self._drop_traceback(key)
            with suppress(OSError):
                remove_tree(self.store.measuring(key))
            checkpoints = self.store.checkpoints(key)
            newest = checkpoints.latest(digests=False)
            if newest is not None and not newest.final:
                checkpoints.keep_final_weights()

        each(tidy, [key for key, one in self.planned.trials.items() if one.state is State.DONE], self.store.root)

    def _keep_plugins(self) -> None:
        """The plug-ins as they are, beside the results that name their digests: no commit of ours holds them."""
        for plugin in plugins.loaded():
            kept = self.store.plugin(plugin.path.name, plugin.digest)
            if not kept.exists():
                write_atomically(kept, plugin.content)

    def _train(self, tracker: Tracker) -> None:
        todo = [self.planned.trials[key] for key, _, _ in self.planned.todo]
        work = {planned.key: float(planned.trial.epochs) for planned in todo}
        before = {planned.key: planned.epoch / planned.trial.epochs for planned in todo}
        kinds = {planned.key: " ".join(kind_of(planned.trial.model_dump()) or ()) for planned in todo}
        with ExitStack() as stack:
            progress = stack.enter_context(self.console.progress(work, before, kinds))
            capacity = stack.enter_context(engine.cluster())
            jobs = [self._job(planned.key, planned.trial, planned.missing, capacity) for planned in todo]
            most, groups = self.options.max_concurrent, list(engine.alike(jobs))
            expected = max(engine.trials_at_once(capacity, needs, most) for needs, _ in groups)
            progress.expect(self.planned.estimate.seconds / expected or None)
            for needs, alike in groups:
                at_once = engine.trials_at_once(capacity, needs, most, len(alike))
                engine.run_jobs(alike, self._listener(tracker, progress), max_concurrent=at_once)

    def _job(self, key: str, trial: Trial, measures: tuple[Measure, ...], capacity: engine.Capacity) -> Job:
        return Job(
            key=key,
            trial=trial,
            measures=measures,
            store=self.store,
            data_root=self.options.data_root,
            cache=self.options.cache,
            gpus=engine.demand(*shape_of(trial), self.options.gpus_per_trial, capacity).gpus,
            checkpoint_every=self.options.checkpoint_every,
            git=git_sha(),
            namespace=self.store.namespace(),
            speeds=self.sweep.speeds,
        )

    def _listener(self, tracker: Tracker, progress: Progress) -> engine.Listener:
        def started(key: str) -> None:
            self._stop_if_told()
            progress.started(key, self.catalogue.name(key))
            tracker.update(self.catalogue.running(key))
            tracker.start()  # not before: its imports would hold the start of the cluster up

        def word(key: str, said: Word) -> None:
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
                shown = self._metric(key, view.final)
                progress.finished(key, self.catalogue.name(key), f"{shown}  {duration(spent)}")
                tracker.update(view)
            else:
                progress.epoch(key, said.epoch, said.epochs)
                if said.measured is not None:
                    progress.relabelled(key, f"{self.catalogue.name(key)} measured to {said.measured:.0%}")
                if said.committed:
                    tracker.update(self.catalogue.committed(key, said.committed))

        def again(key: str, why: str) -> None:
            self.console.say(f"{self.catalogue.name(key)}: {why}, it goes on from its last checkpoint")

        return engine.Listener(started, word, again)

    def _keep_traceback(self, key: str, said: Word) -> Place | None:
        """Writes it down and returns where; None where there is none, or no room for it."""
        if not said.details:
            return None
        path = self.store.traceback(key)
        try:
            write_atomically(path, f"{self.catalogue.name(key)}\n{said.failed}\n\n{said.details}\n".encode())
        except OSError:
            return None
        return path

    def _drop_traceback(self, key: str) -> None:
        with suppress(OSError):
            self.store.traceback(key).unlink()

    def _metric(self, key: str, final: dict[str, float]) -> str:
        """What a trial's line shows of its numbers: of several of one kind, the range."""
        own = [cell.quantity for cell, of in zip(self.planned.cells, self.planned.keys, strict=True) if of == key]
        if own[0]:
            return f"{own[0].rpartition('/')[2]} {final[own[0]]:.4f}" if own[0] in final else "done"
        measures = self.planned.trials[key].measures
        quantity = measures[0].quantity
        values = sorted(final[m.metric] for m in measures if m.quantity == quantity and m.metric in final)
        if not values:
            return "done"
        shown = f"{values[0]:.4f}" + f" to {values[-1]:.4f}" * (len(values) > 1)
        return f"{quantity.rpartition('/')[2]} {shown}"

    def _stop_if_told(self) -> None:
        self.interruption.check()
        if self.lease.lost.is_set():
            raise Interrupted("the loss of the lease to another driver")

    def _view(self, status: Status) -> SweepView:
        return SweepView(
            name=self.sweep.name,
            status=status,
            title=self.sweep.title,
            source=self.sweep.table.source if self.sweep.table else self.sweep.source,
            command=_command(),
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
            ended=None if status is Status.RUNNING else time.time(),
        )


def _command() -> str:
    """What was typed, to be typed again; --fresh and --resume are dropped, since the next start is neither."""
    words = [word for word in sys.argv[1:] if word not in ("--fresh", "--resume")]
    return shown(shlex.join([_installed("python"), sys.argv[0], *words]))


def _installed(program: str) -> str:
    """How a program of this environment is called here: by its name where that finds it, else by its path."""
    ours = Path(sys.executable).with_name(program)
    found = shutil.which(program)
    if not ours.exists() or (found and Path(found).absolute().parent == ours.parent):
        return program
    return str(ours.relative_to(Path.cwd())) if ours.is_relative_to(Path.cwd()) else str(ours)


def _stopped_by(what: str) -> str:
    return f"Stopped by {what}; what is finished stays. To go on: {_command()}"


def _how_to_browse(uri: str) -> str:
    if uri.startswith("http"):
        here = urlsplit(uri).hostname in ("127.0.0.1", "localhost") and engine.address()
        return shown(uri) + " of this machine (from yours: ray attach CLUSTER.yaml -p 5000)" * bool(here)
    return f"{_installed('mlflow')} ui --backend-store-uri {shlex.quote(shown(uri))}"
