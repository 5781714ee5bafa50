"""The supplement's published items, and which of our runs belong to each.

An item is a table, a figure, or one data set's column of Tables 1 and 2. Its numbers come from `sweeps.table.published`
and `sweeps.table.published_likelihoods`; this file adds the paper's set-up, our commands, and what has no number at
all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

from docs.report import many
from mvae.models import ARMS, arm
from sweeps.table.published import TABLE_4, TABLE_5, Table
from sweeps.table.published_likelihoods import BY_BOTH, PUBLISHED_QUANTITIES, likelihood_table

ABSENT = ("Section 7", "Figure 3", "Table 3")
"""Items that the supplement's numbering implies and its text does not hold."""

Place = tuple[str, float | str]
"""Arm token and column of one published number."""


@dataclass(frozen=True)
class Row:
    """One row of a published table, and the runs that can fill it."""

    label: str
    """The row's heading, for example MVAE (own)."""
    arm: str
    """The arm's token, which is the published row."""
    runs: tuple[str, ...]
    """Arguments of the item's pipeline, the set-up nearest to the paper's first."""


@dataclass(frozen=True)
class Item:
    """One line of the scorecard."""

    name: str
    """The item's number in the supplement."""
    line: str
    """Line of the short table; items that share a line are added up there."""
    shows: str
    """Contents of the item, in a few words."""
    paper: str
    """The paper's data, epochs and seeds."""
    data: str
    """Our data; empty where there are none."""
    command: str
    """The command that runs the paper's set-up; for architectures, the command that tests them."""
    pipeline: str = ""
    """Name of the module in `pipelines/`; empty where nothing is trained."""
    dataset: str = ""
    """Our data set, which with the pipeline names the file of numbers."""
    published: Mapping[Place, float] = field(default_factory=dict)
    """Every number that the supplement prints for the item."""
    table: Table | None = None
    """The published table that our runs are judged by."""
    rows: tuple[Row, ...] = ()
    """Rows with published numbers; a place that several rows can fill takes the first that has a number."""
    runs: tuple[str, ...] = ()
    """Arguments of the runs behind an item that prints no numbers."""
    no_data: str = ""
    """Why the data are unavailable; empty if they are available."""
    tests: tuple[str, ...] = ()
    """Tests that hold an architecture, in tests/test_networks.py."""
    same_runs_as: str = ""
    """The item whose hours already hold this item's runs."""

    @property
    def file(self) -> str:
        """Name of the file of numbers in docs/results/, without its ending."""
        return f"{self.pipeline}-{self.dataset}"


LINES = {
    "Tables 1 and 2, BinaryMNIST": "likelihoods of the test set and their variances",
    "Tables 1 and 2, MNIST": "the same on MNIST",
    "Tables 1 and 2, FashionMNIST": "the same on FashionMNIST",
    "Tables 1 and 2, MultiMNIST": "the same on MultiMNIST",
    "Tables 1 and 2, CelebA": "the same on CelebA",
    "Tables 1 and 2, MVAE19": "the same on CelebA with 19 modalities",
    "Table 4": "accuracy on FashionMNIST with a fraction of the pairs",
    "Table 5": "accuracy on MultiMNIST with a fraction of the pairs",
    "Tables 6, 7 and 8": "translations, English and Vietnamese",
    "Figures 1, 2 and 4": "networks on MNIST, FashionMNIST and CelebA",
    "Figure 5": "MVAE with 19 modalities, values missing",
    "Figure 6": "MVAE with 19 modalities, more ELBO terms",
    "Figures 7, 8, 9 and 10": "six views of a face, each made from others",
}
"""Lines of the short table, and what each shows."""

SEEDS = "--seeds 0-4"
"""Seeds looked for: a cell counts the seeds that have a committed number."""

NO_CELEBA = "CelebA's images are not available here"


def _accuracy_rows(table: Table, networks: tuple[str, ...], weight: str) -> tuple[Row, ...]:
    """Rows of Table 4 or 5: the paper's networks before smaller ones, long runs before short ones.

    Args:
        networks: image networks, the paper's first.
        weight: option of the second modality's likelihood weight.
    """
    rows = []
    for token in table.rows:
        for reading in _readings(token):
            base = f"--dataset {table.dataset} --preset paper {SEEDS} --arms {token}{_targets(reading)}"
            runs = tuple(base + set_up for set_up in _accuracy_set_ups(token, networks, weight))
            rows.append(Row(f"{arm(token).title}{reading}", token, runs))
    return tuple(rows)


def _accuracy_set_ups(token: str, networks: tuple[str, ...], weight: str) -> list[str]:
    """Options that an arm reads, the set-up nearest to the paper first."""
    reads = arm(token).reads
    network_options = [f" --image-network {network}" for network in networks] if "image_network" in reads else [""]
    lengths = [" --epochs 100", " --epochs 20"] if "epochs" in reads else [""]
    if "annealing_epochs" in reads:
        lengths = [" --epochs 100 --annealing-epochs 200", *lengths, " --epochs 20 --annealing-epochs 40"]
    if not {"label_weight", "text_weight"} & reads:
        return [network + length for network, length in product(network_options, lengths)]
    weighted = [f"{network}{length} {weight} 1" for network, length in product(network_options, lengths)]
    older = [f"{network_options[0]} --epochs 100 {weight} 50"] if weight == "--label-weight" else []
    return [*weighted, *older]


def _likelihood_rows(table: Table, arms: tuple[str, ...], networks: tuple[str, ...], weight: str) -> tuple[Row, ...]:
    """Rows of one data set in Tables 1 and 2, long runs first."""
    epochs = (500, 100, 50, 20)
    set_ups = [
        f"--image-network {network} --epochs {length} {weight} 1" for network, length in product(networks, epochs)
    ]
    older = ["--image-network mlp --epochs 100 --label-weight 50"] if weight == "--label-weight" else []
    base = f"--dataset {table.dataset} --preset paper {SEEDS}"
    return tuple(
        Row(
            f"{'MVAE19' if token not in ARMS else arm(token).title}{reading}",
            token,
            tuple(f"{base} --arms {token}{_targets(reading)} {set_up}" for set_up in [*set_ups, *older]),
        )
        for token in arms
        for reading in _readings(token)
    )


def _readings(token: str) -> tuple[str, ...]:
    """Suffixes of the rows of an arm: one per set of targets, the paper's own formula first."""
    reads = arm(token if token in ARMS else "mvae").reads
    return (" (own)", " (all)") if "targets" in reads else ("",)


def _targets(reading: str) -> str:
    """Returns the option that belongs to a row's suffix."""
    return f" --targets {reading[2:-1]}" if reading else ""


def _likelihood_items(
    heading: str, dataset: str, arms: tuple[str, ...], networks: tuple[str, ...], weight: str, no_data: str = ""
) -> tuple[Item, Item]:
    """One data set's column of Table 1, and of Table 2."""
    table = likelihood_table(dataset)
    assert table is not None
    epochs = table.protocol["epochs"]
    made = []
    for number, shows, quantities in (
        ("1", "log-likelihoods by q(z given x1, x2)", PUBLISHED_QUANTITIES[:3]),
        ("2", "variances of log importance weights", PUBLISHED_QUANTITIES[3:]),
    ):
        labels = [quantity.label for quantity in quantities]
        assert all(label.endswith(BY_BOTH) for label in labels)
        values = {(token, label): table.published(token, label) for token in arms for label in labels}
        made.append(
            Item(
                name=f"Table {number}, {heading}",
                line=f"Tables 1 and 2, {heading}",
                shows=shows,
                paper=f"{'CelebA' if dataset == 'celeba' else heading}, {epochs} epochs, seeds not stated",
                data="" if no_data else heading,
                command=f"python pipelines/likelihoods.py --dataset {dataset} --preset paper --arms {','.join(arms)}",
                pipeline="likelihoods",
                dataset=dataset,
                published={place: value for place, value in values.items() if value is not None},
                table=table,
                rows=_likelihood_rows(table, arms, networks, weight),
                no_data=no_data,
                same_runs_as="" if number == "1" else f"Table 1, {heading}",
            )
        )
    return made[0], made[1]


def _accuracy_item(table: Table, shows: str, data: str, rows: tuple[Row, ...]) -> Item:
    return Item(
        name=f"Table {table.number}",
        line=f"Table {table.number}",
        shows=shows,
        paper=f"{data}, {table.protocol['epochs']} epochs, seeds not stated",
        data=data,
        command=f"python pipelines/weak_supervision.py --dataset {table.dataset} --preset paper",
        pipeline="weak_supervision",
        dataset=table.dataset,
        published={
            (token, column): value
            for token, values in table.rows.items()
            for column, value in zip(table.columns, values, strict=True)
        },
        table=table,
        rows=rows,
    )


def _sentences(number: str, shows: str, first: str) -> Item:
    return Item(
        name=f"Table {number}",
        line="Tables 6, 7 and 8",
        shows=shows,
        paper="IWSLT 2015 English-Vietnamese; epochs and seeds not stated",
        data="short software strings, English-Vietnamese",
        command="python pipelines/translation.py --corpus DIR --preset paper",
        pipeline="translation",
        dataset="translation",
        runs=(
            "--dataset translation --preset paper --seeds 0 --epochs 8 --annealing-epochs 3 --targets all"
            " --vocabulary 2000 --batch-size 50 --learning-rate 0.002 --samples 20",
        ),
        same_runs_as=first,
    )


def _vision(number: str, shows: str, first: str) -> Item:
    return Item(
        name=f"Figure {number}",
        line="Figures 7, 8, 9 and 10",
        shows=shows,
        paper="CelebA, 100 epochs, seeds not stated",
        data="faces drawn by this package",
        command="python pipelines/vision.py --dataset vision --preset paper",
        pipeline="vision",
        dataset="vision_faces",
        runs=(
            "--dataset vision_faces --preset paper --seeds 0 --epochs 8 --image-network mlp --learning-rate 1e-3"
            " --targets all",
        ),
        same_runs_as=first,
    )


def _architecture(number: str, data: str, tests: tuple[str, ...]) -> Item:
    return Item(
        name=f"Figure {number}",
        line="Figures 1, 2 and 4",
        shows=f"networks on {data}",
        paper=f"{data}; a drawing",
        data="no data needed",
        command='make test PYTEST_ARGS="-k golden_number"',
        tests=tests,
    )


GOLDEN = "test_inference_networks_have_the_golden_numbers_of_parameters"
GOLDEN_CELEBA = "test_the_inference_networks_of_celeba_have_the_golden_numbers_of_parameters"

LIKELIHOODS = (
    _likelihood_items("BinaryMNIST", "binary_mnist", ("jmvae", "mvae"), ("mlp",), "--label-weight"),
    _likelihood_items("MNIST", "mnist", ("jmvae", "mvae"), ("mlp",), "--label-weight"),
    _likelihood_items("FashionMNIST", "fashion_mnist", ("jmvae", "mvae"), ("dcgan", "mlp"), "--label-weight"),
    _likelihood_items("MultiMNIST", "multi_mnist", ("jmvae", "mvae"), ("dcgan",), "--text-weight"),
    _likelihood_items("CelebA", "celeba", ("jmvae", "mvae"), ("dcgan",), "--attribute-weight", NO_CELEBA),
    _likelihood_items("MVAE19", "celeba", ("mvae19",), ("dcgan",), "--attribute-weight", NO_CELEBA),
)
"""Each data set's column of Table 1 and of Table 2."""

ITEMS: tuple[Item, ...] = (
    *(first for first, _ in LIKELIHOODS),
    *(second for _, second in LIKELIHOODS),
    _accuracy_item(
        TABLE_4,
        "accuracy with a fraction of the pairs",
        "FashionMNIST",
        _accuracy_rows(TABLE_4, ("dcgan", "mlp"), "--label-weight"),
    ),
    _accuracy_item(
        TABLE_5,
        "accuracy of each digit with a fraction of the pairs",
        "MultiMNIST",
        _accuracy_rows(TABLE_5, ("dcgan",), "--text-weight"),
    ),
    _sentences("6", "pairs of sentences made from one z", ""),
    _sentences("7", "English to Vietnamese", "Table 6"),
    _sentences("8", "Vietnamese to English", "Table 6"),
    _architecture("1", "MNIST", (GOLDEN,)),
    _architecture("2", "FashionMNIST", (GOLDEN,)),
    _architecture("4", "CelebA", (GOLDEN_CELEBA,)),
    Item(
        name="Figure 5",
        line="Figure 5",
        shows="accuracy and likelihoods with values missing",
        paper="CelebA with 19 modalities, 100 epochs, seeds not stated; p from 0.001",
        data="MNIST with 18 computed attributes",
        command="python pipelines/missing_modalities.py --dataset celeba19 --preset paper",
        pipeline="missing_modalities",
        dataset="mnist19",
        runs=(many.MISSING,),
    ),
    Item(
        name="Figure 6",
        line="Figure 6",
        shows="likelihood and variance with more ELBO terms",
        paper="CelebA with 19 modalities, 100 epochs, 3 seeds",
        data="MNIST with 18 computed attributes",
        command="python pipelines/k_sweep.py --dataset celeba19 --preset paper",
        pipeline="k_sweep",
        dataset="mnist19",
        runs=(many.SUBSETS,),
    ),
    _vision("7", "all six views made of all six", ""),
    _vision("8", "colour from a grey image", "Figure 7"),
    _vision("9", "the hidden half of an image", "Figure 7"),
    _vision("10", "an image without its watermark", "Figure 7"),
)
"""In the order of the supplement's numbers: tables, then figures."""
