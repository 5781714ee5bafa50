"""Plots: their files, their words, and how they show the number of seeds."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from docs.report.numbers import each_file, read
from docs.report.sources import Sources
from mvae.measure import ACCURACY
from mvae.trial import Trial
from sweeps.planning.plan import Cell, plan
from sweeps.store.results import Result
from sweeps.store.store import Store
from sweeps.table.comparison import Report
from sweeps.table.files import tabulate
from sweeps.table.metric_names import axis_words, capitalised, dataset_words, metric_words
from sweeps.table.plot import FORMS, Line, figure, forms, heat_map, picture, saved

COLUMNS = (0.01, 0.1, 0.5, 1.0)


def made(root: Path, seeds: Mapping[str, tuple[int, ...]]) -> Report:
    """A report whose rows have the given number of seeds in each column."""
    trial = Trial.create(dataset="fashion_mnist", model="mvae", image_network="mlp")
    cells = [
        Cell(row, column, trial.with_(paired_fraction=column, seed=10 * place + seed), ACCURACY, None, "mvae")
        for place, (row, counts) in enumerate(seeds.items())
        for column, count in zip(COLUMNS, counts, strict=True)
        for seed in range(count)
    ]
    store = Store.open(root, "main", create=True)
    planned = plan(cells, store, "f")
    for key, one in planned.trials.items():
        value = 0.5 + 0.01 * (one.trial.seed % 10)
        store.results.write(Result(key, ACCURACY.token, one.trial.model_dump(), {"test/accuracy": value}, {}, []))
    return tabulate(planned, store.results)


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return made(tmp_path, {"one": (1, 1, 1, 1), "some": (2, 3, 1, 2), "all": (3, 3, 3, 3)})


def bands(shown: Figure) -> list[tuple[float, float]]:
    """First and last position of each band."""
    found = [one for axes in shown.axes for one in axes.collections if isinstance(one, PolyCollection)]
    places = [np.asarray(one.get_paths()[0].vertices)[:, 0] for one in found]
    return [(float(place.min()), float(place.max())) for place in places]


# Files


def test_a_figure_is_drawn_once_and_saved_in_three_formats(report: Report) -> None:
    drawn: list[Figure] = []

    def draw() -> Figure:
        drawn.append(picture(report))
        return drawn[-1]

    files = {name: make() for name, make in forms("accuracy", draw).items()}
    assert list(files) == ["accuracy.png", "accuracy.pdf", "accuracy.svg"] and len(drawn) == 1
    for name, begins in zip(files, (b"\x89PNG", b"%PDF-", b"<?xml"), strict=True):
        assert files[name].startswith(begins)


def test_the_bytes_of_a_figure_do_not_depend_on_time_or_other_figures(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = {name: make() for name, make in forms("x", lambda: picture(report)).items()}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    for form in reversed(FORMS):
        assert saved(lambda: picture(report), form) == together[f"x.{form}"], form
    for said in (b"CreationDate", b"Matplotlib v", b"dc:date"):
        assert all(said not in data for data in together.values())


def test_pdf_fonts_are_true_type(report: Report) -> None:
    data = saved(lambda: picture(report), "pdf")
    streams = [data, *(_inflated(part) for part in re.findall(rb"stream\n(.*?)\nendstream", data, re.DOTALL))]
    assert any(b"/FontFile2" in stream for stream in streams)
    assert not any(b"/Type3" in stream for stream in streams)


def _inflated(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""


@pytest.mark.parametrize("form", ["pdf", "svg"])
def test_a_heat_map_with_its_colour_bar_is_saved_identically_each_time(form: str, report: Report) -> None:
    one, other = (saved(lambda: heat_map(report, {"all": "all"}, "mean", 0, 1), form) for _ in range(2))
    assert one == other


# Seeds


def test_bands_are_drawn_only_between_columns_with_two_seeds_or_more(report: Report) -> None:
    assert bands(picture(report)) == [(-2.0, -1.0), (-2.0, 0.0)], "the last column of `some` has no neighbour"
    plots = {"one": (Line(report, "one"),), "all": (Line(report, "all"),)}
    assert bands(figure(plots, report)) == [(-2.0, 0.0)]


def test_title_and_legend_show_the_number_of_seeds(report: Report, tmp_path: Path) -> None:
    (axes,) = picture(report).axes
    assert axes.get_title(loc="left") == "FashionMNIST: mean and standard deviation over 1 to 3 seeds"
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["one (1 seed)", "some (1-3 seeds)", "all (3 seeds)"]
    (alike,) = picture(made(tmp_path / "alike", {"a": (1, 1, 1, 1), "b": (1, 1, 1, 1)})).axes
    assert alike.get_title(loc="left") == "FashionMNIST: one seed"
    legend = alike.get_legend()
    assert legend is not None and [text.get_text() for text in legend.get_texts()] == ["a", "b"]


# Words


def test_axes_are_named_in_words(report: Report) -> None:
    (axes,) = picture(report).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("share of paired examples", "test accuracy")


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("test/accuracy", "test accuracy"),
        ("validation/accuracy", "validation accuracy"),
        ("best/validation_accuracy", "best validation accuracy"),
        ("test/accuracy-f0.01", "test accuracy of a read-out, 1% of the labels"),
        ("test/log_marginal", "log p(x1) (nats)"),
        ("test/log_conditional-x1", "log p(x1|x2) by q(z|x1) (nats)"),
        ("test/log_joint_per_token", "log p(x1,x2) per token (nats)"),
        ("test/attribute_accuracy/has_hole", "accuracy of sampled attributes, has hole"),
        ("validation/attribute_accuracy", "validation accuracy of the likeliest attributes"),
        ("psnr_input/colour-cbcr", "PSNR of the input, colour-cbcr (dB)"),
        ("bleu/en-vi", "BLEU, en-vi"),
        ("test/bleu", "test BLEU"),
        ("train/loss", "train loss (nats)"),
        ("my_plug_in/some_score", "my plug in, some score"),
        ("score", "score"),
    ],
)
def test_metrics_are_shown_in_words(metric: str, words: str) -> None:
    assert metric_words(metric) == words


def test_every_committed_metric_has_words_without_slashes_and_underscores() -> None:
    metrics = {metric for path in each_file(Sources().results) for result in read(path) for metric in result.metrics}
    assert metrics
    assert [metric for metric in metrics if re.search(r"[/_]", metric_words(metric))] == []


def test_axes_and_data_sets_are_shown_in_words() -> None:
    assert axis_words("keep_probability") == "probability of keeping a value"
    assert axis_words("training_examples") == "training examples"
    assert dataset_words("fashion_mnist") == "FashionMNIST" and dataset_words("my_images") == "my images"
    assert capitalised("test accuracy") == "Test accuracy" and capitalised("log p(x1)") == "log p(x1)"
