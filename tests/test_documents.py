"""README.md and docs/: every measured number comes from committed results."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from docs.report.__main__ import figures, main, refilled
from docs.report.numbers import Committed, each_file, mean_and_spread, read, shown, written
from docs.report.pictures import NOTE, draw, drawn, stale
from docs.report.sources import Sources, Value, holds, option_rows
from docs.report.tables import table
from mvae.refusal import Refusal
from sweeps.table.plot import picture
from sweeps.table.published import TABLE_4
from sweeps.table.rounding import as_printed
from tests.document_checks import PAGES, REPOSITORY, copied, stated, typed_numbers


@pytest.fixture(scope="module")
def values() -> dict[str, Value]:
    return figures(Sources())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return copied(tmp_path)


def test_making_the_report_again_changes_nothing(values: dict[str, Value]) -> None:
    assert {str(path.relative_to(REPOSITORY)) for path in refilled(REPOSITORY, values)} == set()


def test_every_plot_shows_the_committed_numbers() -> None:
    assert stale(REPOSITORY / "docs" / "pictures", drawn(Sources())) == []


@pytest.mark.parametrize("page", PAGES)
def test_no_measured_number_is_typed_by_hand(page: str) -> None:
    assert typed_numbers((REPOSITORY / page).read_text(encoding="utf-8"), stated()) == []


def test_every_allowed_phrase_with_a_number_occurs_in_a_document() -> None:
    everything = "\n".join((REPOSITORY / page).read_text(encoding="utf-8") for page in PAGES)
    assert [phrase for phrase in stated() if phrase not in everything] == []
    assert all(stated().values()), "each phrase needs a reason why it is no measurement"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("An accuracy of 0.8123.", ["1: 0.8123"]),
        ("\nIt takes 41 ms, or 3 nats.", ["2: 41 ms", "2: 3 nats"]),
        ("| MVAE | -92.715 |", ["1: -92.715"]),
        ("Of <!-- ours:a -->0.5<!-- /ours --> and `--fractions 0.01` on 127.0.0.1, see [x](y-0.5.md).", []),
        ("<!-- ours:a -->\n\n| 0.5 |\n\n<!-- /ours -->\n", []),
        ("    python pipelines/train.py --paired-fraction 0.5\n", []),
        ("```text\naccuracy 0.4600  7 s\n```\n", ["2: 0.4600", "2: 7 s"]),
    ],
)
def test_a_measured_number_typed_by_hand_is_found(text: str, found: list[str]) -> None:
    assert typed_numbers(text, {}) == found


def _change(checkout: Path, model: str, share: float, epochs: int | None, to: float) -> str:
    """Changes one seed's accuracy in a checkout; returns the cell's old mean and spread as the pages show them."""
    path = checkout / "docs" / "results" / "weak_supervision-fashion_mnist.csv"
    before = read(path)
    keys = [
        key
        for key, trial in before.trials.items()
        if (trial.model, trial.paired_fraction, trial.hashed_fields().get("epochs")) == (model, share, epochs)
    ]
    found = [result for result in before if result.key in keys and "test/accuracy" in result.metrics]
    shown_before = shown(*mean_and_spread([result.metrics["test/accuracy"] for result in found]))
    found[0].metrics["test/accuracy"] = to
    path.write_text(written(before), encoding="utf-8")
    return shown_before


@pytest.mark.slow
def test_changing_a_committed_number_changes_tables_text_and_pictures(checkout: Path) -> None:
    pages = ("README.md", "docs/experiments/weak_supervision.md")
    old = _change(checkout, "logreg", 0.001, None, to=0.55)
    assert all(old in (checkout / page).read_text(encoding="utf-8") for page in pages)
    assert main(["--check"], Sources(checkout)) == 1
    assert main([], Sources(checkout)) == 0
    assert not any(old in (checkout / page).read_text(encoding="utf-8") for page in pages)
    ours, theirs = ((root / "docs/pictures/fashion-mnist-accuracy.png").read_bytes() for root in (checkout, REPOSITORY))
    assert ours != theirs
    assert main(["--check"], Sources(checkout)) == 0


def test_a_sentence_that_the_numbers_contradict_is_refused(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _change(checkout, "nn", 0.1, 100, to=0.5)
    assert main([], Sources(checkout)) == 2
    assert "near the paper at 1 % and 10 %, but the numbers contradict it" in capsys.readouterr().err


def test_a_claim_that_holds_is_accepted() -> None:
    holds(True, "all is well")
    with pytest.raises(Refusal, match="the text says that all is well"):
        holds(False, "all is well")


def test_numbers_of_other_trials_in_a_file_do_not_change_the_text(checkout: Path, values: dict[str, Value]) -> None:
    for path in each_file(Sources(checkout).results):
        there = read(path)
        other = next(result for result in there if "epochs" in there.trials[result.key].hashed_fields())
        longer = replace(
            other, key="f" * 16, trial={**other.trial, "epochs": 77}, metrics=dict.fromkeys(other.metrics, 0.5)
        )
        path.write_text(written(Committed([*there, longer])), encoding="utf-8")
    after = figures(Sources(checkout))
    assert {
        name for name, value in values.items() if after.get(name) != value and not name.startswith(("table.", "value."))
    } == set()
    assert not any(name.startswith("value.") for name in after), "a file of several kinds of trials has no single value"


def test_published_values_in_the_text_are_the_papers(values: dict[str, Value]) -> None:
    at = TABLE_4.columns.index(0.01)
    assert values["paper.fashion.mvae.1"] == as_printed(TABLE_4.rows["mvae"][at]) == "0.8619"


def test_a_table_shows_mean_spread_and_verdict_of_the_existing_seeds(values: dict[str, Value]) -> None:
    committed = read(Sources().results / "weak_supervision-fashion_mnist.csv")
    trials = {key: (trial.model, trial.epochs, trial.paired_fraction) for key, trial in committed.trials.items()}
    seeds = [result.metrics["test/accuracy"] for result in committed if trials[result.key] == ("nn", 20, 0.001)]
    mean = sum(seeds) / len(seeds)
    spread = (sum((value - mean) ** 2 for value in seeds) / (len(seeds) - 1)) ** 0.5
    row = next(line for line in str(values["fashion.table"]).splitlines() if line.startswith("| NN | ours |"))
    assert row.split(" | ")[2] == f"{mean:.3f} ±{spread:.3f}", "a value shows two digits of its spread"
    assert f"| seeds, verdict | {len(seeds)}, " in str(values["fashion.table"])


def test_every_row_of_table_4_has_its_own_colour() -> None:
    shown = table(Sources(), "fashion")
    (axes,) = picture(shown).axes
    legend = axes.get_legend()
    assert legend is not None
    lines = [line for line in legend.get_lines() if line.get_label() != "paper"]
    assert len({line.get_color() for line in lines}) == len(lines) == len(shown.rows) > 8


def test_a_picture_is_redrawn_only_if_its_numbers_change(tmp_path: Path) -> None:
    name = "digits-accuracy.png"
    one = drawn(Sources())[name]
    assert stale(tmp_path, {name: one}) == [name]
    draw(tmp_path / name, one)
    assert stale(tmp_path, {name: one}) == []
    with Image.open(tmp_path / name) as image:
        assert image.info[NOTE] == one.digest


def test_the_glossary_explains_every_committed_metric_and_every_option() -> None:
    glossary = (Sources().root / "docs" / "glossary.md").read_text(encoding="utf-8")
    metrics = glossary.partition("## Metrics")[2].partition("## In a table")[0]
    explained = [
        re.sub(r"<[^>]+>", "[^/]+", re.escape(name).replace(r"\.\.\.", ".*"))
        for row in metrics.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])
    ]
    shown = {metric for path in each_file(Sources().results) for result in read(path) for metric in result.metrics}
    assert shown
    missing = [metric for metric in sorted(shown) if not any(re.fullmatch(name, metric) for name in explained)]
    assert missing == []
    options = {option for option, _, _ in option_rows()}
    assert {"--paired-fraction", "--no-prune", "--corpus", "--images", "--workers", "--plugins"} <= options
    assert all(f"| `{option}` |" in glossary for option in options)
