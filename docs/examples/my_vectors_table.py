"""Your own table for docs/examples/my_vectors.py: the likelihood and your own measure of two arms."""

from mvae.measure import Measure, likelihood
from mvae.models import arm
from mvae.trial import Trial
from sweeps.cli.options import CommonOptions
from sweeps.start import start
from sweeps.sweep import Cell, Sweep

COLUMNS = {"test/log_joint": likelihood(100), "test/distance": Measure("distance", 1, "test/distance")}


def sweep(options: CommonOptions) -> Sweep:
    """Returns the sweep: one row per arm, one column per measure. Column names omit the prefix "test/"."""
    cells = []
    for token in options.arms or ("mvtcae", "closer"):
        trial = Trial.create(dataset="my_vectors", model=token, **options.trial_fields())
        cells += [Cell(arm(token).title, q[5:], trial, COLUMNS[q], None, token, quantity=q) for q in COLUMNS]
    return Sweep("my_vectors", "My vectors", tuple(cells), axis="measure", heading="My vectors")


if __name__ == "__main__":
    start(CommonOptions, sweep)
