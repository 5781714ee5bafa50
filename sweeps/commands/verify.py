"""`mvae verify N`: runs N finished trials again on this machine, and compares every number with the stored number.

A difference is an error only if the stored numbers were made with the same device type, processor, torch and plug-ins.
Otherwise small differences are normal: the command prints them, and the exit code stays 0.
"""

from collections.abc import Sequence

from mvae.refusal import Refusal
from sweeps.cli.console import Console
from sweeps.cli.signals import Interruption
from sweeps.cli.words import counted
from sweeps.commands.again import Candidates, Finished, Outcome, run_again
from sweeps.commands.options import Parser, existing_store, load_plugins, whole
from sweeps.store.scratch import remove_folders_of_the_dead, scratch
from sweeps.store.store import Store

ABOUT = """Runs N finished trials of a storage again, one after the other, in a temporary storage. Compares every metric
bit for bit. A difference is an error (exit code 1) if the stored numbers were made on the same device type and
processor with the same torch. Other differences are only printed. Writes nothing to the storage."""


def parser() -> Parser:
    """Returns the parser of `mvae verify`."""
    made = Parser("verify", "N", ABOUT)
    made.add_argument("number", metavar="N", type=whole(1), help="Number of trials to run again.")
    made.add_argument(
        "--seed", metavar="N", type=whole(0), default=0, help="Seed of the random choice of trials (default: 0)."
    )
    made.where()
    made.data()
    return made


def main(typed: Sequence[str]) -> int:
    """Verifies trials, and returns the exit code.

    Returns:
        1 if a trial fails, was altered, or gives different numbers on the same kind of machine; otherwise 0.
    Raises:
        Refusal: the storage does not exist, no trial can run again here, or raw files are missing.
    """
    chosen = parser().parse_args(typed)
    load_plugins(chosen.plugins)
    store, console = existing_store(chosen), Console()
    remove_folders_of_the_dead()
    candidates = Candidates(store, chosen.data_root, chosen.cache)
    wrong, done, started = [], 0, 0
    interruption = Interruption(lambda by: console.say(f"Stopping after {by}"))
    console.say(f"Running {counted(chosen.number, 'trial')} of {store.folder} again; expect the same time as before")
    with interruption, scratch("verify") as folder:
        again = Store.open(folder, "again", create=True)
        for one in candidates.choose(chosen.number, chosen.seed):
            started += 1
            with console.busy(f"Running {one.name}"):
                outcome = run_again(one, again, chosen.data_root, chosen.cache, lambda _: interruption.check())
            line, is_wrong = _judged(one, outcome)
            console.say(f"[{started}/{chosen.number}] {one.name}: {line}")
            done += not outcome.failed
            if is_wrong:
                wrong.append(one.name)
    for key, why in candidates.altered.items():
        console.say(f"{key}: ALTERED: {why}")
        wrong.append(key)
    for key, why in candidates.passed.items():
        console.say(f"{key}: not chosen: {why}")
    if not started and not candidates.altered:
        raise Refusal(f"{store.folder} has no finished trial that can run again here: choose another --name")
    if (most := started + len(candidates.altered)) < chosen.number:
        console.say(f"only {counted(most, 'trial')} can be verified")
    if wrong:
        console.say(f"{len(wrong)} of {counted(most, 'trial')} did not match the storage: " + "; ".join(wrong))
        return 1
    console.say(f"{counted(done, 'trial')} verified")
    return 0


def _judged(one: Finished, outcome: Outcome) -> tuple[str, bool]:
    """Returns what to print about one trial, and whether its result is wrong."""
    if outcome.here is None:
        return f"did not finish: {outcome.failed}", True
    if not outcome.differs:
        return f"equal bits, {counted(len(one.results), 'measure')}", False
    if one.made_on == {outcome.here} and outcome.here.cpu:
        return f"DIFFERS, although made on the same {outcome.here}: {outcome.differs}", True
    there = "; ".join(sorted(map(str, one.made_on))) or "unknown"
    return f"differs, made on {there} and run on {outcome.here}: {outcome.differs}", False
