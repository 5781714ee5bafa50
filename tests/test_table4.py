"""The investigation of Table 4: its candidate trials, how they are averaged, and the x axis of its curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from docs.report import table4
from docs.report.numbers import CURVES, DIAGNOSTIC, PAIRED_BATCHES, Committed, Curves, written, written_curves
from docs.report.sources import Sources
from mvae.trial import Trial
from sweeps.store.results import Result

ABOUT = {"git": "f" * 40, "torch": "2", "device": "cpu", "training_seconds": "1", "measured_in_seconds": ""}


def result(key: str, accuracy: float, **fields: Any) -> Result:
    asked = {"model": "mvae", "epochs": 20, "image_network": "mlp", "paired_fraction": 1.0, **fields}
    trial = Trial.create(dataset="fashion_mnist", **asked)
    return Result(key * 16, "accuracy-v1", trial.model_dump(), {"test/accuracy": accuracy}, ABOUT, [])


def sources(root: Path, *results: Result) -> Sources:
    folder = root / "docs" / "results"
    (folder / CURVES).mkdir(parents=True)
    (folder / f"{table4.FILE}.csv").write_text(written(Committed(results)), encoding="utf-8")
    return Sources(root)


def test_seeds_of_one_configuration_are_averaged_and_other_configurations_have_their_own_lines(tmp_path: Path) -> None:
    found = sources(
        tmp_path,
        result("a", 0.80, seed=0),
        result("b", 0.90, seed=1),
        result("c", 0.20, annealing_epochs=40),
        result("d", 0.40, label_weight=50),
    )
    cells = table4.by_set_up(found)
    accuracies = {place: [run.accuracy for run in runs] for place, runs in cells.items()}
    assert [(one.label_weight, one.final_beta, values) for (one, _), values in accuracies.items()] == [
        *((1.0, 1.0, [0.80, 0.90]), (50.0, 1.0, [0.40]), (1.0, 0.5, [0.20]))
    ]
    shown = table4.candidates(cells).splitlines()
    assert "0.850 ±0.071 (2 seeds)" in shown[2] and shown[-1].endswith("| 0.947 |")
    assert table4.by_weight(cells) == {1.0: [(1.0, pytest.approx(0.85)), (50.0, 0.40)]}


@pytest.mark.parametrize(
    "other", [{"epochs": 10}, {"image_network": "dcgan"}, {"learning_rate": 1e-4}, {"latents": 20}, {"model": "nn"}]
)
def test_a_trial_that_differs_elsewhere_is_no_candidate(tmp_path: Path, other: dict[str, Any]) -> None:
    assert table4.by_set_up(sources(tmp_path, result("a", 0.5, **other))) == {}


def test_curves_are_drawn_against_all_paired_batches_shown_so_far(tmp_path: Path) -> None:
    found = sources(tmp_path, result("a", 0.6, pairing="resampled", paired_fraction=0.05))
    recorded: Curves = {
        ("a" * 16, DIAGNOSTIC): (0.4, 0.6),
        ("a" * 16, PAIRED_BATCHES): (20.0, 30.0),
    }
    (found.results / CURVES / f"{table4.FILE}.csv").write_text(written_curves(recorded), encoding="utf-8")
    (((set_up, share), points),) = table4.accuracy_by_batches(table4.by_set_up(found)).items()
    assert (set_up.pairing, share) == ("resampled", 0.05)
    assert points == [(20.0, 0.4), (50.0, 0.6)]
