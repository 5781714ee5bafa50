"""`mvae rm SWEEP`: deletes the trials that only this sweep uses, their files and MLflow runs, and a search's study.

Takes the lease, lists what it will delete, asks, and deletes. If the command is killed, type it again to delete
the rest.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from mvae.refusal import Refusal
from sweeps.cli.console import Console
from sweeps.cli.programs import INTERRUPTED
from sweeps.cli.signals import Interruption
from sweeps.cli.tracking_uri import place_of_artifacts, without_credentials
from sweeps.cli.values import token
from sweeps.cli.words import counted, error, size
from sweeps.commands.options import Parser, existing_store, mlflow_of, read_as
from sweeps.commands.removal import Own, check_links, own
from sweeps.store.lease import Lease
from sweeps.tracking.server import check

ABOUT = """Deletes a sweep: its report, and the results, checkpoints, artifacts and MLflow runs of the trials that no
other sweep uses. Lists files and bytes first, then asks. Keeps trials that another sweep uses, and trials of sweeps
that an earlier release made. `mvae ls` lists the sweeps. If the command is killed, type it again."""


class MlflowFailed(OSError):
    """MLflow could not be read or written. The message is one line."""


def parser() -> Parser:
    """Returns the parser of `mvae rm`."""
    made = Parser("rm", "SWEEP", ABOUT)
    made.add_argument("sweep", metavar="SWEEP", type=read_as(token), help="Name of a sweep, as `mvae ls` shows it.")
    made.where()
    made.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="MLflow server or database (default: $MLFLOW_TRACKING_URI, else a database in the storage).",
    )
    made.add_argument(
        "--study-uri",
        metavar="URI",
        help="Database of a search's study, needed if its URI has a password (default: the URI in the sweep's list).",
    )
    made.add_argument("--yes", action="store_true", help="Delete without asking.")
    return made


def main(typed: Sequence[str]) -> int:
    """Deletes a sweep and returns 0. Returns 1 if the user declines, and 130 after Ctrl-C.

    Raises:
        Refusal: the sweep cannot be deleted. Nothing was deleted.
        OSError: something could not be deleted; the same command deletes the rest.
    """
    chosen = parser().parse_args(typed)
    store, console = existing_store(chosen), Console()
    uri = mlflow_of(chosen, store)
    place_of_artifacts(uri, store.root)
    if not chosen.yes and not sys.stdin.isatty():
        raise Refusal("mvae rm asks before it deletes, but this is not a terminal: give --yes")
    check_links(store)
    check(uri, console.say)
    console.say(f"Looking up {chosen.sweep} in storage and in MLflow, which usually takes a few seconds")
    interruption = Interruption(lambda by: console.say(f"Stopping after {by}"))
    with interruption, Lease(store.folder, console.say) as lease:

        def still_ours() -> None:
            interruption.check()
            if lease.lost.is_set():
                raise OSError("another driver took over the lease; type the same command again to delete the rest")

        found = own(store, chosen.sweep)
        removal = _Everything(found, uri, chosen.study_uri or found.study)
        if chosen.yes and not chosen.tracking_uri:
            removal.refuse_to_leave_runs()
        for line in removal.lines():
            console.say(line)
        if not chosen.yes and not _agreed(found.listed.sweep):
            console.say("Nothing was deleted")
            return 1
        try:
            removal.delete(still_ours)
        except KeyboardInterrupt:
            error("interrupted; type the same command again to delete the rest")
            return INTERRUPTED
        for where in removal.left:
            error(f"not deleted, because it is outside the storage: {where}")
    console.say(f"Deleted sweep {found.listed.sweep}")
    return 0


class _Everything:
    """Everything that only one sweep uses, in storage, in MLflow and in a search's study."""

    def __init__(self, found: Own, uri: str, study: str) -> None:
        self._own, self._uri, self._study = found, uri, study
        self.left: list[str] = []
        namespace = found.store.folder / "namespace"
        self._mlflow = None
        if namespace.exists():
            with _one_line(uri):
                from sweeps.tracking.mirror import Removal  # only now, because the import takes two seconds

                self._mlflow = Removal(
                    uri,
                    found.store.namespace(),
                    found.store.name,
                    place_of_artifacts(uri, found.store.root),
                    found.listed.sweep,
                    found.keys,
                    found.others,
                )

    def lines(self) -> list[str]:
        """Returns lines about what `delete` will delete and what it will keep."""
        own_keys, shared = self._own.keys, self._own.used_by_others
        taken = [part.taken() for parts in (self._own.parts_of_trials, self._own.parts_of_sweep) for part in parts()]
        files, number = sum(one for one, _ in taken), sum(one for _, one in taken)
        found = [
            f"Sweep {self._own.listed.sweep} ({self._own.listed.title}) in {self._own.store.folder}:",
            f"  {counted(len(own_keys), 'trial')} to delete, {size(number)} in {counted(files, 'file')}",
        ]
        if shared:
            found.append(f"  {counted(len(shared), 'trial')} stay, because other sweeps use them")
        if self._mlflow is not None:
            with _one_line(self._uri):
                runs = self._mlflow.runs()
            found.append(f"  {counted(runs, 'run')} to delete in MLflow, {without_credentials(self._uri)}")
        if elsewhere := self._shown_elsewhere():
            found.append(f"  the runs in MLflow at {elsewhere} stay, unless you give --tracking-uri {elsewhere}")
        if self._study:
            found.append(f"  the search's study in {without_credentials(self._study)}")
        return found

    def refuse_to_leave_runs(self) -> None:
        """Refuses the deletion if the sweep's runs are in an MLflow server or database that the user did not name.

        Raises:
            Refusal: the sweep's last command wrote to another MLflow.
        """
        if elsewhere := self._shown_elsewhere():
            raise Refusal(
                f"sweep {self._own.listed.sweep} last wrote to MLflow at {elsewhere}: give --tracking-uri {elsewhere},"
                f" or --tracking-uri {without_credentials(self._uri)} to leave the sweep's runs there"
            )

    def _shown_elsewhere(self) -> str:
        """Returns the tracking URI of the sweep's last command, or "" if this command has the same URI."""
        try:
            record = json.loads(self._own.store.mirrored(self._own.listed.sweep).read_bytes())
            last = str(record["tracking_uri"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        return "" if last == without_credentials(self._uri) else last

    def delete(self, check: Callable[[], object]) -> None:
        """Deletes the MLflow runs first, then the study, then the trials' files, then the sweep's own files.

        Args:
            check: called between two deletions; may raise an error to stop.
        """
        if self._mlflow is not None:
            with _one_line(self._uri):
                self._mlflow.delete(check)
            self.left += self._mlflow.left
        if self._study:
            from sweeps.search.study import forget

            forget(self._own.listed.sweep, self._study)
        self._own.delete(self._own.parts_of_trials(), check)
        self._own.delete(self._own.parts_of_sweep(), check)


@contextmanager
def _one_line(uri: str) -> Iterator[None]:
    """Turns MLflow's errors, which have many types, into MlflowFailed."""
    try:
        yield
    except (OSError, Refusal):
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise MlflowFailed(
            f"MLflow at {without_credentials(uri)} failed ({reason}); type the same command again to delete the rest"
        ) from None


def _agreed(sweep: str) -> bool:
    try:
        return input(f"Delete sweep {sweep}? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
