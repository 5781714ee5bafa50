"""A sweep from the command to its exit code: the same call starts, resumes, extends and reports it.

What is done is read from storage, what is missing runs, and the table is made from storage again. Bad input is refused
with one line before anything starts or is written.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from mvae.data import (
    MissingFiles,
    facts_about,
    fingerprint,
    former_fingerprint,
    source,
    training_examples,
)
from mvae.data.dataset import check_train_examples
from mvae.home import ensure_home
from mvae.refusal import Refusal
from mvae.trial import Trial
from sweeps import engine
from sweeps.cli.console import Console
from sweeps.cli.options import CommonOptions
from sweeps.cli.output import outliving_readers
from sweeps.cli.signals import Interruption
from sweeps.cli.tracking_uri import place_of_artifacts, tracking_uri
from sweeps.cli.words import error
from sweeps.driver import BAD_INPUT, COMPLETE, INCOMPLETE, INTERRUPTED, command, stopped_by
from sweeps.grid import Grid
from sweeps.planning.plan import Fingerprints, plan, shape_of
from sweeps.planning.state import TrialState
from sweeps.store.lease import Lease
from sweeps.store.provenance import stale_package
from sweeps.store.store import Store
from sweeps.sweep import Sweep, Work
from sweeps.tracking.tracker import check

__all__ = ["BAD_INPUT", "COMPLETE", "INCOMPLETE", "INTERRUPTED", "main"]

READER_GONE = "Standard output was closed; the sweep continues without it"


def main(sweep: Callable[[], Sweep], options: CommonOptions) -> int:
    """Runs a sweep as the options say and returns the exit code; a user's mistake is one line on stderr.

    A user's mistake is a Refusal; any other exception is a bug of ours and keeps its traceback.

    Args:
        sweep: makes the cells; a Refusal in it is a user's mistake.
    """
    looks_only = options.plan or options.report
    with outliving_readers("" if looks_only else READER_GONE):
        console = Console()
        interruption = Interruption(console.stopping)
        if folder := ensure_home():
            console.say(f"This user has no home directory (HOME): {folder} stands in")
        try:
            with interruption, ExitStack() as held:
                return _checked(sweep(), options, console, interruption, held)()
        except Refusal as refusal:
            missing = looks_only and isinstance(refusal, MissingFiles)
            error(f"{refusal}" + "; --plan and --report download nothing" * missing)
            return BAD_INPUT
        except OSError as refused:
            error(f"stopped by the system: {refused}; what is finished stays, to go on: {command()}")
            return INCOMPLETE
        except KeyboardInterrupt as stop:
            console.say(stopped_by(interruption.heard or str(stop)))
            return INTERRUPTED


def _checked(
    sweep: Sweep, options: CommonOptions, console: Console, interruption: Interruption, held: ExitStack
) -> Callable[[], int]:
    """Everything that can be refused; returns the work that the options ask for, which gives the exit code.

    Args:
        held: keeps the lease, where the work needs it.
    Raises:
        Refusal: one line; nothing was started.
    """
    data_marks = _fingerprints(sweep, options)
    sweep = replace(sweep, facts=_facts(sweep, options))
    uri, looks_only = "", options.plan or options.report
    typed = "tracking_uri" in options.model_fields_set
    if typed or not looks_only:
        uri = tracking_uri(options.tracking_uri, "--tracking-uri" if typed else "$MLFLOW_TRACKING_URI")
    if not looks_only:
        place_of_artifacts(uri, options.storage)
    store = Store.open(options.storage, options.name, create=False)
    former = _former(data_marks, options, store)
    planned = plan(sweep.cells, store, data_marks, former=former)
    work: Work = sweep.search or Grid()
    sweep = replace(sweep, name=work.folder(sweep, planned, store, options))
    if options.resume and planned.count(TrialState.PENDING) == len(planned.trials):
        raise Refusal(
            f"nothing to resume: {store.folder} holds no result and no checkpoint of these cells;"
            " leave --resume out to start them"
        )
    if options.report and not store.folder.exists():
        raise Refusal(
            f"--report: the storage {store.folder} does not exist: give --storage and --name of trials that have run,"
            " or leave --report out to run them"
        )
    if options.fresh and store.folder.exists():
        raise Refusal(f"--fresh: {store.folder} exists already; choose a --name that does not, or leave --fresh out")
    if options.plan:
        return lambda: _plan(work, sweep, options, store, data_marks, former, console)
    if options.report:
        return lambda: work.report(sweep, planned, store, console)
    store.check_writable()
    check(uri, console.say)
    if stale := stale_package(Path(sys.argv[0])):
        console.say(stale)
    for line in planned.former_line:
        console.say(line)
    if work.left(planned):
        trials = [one.trial for one in planned.todo] or [cell.trial for cell in sweep.cells]
        shapes = [shape_of(trial) for trial in trials]
        wait = options.wait_for_nodes
        engine.check(shapes, options.gpus_per_trial, store, wait_minutes=wait, say=console.say)
        from mvae.data import load

        for name, grey in dict.fromkeys((trial.dataset, trial.needs_grey) for trial in trials):
            load(name, options.data_root, options.cache, grey=grey)
    Store.open(options.storage, options.name, create=True)
    lease = held.enter_context(Lease(store.folder, console.say))
    store.namespace()

    def drive() -> int:
        now = plan(sweep.cells, store, data_marks)  # another driver may have been at work up to now
        return work.drive(sweep, options, now, data_marks, store, uri, console, lease, interruption)

    return drive


def _fingerprints(sweep: Sweep, options: CommonOptions) -> dict[str, str]:
    """Of the cells' data sets, by name.

    Raises:
        Refusal: raw files are missing or damaged; a trial wants more training examples than there are.
    """
    trials = dict.fromkeys(cell.trial for cell in sweep.cells)
    names = dict.fromkeys(trial.dataset for trial in trials)
    marks = {name: fingerprint(name, options.data_root, options.cache) for name in names}
    for trial in trials:
        if trial.train_examples is not None:
            there = training_examples(trial.dataset, options.data_root)
            check_train_examples(trial.train_examples, there, trial.dataset)
    return marks


def _facts(sweep: Sweep, options: CommonOptions) -> tuple[str, ...]:
    """Lines for the user about the cells' data sets."""
    wanted = dict.fromkeys((cell.trial.dataset, cell.trial.vocabulary) for cell in sweep.cells)
    return tuple(line for name, words in wanted for line in facts_about(name, options.data_root, words))


def _former(now: Mapping[str, str], options: CommonOptions, store: Store) -> dict[str, str]:
    """Fingerprints that earlier releases gave to data sets whose fingerprint has changed, by name; none for an empty
    store."""
    able_to_change = [name for name in now if source(name).former_digest is not None]
    if not able_to_change or not store.results.keys():
        return {}
    marks = {name: former_fingerprint(name, options.data_root) for name in able_to_change}
    return {name: mark for name, mark in marks.items() if mark is not None and mark != now[name]}


def _plan(
    work: Work,
    sweep: Sweep,
    options: CommonOptions,
    store: Store,
    data_marks: Fingerprints,
    former: Mapping[str, str],
    console: Console,
) -> int:
    for line in (*sweep.facts, *sweep.remarks):
        console.say(line)
    host = engine.this_host(options.gpus_per_trial)

    def timed(trial: Trial) -> float | None:
        from sweeps.planning.probe import probed_seconds

        with Console(sys.stderr).busy(f"Timing a few steps of {trial.model} on {trial.dataset}"):
            return probed_seconds(trial, data_marks, options.cache, host.kind)

    look_up = partial(plan, store=store, fingerprints=data_marks, probe=timed, device=host.device, former=former)
    return work.show_plan(look_up, sweep, options, host, console)
