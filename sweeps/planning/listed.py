"""Records which trials a sweep uses, before anything is trained (sweeps/store/lists.py)."""

from mvae.evaluation.judges import needed
from sweeps.planning.plan import Fingerprints, Plan, fingerprint_of
from sweeps.store import lists
from sweeps.store.store import Store


def list_trials(
    planned: Plan, store: Store, marks: Fingerprints, *, sweep: str, title: str, command: str, now: float, study: str
) -> None:
    """Adds the planned trials to the sweep's list in storage. Call it under the lease.

    Args:
        marks: fingerprints of the cells' data sets.
        sweep: the sweep's name.
        command: command that resumes the sweep.
        now: Unix time in seconds.
        study: URI of a search's database, without credentials, or "" if the sweep is a grid.
    """
    cells = ((key, cell.measure.token) for key, cell in zip(planned.keys, planned.cells, strict=True))
    judges = [trial for one in planned.trials.values() for trial in needed(one.measures, one.trial.dataset)]
    keys = {trial.key(fingerprint_of(trial.dataset, marks)) for trial in judges}
    new = lists.SweepList(
        sweep, title, command, now, now, lists.counted_cells(cells), needs=tuple(sorted(keys)), study=study
    )
    lists.extend(store, new)
