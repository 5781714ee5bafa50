"""Runs a sweep and returns the exit code. The same command starts, resumes, extends and reports a sweep.

Reads finished results from storage, runs the missing trials, and makes the table from storage. Refuses bad input with a
one-line message before anything is started or written.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from mvae.data import (
    DATASETS,
    MissingFiles,
    default_cache,
    facts_about,
    fingerprint,
    former_fingerprint,
    is_converted,
    source,
    training_examples,
)
from mvae.data.dataset import check_train_examples
from mvae.home import ensure_home
from mvae.measure import Measure
from mvae.refusal import Refusal
from mvae.storage.files import remedy
from mvae.trial import Trial
from sweeps import engine
from sweeps.cli.console import Console
from sweeps.cli.data_lines import preparing, shown
from sweeps.cli.options import CommonOptions
from sweeps.cli.output import outliving_readers
from sweeps.cli.programs import (
    BAD_INPUT,
    COMPLETE,
    INCOMPLETE,
    INTERRUPTED,
    OUT_OF_HOURS,
    command,
    stopped_by,
)
from sweeps.cli.signals import Interruption
from sweeps.cli.tracking_uri import place_of_artifacts, tracking_uri
from sweeps.cli.words import error
from sweeps.grid import Grid
from sweeps.planning.kept import kept
from sweeps.planning.plan import Fingerprints, plan, shape_of
from sweeps.planning.state import TrialState
from sweeps.planning.times import Probed
from sweeps.store.lease import Lease
from sweeps.store.provenance import device_name, source_digest, stale_package, versions
from sweeps.store.store import Store
from sweeps.sweep import Sweep, Work
from sweeps.tracking.server import check

__all__ = ["BAD_INPUT", "COMPLETE", "INCOMPLETE", "INTERRUPTED", "OUT_OF_HOURS", "main"]


def main(sweep: Callable[[], Sweep], options: CommonOptions) -> int:
    """Runs a sweep with the given options and returns the exit code.

    For a Refusal (a mistake of the user), prints one line. For an OSError or KeyboardInterrupt, prints one line with
    the command that resumes the sweep. Any other exception is a bug and is not caught, so Python prints a traceback.

    Args:
        sweep: builds the sweep; may raise Refusal for a user's mistake.
    """
    looks_only = options.plan or options.report
    with outliving_readers("" if looks_only else "Standard output was closed; the sweep continues without it"):
        console = Console()
        interruption = Interruption(console.stopping, None if looks_only else options.max_hours)
        if folder := ensure_home():
            console.say(f"This user has no home directory (HOME): using {folder} instead")
        try:
            with interruption, ExitStack() as held:
                return _checked_work(sweep(), options, console, interruption, held)()
        except Refusal as refusal:
            missing = looks_only and isinstance(refusal, MissingFiles)
            error(f"{refusal}" + _downloads_nothing(options) * missing)
            return BAD_INPUT
        except OSError as failure:
            why = f"{failure}{remedy(failure)}"
            error(f"stopped by a system error: {why}; finished trials are kept. To resume: {command()}")
            return INCOMPLETE
        except KeyboardInterrupt as stop:
            console.say(stopped_by(interruption.heard or str(stop)))
            return OUT_OF_HOURS if interruption.out_of_hours else INTERRUPTED


def _checked_work(
    sweep: Sweep, options: CommonOptions, console: Console, interruption: Interruption, held: ExitStack
) -> Callable[[], int]:
    """Checks for mistakes of the user. Returns a function that runs the sweep and returns the exit code.

    Args:
        held: stack that keeps the lease while the command runs.
    Raises:
        Refusal: a user's mistake; nothing was started.
    """
    with nullcontext() if options.plan or options.report else shown(console.say):
        data_marks = _fingerprints(sweep, options)
    sweep = replace(sweep, facts=_facts_about_data(sweep, options))
    uri, looks_only = "", options.plan or options.report
    typed = "tracking_uri" in options.model_fields_set
    if typed or not looks_only:
        uri = tracking_uri(options.tracking_uri, "--tracking-uri" if typed else "$MLFLOW_TRACKING_URI")
    if not looks_only:
        place_of_artifacts(uri, options.storage)
    store = Store.open(options.storage, options.name, create=False)
    former = _former_fingerprints(data_marks, options, store)
    planned = plan(sweep.cells, store, data_marks, former=former)
    work: Work = sweep.search or Grid()
    sweep = replace(sweep, name=work.folder(sweep, planned, store, options))
    if options.resume and planned.count(TrialState.PENDING) == len(planned.trials):
        raise Refusal(
            f"nothing to resume: {store.folder} has no result and no checkpoint of these cells;"
            " run the command without --resume"
        )
    if options.report and not store.folder.exists():
        raise Refusal(
            f"--report: the storage {store.folder} does not exist: give the --storage and --name of trials that have"
            " run, or leave out --report to run this command's trials"
        )
    if options.fresh and store.folder.exists():
        raise Refusal(f"--fresh: {store.folder} already exists; choose a new --name, or continue without --fresh")
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
        engine.check(
            [shape_of(trial) for trial in trials],
            options.gpus_per_trial,
            store,
            wait_minutes=options.wait_for_nodes,
            say=console.say,
        )
        for name, grey in dict.fromkeys((trial.dataset, trial.needs_grey) for trial in trials):
            if grey or not is_converted(name, options.data_root, options.cache):
                console.say(preparing(name))
                from mvae.data import load  # only now, because it imports torch

                with shown(console.say):
                    load(name, options.data_root, options.cache, grey=grey)
    Store.open(options.storage, options.name, create=True)
    lease = held.enter_context(Lease(store.folder, console.say))
    store.namespace()

    def drive() -> int:
        latest = plan(sweep.cells, store, data_marks)  # another driver may have added results before we got the lease
        return work.drive(sweep, options, latest, data_marks, store, uri, console, lease, interruption)

    return drive


def _downloads_nothing(options: CommonOptions) -> str:
    """Returns the end of the message about missing files. Names the command that downloads them, if there is one."""
    name, given = options.dataset, "data_root" in options.model_fields_set
    possible = name in DATASETS and source(name).download is not None and not given
    return "; --plan and --report download nothing" + f". To download the files: mvae prepare {name}" * possible


def _fingerprints(sweep: Sweep, options: CommonOptions) -> dict[str, str]:
    """Maps the name of each data set in the cells to its fingerprint.

    Raises:
        Refusal: raw files are missing or damaged, or a trial wants more training examples than the data set has.
    """
    trials = dict.fromkeys(cell.trial for cell in sweep.cells)
    names = dict.fromkeys(trial.dataset for trial in trials)
    marks = {name: fingerprint(name, options.data_root, options.cache) for name in names}
    for trial in trials:
        if trial.train_examples is not None:
            available = training_examples(trial.dataset, options.data_root)
            check_train_examples(trial.train_examples, available, trial.dataset)
    return marks


def _facts_about_data(sweep: Sweep, options: CommonOptions) -> tuple[str, ...]:
    wanted = dict.fromkeys((cell.trial.dataset, cell.trial.vocabulary) for cell in sweep.cells)
    return tuple(line for name, words in wanted for line in facts_about(name, options.data_root, words))


def _former_fingerprints(now: Mapping[str, str], options: CommonOptions, store: Store) -> dict[str, str]:
    """Maps each data set to its fingerprint in earlier releases, if the fingerprint has changed since.

    The map is empty if no result is stored.

    Results stored under these fingerprints are reported to the user but never read.
    """
    candidates = [name for name in now if source(name).former_digest is not None]
    if not candidates or not store.results.keys():
        return {}
    marks = {name: former_fingerprint(name, options.data_root) for name in candidates}
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
    host = engine.host_now(options.gpus_per_trial, None)

    def probe(trial: Trial, measures: Sequence[Measure]) -> Probed | None:
        from sweeps.planning.probe import probed

        with Console(sys.stderr).busy(f"Timing a few steps of {trial.model} on {trial.dataset}"):
            return probed(trial, measures, data_marks, options.data_root, options.cache, host.kind)

    def about() -> dict[str, str]:
        return {**versions(), "code": source_digest(), "kind": host.kind, "device": host.device or device_name("cpu")}

    remembering = kept(probe, options.cache or default_cache(), data_marks, about)
    look_up = partial(plan, store=store, fingerprints=data_marks, probe=remembering, device=host.device, former=former)
    return work.show_plan(look_up, sweep, options, host, console)
