"""Coherence is compared with a study's numbers under its protocol, and only for arms that are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mvae.measure import REAL
from mvae.refusal import Refusal
from mvae.storage.objects import place
from mvae.trial import Trial
from pipelines import coherence
from sweeps.cli.options import read
from sweeps.planning.plan import Cell, plan
from sweeps.store.results import Result
from sweeps.store.store import Store
from sweeps.table.comparison import Report, Verdict, tabulate
from sweeps.table.findings import findings

PAPER = ("--dataset", "polymnist", "--preset", "paper")


def cells_of(*typed: str) -> list[Cell]:
    return list(coherence.cells(read(coherence.Options, typed)))


def trials_of(*typed: str) -> dict[str, Trial]:
    """Trials by row."""
    return {cell.row: cell.trial for cell in cells_of(*typed) if cell.row != coherence.REAL_IMAGES}


def test_missing_images_follow_the_published_protocol() -> None:
    trials = trials_of("--arms", "mvae,mvtcae", "--study", "multivae", "--missing", "0,0.2")
    for row, trial in trials.items():
        dropped = "missing" in row
        assert (trial.keep_probability, trial.keep_first) == ((0.8, True) if dropped else (1.0, False))
    assert not trials["MVAE, 0.2 missing"].unimodal_terms and trials["MVAE"].unimodal_terms
    assert trials_of("--arms", "mvae", "--missing", "0.2")["MVAE, 0.2 missing"].unimodal_terms


def test_the_runs_on_polymnist_free_have_the_settings_that_they_had() -> None:
    typed = "--dataset polymnist_free --train-examples 10000 --batch-size 64 --epochs 40 --arms mopoe,mvtcae,mvae"
    common: dict[str, Any] = {"dataset": "polymnist_free", "train_examples": 10_000, "batch_size": 64, "epochs": 40}
    for cell in cells_of(*typed.split()):
        if cell.row == coherence.REAL_IMAGES:
            fields: dict[str, Any] = {"epochs": 20, "batch_size": 128, "learning_rate": 1e-3}
            own: dict[str, Any] = {"modality": str(cell.column)}
            assert cell.trial == Trial.create(dataset="polymnist_free", model="judge", own=own, **fields)
        else:
            own = {} if cell.arm == "mvae" else {"beta": 2.5}
            assert cell.trial == Trial.create(model=cell.arm, own=own, annealing_epochs=0, **common)


@pytest.mark.parametrize(
    ("study", "missing", "column", "row", "published"),
    [
        ("mvtcae", "0", "4 inputs", "MVAE (MVTCAE study)", 0.525),
        ("mvtcae", "0", "probe 5", "MVAE (MVTCAE study)", 0.948),
        ("multivae", "0", "4 inputs", "MVAE (MultiVae study)", 0.513),
        ("multivae", "0.2", "1 input", "MVAE, 0.2 missing (MultiVae study)", 0.40),
        ("multivae", "0.5", "4 inputs", "MVAE, 0.5 missing (MultiVae study)", 0.515),
        ("multivae", "0.3", "4 inputs", "MVAE, 0.3 missing", None),
        ("mvtcae", "0.2", "4 inputs", "MVAE, 0.2 missing", None),
    ],
)
def test_a_cell_names_the_study_whose_value_is_shown_next_to_it(
    study: str, missing: str, column: str, row: str, published: float | None
) -> None:
    cells = cells_of(*PAPER, "--arms", "mvae", "--seeds", "0", "--study", study, "--missing", missing)
    (found,) = [cell for cell in cells if cell.column == column and cell.arm == "mvae"]
    assert (found.row, found.published) == (row, published)


def test_other_backgrounds_have_no_published_values() -> None:
    cells = cells_of("--dataset", "polymnist_free", "--study", "multivae", "--missing", "0,0.2")
    assert all(cell.published is None and "study" not in cell.row for cell in cells)


@pytest.mark.parametrize("typed", ["1", "-0.1", "nan", "half"])
def test_a_share_of_missing_images_outside_0_to_1_is_refused(typed: str) -> None:
    line = rf"^--missing {typed}: {typed} is not a fraction of missing images; write numbers"
    with pytest.raises(Refusal, match=line):
        read(coherence.Options, ["--missing", typed])


def test_an_arm_that_needs_complete_tuples_is_refused_with_missing_images() -> None:
    with pytest.raises(Refusal, match="arm jmvae cannot be trained with missing images: choose among mvae"):
        cells_of("--arms", "jmvae", "--missing", "0.2")


def report(folder: Path, rebuilt: dict[str, float], judges: float = 0.97) -> Report:
    """A report of three seeds on polymnist. Every quantity of an arm is half the share of images that it rebuilds."""
    options = read(coherence.Options, [*PAPER, "--arms", ",".join(rebuilt), "--seeds", "0-2", "--epochs", "300"])
    sweep, store = coherence.sweep(options), Store(place(folder), "main")
    fingerprints = {"polymnist": "f" * 64}
    planned = plan(sweep.cells, store, fingerprints)
    for key, one in planned.trials.items():
        if one.measures == (REAL,):
            metrics = {REAL.metric: judges}
        else:
            value, seed = rebuilt[one.trial.model], one.trial.seed
            metrics = dict.fromkeys(coherence.QUANTITIES.values(), value / 2 + seed / 100)
            metrics["test/reconstruction"] = value
        for measure in one.measures:
            store.results.write(Result(key, measure.token, one.trial.model_dump(), metrics, {}, []))
    made = tabulate(planned, store.results, table=sweep.table, axis=sweep.axis, heading=sweep.heading)
    return made.without_comparing(sweep.under_trained(made))


def test_an_under_trained_arm_is_neither_judged_nor_ranked_nor_subtracted(tmp_path: Path) -> None:
    made = report(tmp_path, {"mvae": 0.6, "mopoe": 0.85, "mvtcae": 0.9})
    weak = [entry for entry in made.in_order() if entry.arm == "mvae"]
    assert {entry.verdict for entry in weak} == {Verdict.UNDER_TRAINED}
    assert all(entry.difference is None for entry in weak) and any(entry.published is not None for entry in weak)
    assert {entry.arm for entry in made.judged} == {"mopoe", "mvtcae"}
    assert not any("MVAE (" in pair.row or "MVAE (" in pair.baseline for pair in made.order.pairs)
    assert {(one.row, one.baseline) for one in made.contrasts.values()} == {
        ("MVTCAE (MVTCAE study)", "MoPoE (MVTCAE study)")
    }
    (line,) = coherence.statements(made)
    assert line == (
        "MVAE (MVTCAE study) is under-trained and not compared: 0.60 of the images rebuilt from all inputs keep their"
        " digit, below 0.8."
    )


def test_trained_arms_with_good_classifiers_are_all_compared(tmp_path: Path) -> None:
    made = report(tmp_path, {"mvae": 0.8, "mvtcae": 0.9}, judges=0.95)
    assert {entry.arm for entry in made.judged} == {"mvae", "mvtcae"} and not list(coherence.statements(made))


def test_with_weak_classifiers_no_arm_is_compared(tmp_path: Path) -> None:
    made = report(tmp_path, {"mvae": 0.9, "mvtcae": 0.9}, judges=0.94)
    assert not made.judged and not made.contrasts
    assert not any("Verdicts" in line or "Order" in line for line in findings(made))
    lines = list(coherence.statements(made))
    assert lines[0] == ("The classifier of m0 gets 0.94 of the real test images right, below 0.95: no arm is compared.")
    assert len(lines) == 5
