"""The finished table: its numbers and verdicts, readable in every format."""

from __future__ import annotations

import csv
import io
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from mvae.measure import ACCURACY, readout
from mvae.storage.files import Folder
from mvae.storage.objects import place
from mvae.storage.place import Place
from mvae.trial import Trial
from sweeps.cli.console import Console
from sweeps.planning.plan import Cell, plan
from sweeps.store.results import Result
from sweeps.store.store import Store
from sweeps.table import files
from sweeps.table.arrow_tables import entry_table, run_table
from sweeps.table.comparison import Entry, Report, Run, Verdict
from sweeps.table.files import markdown, show, tabulate, write
from sweeps.table.published import TABLE_4
from sweeps.table.rounding import as_printed
from tests.crashes import on_disk
from tests.reports import Build, entry, grid, printed, report_of


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Makes a report of made-up results."""
    return partial(report_of, tmp_path)


@pytest.fixture
def wide(build: Build) -> Report:
    """Nine fractions, three arms, three seeds, all with results."""
    cells = grid(("nn", "logreg", "mvae"), TABLE_4.shares)
    return build(cells, lambda cell: (cell.published or 0) - 0.01 + 0.01 * cell.trial.seed)


def test_a_cell_shows_the_mean_and_sample_deviation_over_its_seeds() -> None:
    cell = entry([0.8, 0.7, 0.9], published=0.75)
    assert cell.mean == statistics.fmean([0.8, 0.7, 0.9])
    assert cell.spread == statistics.stdev([0.8, 0.7, 0.9])
    assert cell.difference == pytest.approx(0.05)
    assert entry([0.8]).spread is None


def test_arms_are_compared_seed_by_seed_over_their_common_seeds(build: Build) -> None:
    seeds = {"nn": {0: 0.5, 1: 0.6, 2: 0.9}, "mvae": {0: 0.6, 1: 0.8}}
    report = build(grid(("nn", "mvae"), (0.1,)), lambda cell: seeds[cell.row].get(cell.trial.seed))
    (contrast,) = report.contrasts.values()
    assert (contrast.row, contrast.baseline, contrast.n) == ("mvae", "nn", 2)
    assert contrast.values == pytest.approx((0.1, 0.2))
    assert contrast.mean == pytest.approx(0.15)
    assert contrast.spread == pytest.approx(statistics.stdev([0.1, 0.2]))


def test_accuracies_and_read_outs_share_one_table(tmp_path: Path) -> None:
    cells = [
        Cell(row, fraction, trial, measure, 0.8, row)
        for fraction in (0.1, 1.0)
        for row, trial, measure in (
            ("vae", Trial.create(dataset="digits", model="vae"), readout(fraction)),
            ("nn", Trial.create(dataset="digits", model="nn", paired_fraction=fraction), ACCURACY),
        )
    ]
    store = Store.open(tmp_path, "main", create=True)
    planned = plan(cells, store, "f")
    assert len(planned.trials) == 3, "both fractions must share one VAE"
    for cell, key, value in zip(cells, planned.keys, (0.5, 0.6, 0.7, 0.8), strict=True):
        metrics = {cell.measure.metric: value}
        store.results.write(Result(key, cell.measure.token, cell.trial.model_dump(), metrics, {}, []))
    report = tabulate(planned, store.results, table=TABLE_4)
    assert report.metric == "test/accuracy"
    means = {place: entry.mean for place, entry in report.entries.items()}
    assert means == {("vae", 0.1): 0.5, ("nn", 0.1): 0.6, ("vae", 1.0): 0.7, ("nn", 1.0): 0.8}
    assert report.complete
    assert [contrast.mean for contrast in report.contrasts.values()] == pytest.approx([0.1, 0.1])
    assert place(tmp_path / "out" / "accuracy.png") in write(tmp_path / "out", report)
    assert set(run_table(report)["measure"].to_pylist()) == {"readout-f0.1-v1", "readout-f1-v1", "accuracy-v1"}


def test_cells_without_results_are_printed_and_failed_trials_named(build: Build) -> None:
    cells = grid(("nn", "mvae"), (0.1, 1.0))
    failing = next(cell for cell in cells if cell.row == "mvae" and cell.column == 1.0 and cell.trial.seed == 2)
    key = failing.trial.key("f")
    report = build(
        cells,
        lambda cell: None if cell.row == "mvae" and cell.column == 1.0 else 0.8,
        failures={key: "loss is nan at epoch 3, step 17 (image)"},
    )
    assert not report.complete
    assert report.entries["mvae", 1.0].verdict is Verdict.INCOMPLETE
    message = f"failed: mvae 100% seed 2 (key {key}): loss is nan at epoch 3, step 17 (image)"
    assert report.notes() == [message]
    for text in (printed(report), markdown(report)):
        assert "0/3" in text
        assert message in text


def test_nine_fractions_fit_100_columns_without_breaking_a_number(wide: Report) -> None:
    text = printed(wide, width=100, terminal=True)
    assert max(map(len, text.splitlines())) <= 100
    head = next(line for line in text.splitlines() if "0.1%" in line)
    assert head.split()[-9:] == ["0.1%", "0.2%", "0.5%", "1%", "2%", "5%", "10%", "50%", "100%"]
    assert text.count("±0.010 ") >= 27


def test_on_a_narrow_terminal_the_table_continues_below(wide: Report) -> None:
    text = printed(wide, width=60, terminal=True)
    assert max(map(len, text.splitlines())) <= 60
    for value in TABLE_4.rows["mvae"]:
        assert as_printed(value) in text


def test_without_a_terminal_the_table_is_plain_and_complete(wide: Report) -> None:
    file = io.StringIO()
    show(wide, Console(file).rich)
    text = file.getvalue()
    assert "\x1b" not in text
    head = next(line for line in text.splitlines() if "0.1%" in line)
    assert head.rstrip().endswith("100%")


def test_an_ascii_console_gets_only_ascii_characters(wide: Report) -> None:
    assert "= 3/3" in printed(wide, encoding="ascii")


def test_the_caption_is_computed_from_the_trials(build: Build) -> None:
    cells = grid(("nn", "mvae"), (0.1,), seeds=2, epochs=10)
    longer = [
        Cell("nn", c.column, c.trial.with_(epochs=100), c.measure, c.published, c.arm) if c.row == "nn" else c
        for c in cells
    ]
    caption = "\n".join(build(longer, lambda _: 0.8).caption)
    assert "epochs 100, but 10 for mvae (paper 100)" in caption
    assert "image network mlp (paper dcgan)" in caption
    assert "beta at the end 1 for mvae (paper 0.5)" in caption
    assert "Same as the paper: latents 64; batch size 100" in caption
    assert "seeds 2; pairing reserved for mvae; targets own for mvae" in caption


def test_a_caption_of_many_rows_lists_values_and_not_every_row(build: Build) -> None:
    (cell,) = grid(("mvae",), (0.1,), seeds=1)
    places = [(pairing, targets) for pairing in ("reserved", "proportional", "resampled") for targets in ("own", "all")]
    variants = [
        Cell(f"mvae {p}/{t}", 0.1, cell.trial.with_(pairing=p, targets=t), ACCURACY, cell.published, "mvae")
        for p, t in places
    ]
    caption = "\n".join(build(variants, lambda _: 0.8).caption)
    assert "pairing by row (reserved, proportional, resampled); targets by row (own, all)" in caption


def test_a_field_that_no_arm_reads_is_not_in_the_caption(build: Build) -> None:
    caption = "\n".join(build(grid(("logreg",), (0.1,)), lambda _: 0.8).caption)
    assert "epochs" not in caption
    assert "pairing" not in caption


def test_a_data_set_without_a_published_table_has_no_comparison(build: Build) -> None:
    trials = [Trial.create(dataset="digits", model="nn", paired_fraction=0.5, seed=seed) for seed in range(2)]
    report = build([Cell("nn", 0.5, trial, ACCURACY, None, "nn") for trial in trials], lambda _: 0.9, table=None)
    assert "no published table" in report.title
    assert report.entries["nn", 0.5].verdict is Verdict.UNPUBLISHED
    assert "paper" not in printed(report)


def test_csv_and_parquet_hold_the_same_rows_at_full_precision(wide: Report, tmp_path: Path) -> None:
    write(tmp_path / "out", wide)
    for name, table in (("table", entry_table(wide)), ("runs", run_table(wide))):
        assert pyarrow.parquet.read_table(tmp_path / "out" / f"{name}.parquet").equals(table)
        with (tmp_path / "out" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        column = "mean" if name == "table" else "value"
        assert [float(line[column]) for line in lines] == table[column].to_pylist()


def test_every_run_is_listed_with_its_key_and_link(build: Build) -> None:
    cells = grid(("nn", "mvae"), (0.1, 1.0), seeds=2)
    keys = [cell.trial.key("f") for cell in cells]
    links = {key: f"http://host/#/runs/{key}" for key in keys}
    report = build(cells, lambda cell: 0.8 if cell.trial.seed == 0 else None, links=links)
    lines = run_table(report).to_pylist()
    assert [line["key"] for line in lines] == keys
    assert [line["link"] for line in lines] == list(links.values())
    assert {line["state"] for line in lines} == {"done", "missing"}
    assert all(f"[`{key}`]({link})" in markdown(report) for key, link in links.items())


def test_a_report_consists_of_the_documented_files(wide: Report, tmp_path: Path) -> None:
    paths = write(tmp_path / "out", wide)
    texts = ["table.md", "table.tex", "table.csv", "runs.csv", "differences.tex"]
    names = [*texts, "table.parquet", "runs.parquet", "accuracy.png", "accuracy.pdf", "accuracy.svg"]
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    for path, begins in zip(paths[-3:], (b"\x89PNG", b"%PDF-", b"<?xml"), strict=True):
        assert path.read_bytes().startswith(begins)


def test_a_report_without_any_results_is_written_too(build: Build, tmp_path: Path) -> None:
    report = build(grid(("nn", "mvae"), (0.1,)), lambda _: None)
    assert "differences.tex" not in {path.name for path in write(tmp_path / "out", report)}
    assert "0/3" in printed(report)


def test_equal_results_give_equal_report_files_byte_for_byte(wide: Report, tmp_path: Path) -> None:
    first, second = write(tmp_path / "one", wide), write(tmp_path / "two", wide)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_complete_report_is_not_drawn_again_but_an_incomplete_one_is(wide: Report, tmp_path: Path) -> None:
    def changed(path: Path) -> int:
        return path.stat().st_mtime_ns

    paths = [on_disk(path) for path in write(tmp_path / "out", wide)]
    before = {path: changed(path) for path in paths}
    write(tmp_path / "out", wide)
    assert {path: changed(path) for path in paths} == before
    named = {path.name: path for path in paths}
    for broken in (named[name] for name in ("table.md", "differences.tex", "runs.parquet", "accuracy.pdf")):
        whole = broken.read_bytes()
        broken.unlink()
        if broken.suffix in (
            ".md",
            ".tex",
            ".csv",
        ):  # written last: if it is old or damaged, the other files may be old too
            broken.write_bytes(whole[:-5])
        write(tmp_path / "out", wide)
        assert broken.read_bytes() == whole


def test_a_report_with_unchanged_inputs_and_files_is_not_made_again(
    wide: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [path.name for path in write(tmp_path / "out", wide)]
    monkeypatch.setattr(files, "_write_files", lambda *_: pytest.fail("made again"))
    assert [path.name for path in write(tmp_path / "out", wide)] == names


def test_a_report_overwritten_by_another_command_is_made_again(
    wide: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, real = report_of(tmp_path / "older", grid(("nn",), (1.0,)), lambda _: 0.5), files._write_files

    def overtaken(folder: Place, *given: Any) -> dict[str, str]:
        made = real(folder, *given)
        real(folder, older, None, None)
        return made

    with monkeypatch.context() as once:
        once.setattr(files, "_write_files", overtaken)
        write(tmp_path / "out", wide)
    write(tmp_path / "out", wide)
    assert (tmp_path / "out" / "table.md").read_text(encoding="utf-8") == markdown(wide)


def test_a_report_is_complete_even_if_its_record_cannot_be_written(
    wide: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Folder.write_bytes

    def refused(path: Folder, data: Any) -> int:
        if path.parent.name == files.RECORDS:
            raise PermissionError(13, "Permission denied")
        return real(path, data)

    monkeypatch.setattr(Folder, "write_bytes", refused)
    assert all(path.exists() for path in write(tmp_path / "out", wide))


def test_the_report_marks_runs_on_mixed_devices(wide: Report) -> None:
    run = Run("nn", 0.1, 0, "a" * 16, "accuracy-v1", 0.8, 10, None, None, mixed=True)
    report = Report(
        wide.dataset,
        wide.metric,
        wide.axis,
        None,
        ("nn",),
        (0.1,),
        {("nn", 0.1): Entry("nn", 0.1, "nn", None, 0.03, (run,))},
        (),
    )
    assert report.notes() == [
        f"mixed: nn 10% seed 0 (key {'a' * 16}) ran on several device types, torch versions or versions of a plug-in"
    ]


def test_rows_keep_the_requested_order_and_fractions_ascend(build: Build) -> None:
    report = build(grid(("mvae", "nn"), (1.0, 0.1), seeds=1), lambda _: 0.8)
    assert report.rows == ("mvae", "nn")
    assert report.columns == (0.1, 1.0)
