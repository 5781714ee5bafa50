"""Your own table: accuracy on digits by number of training examples, next to made-up published values.

Runs    2 arms x 3 numbers of examples x 2 seeds, half a minute
Type    python docs/examples/my_table.py
"""

from collections.abc import Iterator
from itertools import product

from mvae.data import source
from mvae.evaluation.measurable import check_measurable
from mvae.measure import ACCURACY
from mvae.models import arm
from mvae.trial import Trial
from sweeps.cli.options import CommonOptions
from sweeps.cli.values import Counts
from sweeps.start import start
from sweeps.sweep import Cell, Sweep, Table

TABLE = Table(
    number="1",
    title="accuracy on digits by training examples",
    source="nowhere: made up for this example",
    dataset="digits",
    metric=ACCURACY.metric,
    axis="training examples",
    columns=("100", "300", "1000"),
    rows={"nn": (0.80, 0.90, 0.95), "logreg": (0.80, 0.90, 0.85)},
    protocol={"epochs": 20, "learning_rate": 1e-3},  # the published set-up, by fields of Trial
)


class Options(CommonOptions):
    """My table"""

    sizes: Counts = (100, 300, 1000)
    """Numbers of training examples, one column per number."""


def cells(options: Options) -> Iterator[Cell]:
    """Yields one cell per arm (row), number of examples (column) and seed."""
    for token, size, seed in product(options.arms or TABLE.rows, options.sizes, options.seeds or (0, 1)):
        check_measurable(ACCURACY, token, source(options.dataset))
        fields = {**options.trial_fields(), "epochs": options.epochs or 20, "train_examples": size}
        trial = Trial.create(dataset=options.dataset, model=token, seed=seed, **fields)
        published = TABLE.published(token, str(size)) if options.dataset == TABLE.dataset else None
        yield Cell(arm(token).title, str(size), trial, ACCURACY, published, arm=token)


def sweep(options: Options) -> Sweep:
    """Returns the sweep. Published values are shown only for the data set of the published table."""
    table = TABLE if options.dataset == TABLE.dataset else None
    return Sweep(f"my_table-{options.dataset}", "My table", tuple(cells(options)), table, axis=TABLE.axis)


if __name__ == "__main__":
    start(Options, sweep)
