"""Captions, notes and side texts of a table are true of every row and column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mvae import data
from mvae.data import DATASETS, Defaults, Kind, Modality, source
from mvae.data.dataset import Source
from mvae.measure import ACCURACY, likelihood
from mvae.trial import Trial
from pipelines import likelihoods, vision, weak_supervision
from sweeps.cli.options import read
from sweeps.planning.plan import Cell
from sweeps.table.files import markdown
from sweeps.table.latex import latex
from sweeps.table.plot import picture
from sweeps.table.protocol import protocol_lines, remarks
from sweeps.table.published import TABLE_4
from sweeps.table.published_likelihoods import likelihood_table
from sweeps.table.quantities import SLOW
from tests.reports import grid, printed, report_of


def cell(row: str, column: float | str = "c", dataset: str = "digits", **fields: object) -> Cell:
    model = str(fields.pop("model", "mvae"))
    trial = Trial.create(dataset=dataset, model=model, **fields)
    return Cell(row, column, trial, ACCURACY, None, trial.model)


def said(*cells: Cell) -> str:
    return " ".join(protocol_lines(cells, None))


def test_a_k_that_varies_by_column_is_not_in_the_caption() -> None:
    def of(*ks: int) -> str:
        return said(*(cell("MVAE19", f"k={k}", "mnist19", k=k) for k in ks))

    assert "; k " not in of(0, 1) + of(1, 4)
    assert "; k 1;" in of(1)
    assert "; k " not in of(0), "without subsets the caption must not mention them"


def test_the_caption_distinguishes_rows_with_and_without_subsets() -> None:
    assert "k 0, but 1 for apart" in said(
        *(cell(row, dataset="mnist19", k=k) for row, k in (("a", 0), ("b", 0), ("apart", 1)))
    )


def test_the_caption_names_a_field_only_for_rows_whose_arm_reads_it() -> None:
    rows = {"NN": "nn", "LOGREG": "logreg", "MVAE": "mvae", "JMVAE": "jmvae", "MVAE-Q": "mvae_q"}

    def of(*names: str) -> str:
        return said(*(cell(name, model=rows[name]) for name in names))

    assert "targets own for MVAE;" in of("NN", "MVAE") and "targets own for MVAE;" in of("JMVAE", "MVAE")
    assert "epochs 100, not used by LOGREG;" in of("NN", "LOGREG", "MVAE", "JMVAE")
    assert "targets own for MVAE and MVAE-Q;" in of("NN", "MVAE", "JMVAE", "MVAE-Q")
    assert "targets own;" in of("MVAE", "MVAE-Q")


def test_rows_that_read_a_field_are_counted_if_both_groups_are_large() -> None:
    cells = [replace(cell(f"{n}"), measure=likelihood(20) if n % 2 else ACCURACY) for n in range(8)]
    assert "samples 20, used by 4 of 8 rows." in said(*cells)
    assert "samples 20 for 1, 3 and 5." in said(*cells[:7])


def test_all_rows_of_an_arm_are_named_by_its_title_and_a_part_by_their_own_names() -> None:
    options = read(weak_supervision.Options, ["--arms", "nn,mvae"])
    text = " ".join(protocol_lines(tuple(weak_supervision.cells(options)), None))
    assert "pairing reserved for MVAE; targets own for MVAE (own), all for MVAE (all); label weight 1 for MVAE." in text


def test_a_published_field_that_varies_along_a_row_leaves_no_empty_phrase() -> None:
    (one,) = grid(("mvae",), (0.1,), seeds=1)
    cells = [
        replace(one, column=column, trial=one.trial.with_(epochs=epochs)) for column, epochs in ((0.1, 1), (1.0, 2))
    ]
    assert "; (paper" not in (text := " ".join(protocol_lines(cells, TABLE_4))) and ":  (paper" not in text


@pytest.mark.parametrize(("published", "dashed"), [(True, True), (False, False)])
def test_the_caption_explains_dashed_lines_only_if_there_are_some(
    tmp_path: Path, published: bool, dashed: bool
) -> None:
    arms = "jmvae" if published else "vae"
    options = read(
        likelihoods.Options, f"--dataset binary_mnist --preset paper --seeds 0 --arms {arms} --samples 2".split()
    )
    report = report_of(
        tmp_path, list(likelihoods.cells(options)), lambda _: None, table=likelihood_table("binary_mnist")
    )
    figure = picture(report)
    dashes = [line for axes in figure.axes for line in axes.lines if line.get_linestyle() == "--"]
    assert ("dashed" in figure.get_suptitle()) == dashed == bool(dashes)


def test_a_table_without_published_cells_does_not_mention_the_papers_values(tmp_path: Path) -> None:
    (first, *others) = grid(("mvae_q",), (0.1,), seeds=1)
    report = report_of(tmp_path, [first, *others], lambda _: 0.8)
    assert not report.published
    assert report.title.endswith(": our results; the paper has none of these cells")
    for text in (printed(report), markdown(report), latex(report)):
        assert "and the paper's" not in text and "counts as agreement" not in text and "Paper:" not in text


@pytest.mark.parametrize("values", [{0: 0.8}, {0: 0.8, 1: 0.9}])
def test_the_caption_mentions_the_spread_only_if_there_is_one(tmp_path: Path, values: dict[int, float]) -> None:
    report = report_of(tmp_path, grid(("nn",), (0.1,), seeds=3), lambda one: values.get(one.trial.seed))
    several = len(values) > 1
    assert ("standard deviation" in printed(report)) == several
    assert ("mean ± standard deviation over 2 seeds" in markdown(report)) == several
    assert ("accuracy, one seed." in markdown(report)) == (not several)


# Data sets from plug-ins


@pytest.fixture
def views() -> Iterator[Source]:
    """A data set of two images and two labels, with the DCGAN as its own network."""
    modalities = (
        Modality("left", Kind.IMAGE, (1, 28, 28)),
        Modality("right", Kind.IMAGE, (1, 28, 28)),
        Modality("shape", Kind.LABEL, (), classes=3),
        Modality("colour", Kind.LABEL, (), classes=4),
    )
    defaults = Defaults(8, 3, "dcgan", ("mlp", "dcgan"), pairing="proportional")
    made = replace(source("digits"), name="views", modalities=modalities, defaults=defaults)
    data.add(made)
    yield made
    DATASETS.pop("views")


@pytest.mark.usefixtures("views")
def test_the_demo_keeps_the_image_network_of_a_plug_in_data_set() -> None:
    options = read(weak_supervision.Options, ["--dataset", "views", "--arms", "mvae"])
    assert {one.trial.image_network for one in weak_supervision.cells(options)} == {"dcgan"}
    pair = replace(source("views"), name="pair", modalities=source("views").modalities[1:3])
    data.add(pair)
    try:
        asked = read(likelihoods.Options, ["--dataset", "pair", "--arms", "mvae"])
        assert {one.trial.image_network for one in likelihoods.cells(asked)} == {"dcgan"}
    finally:
        DATASETS.pop("pair")


@pytest.mark.usefixtures("views")
def test_the_caption_says_which_of_several_images_and_labels_is_measured() -> None:
    options = read(
        weak_supervision.Options, ["--dataset", "views", "--arms", "mvae", "--seeds", "0", "--fractions", "1"]
    )
    cells = tuple(weak_supervision.cells(options))
    lines = [
        "views has several images (left, right): predictions use only left.",
        "views has several labels (shape, colour): only shape is predicted.",
    ]
    assert [line for line in protocol_lines(cells, None) if "has several" in line] == lines
    assert list(remarks(cells, network_given=False)) == lines
    assert "has several" not in said(cell("MVAE")), "the caption must not name the only image and label"


def test_the_caption_says_which_of_several_images_and_vectors_predicts() -> None:
    modalities = (
        Modality("sound", Kind.VECTOR, (4,)),
        Modality("picture", Kind.IMAGE, (1, 8, 8)),
        Modality("label", Kind.LABEL, (), classes=3),
    )
    defaults = Defaults(8, 3, "mlp", ("mlp",), pairing="proportional")
    data.add(replace(source("digits"), name="senses", modalities=modalities, defaults=defaults))
    try:
        options = read(weak_supervision.Options, ["--dataset", "senses", "--arms", "mvae", "--seeds", "0"])
        line = "senses has several inputs (sound, picture): predictions use only sound."
        assert line in protocol_lines(tuple(weak_supervision.cells(options)), None)
    finally:
        DATASETS.pop("senses")


def test_the_caption_names_hyperparameters_of_arms_that_were_changed() -> None:
    def settings(*typed: str) -> str:
        options = read(weak_supervision.Options, ["--arms", "mvae,mopoe,mvtcae", "--targets", "own", *typed])
        return " ".join(protocol_lines(tuple(weak_supervision.cells(options)), None))

    assert "beta" not in settings()
    changed = settings("--set", "beta=2.5,full_subset_prior=true")
    assert "beta 2.5, not used by MVAE" in changed and "full_subset_prior True for MoPoE" in changed
    assert "a 0.8" not in changed, "a has its default"


def test_a_demo_that_replaces_a_network_says_so_at_the_start_and_below_the_table() -> None:
    line = "Image network mlp instead of dcgan, the default for fashion_mnist."
    for pipeline in (weak_supervision, likelihoods):
        options = read(pipeline.Options, ["--dataset", "fashion_mnist", "--arms", "mvae"])
        cells = tuple(pipeline.cells(options))
        assert remarks(cells, network_given=False) == (line,) and remarks(cells, network_given=True) == ()
        assert line in protocol_lines(cells, None)
        assert line not in protocol_lines(cells, TABLE_4), "the caption names it next to the paper's value"
    made = vision.cells(read(vision.Options, []))
    assert remarks(made, network_given=False) == (
        "Image network mlp instead of dcgan, the default for vision_faces_small.",
    )


def test_the_demo_uses_only_networks_that_the_data_set_supports() -> None:
    for name in SLOW:
        own = source(name).defaults
        assert own.image_network == "dcgan" and "mlp" in own.image_networks
