"""The training loop: one seed gives the same numbers bit for bit; no record is reported before its checkpoint."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mvae.data import Dataset, Split
from mvae.evaluation.accuracy import prediction_accuracy
from mvae.evaluation.samples import sample_grids
from mvae.models import ARMS
from mvae.models.elbo import Loss
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import ElboLearner
from mvae.sampling import steps
from mvae.supervision import paired_set
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import Progress, train
from tests.small_training import (
    EPOCHS,
    STEPS,
    assert_identical,
    digits,
    folder,
    interrupted,
    outcome,
    small_trial,
    unbroken,
)

__all__ = ["digits", "folder"]

SCRIPT = """
import hashlib, sys
from pathlib import Path
from mvae.training.checkpoint import Checkpoints
from mvae.data import load
from mvae.training.loop import train
from mvae.trial import Trial
from tests.small_models import shortened

__all__ = ["digits", "folder"]
trial = Trial.model_validate_json(sys.argv[1])
done = train(trial, shortened(load("digits", cache=Path(sys.argv[2])), 200), Checkpoints(Path(sys.argv[3]), "fresh"))
"""


# ---- one seed gives one result


@pytest.mark.parametrize("model", ARMS)
def test_one_seed_gives_the_same_numbers_bit_for_bit_in_a_reused_process(
    model: str, digits: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    first = train(small_trial(model), digits, Checkpoints(tmp_path / "1", "one"))
    train(small_trial("mvae", seed=9, targets="all"), digits, Checkpoints(tmp_path / "2", "two"))
    torch.manual_seed(2)
    again = train(small_trial(model), digits, Checkpoints(tmp_path / "3", "three"))
    assert_identical(first, again)


def test_concurrent_fresh_processes_give_the_same_numbers_for_any_thread_settings(
    digits: Dataset, cache: Path, tmp_path: Path
) -> None:
    trials = {model: small_trial(model) for model in ("mvae", "logreg")}
    processes = []
    for threads, (model, trial) in enumerate(trials.items(), start=1):
        arguments = [trial.model_dump_json(), str(cache), str(tmp_path / f"fresh-{model}")]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": str(threads)}
        processes.append(
            subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], env=environment, cwd=Path(__file__).parents[1])
        )
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    for model, trial in trials.items():
        kept = Checkpoints(tmp_path / f"fresh-{model}", "reader")
        last = kept.latest()
        assert last is not None
        here = unbroken(trial, digits, tmp_path / model)
        weights, metrics = outcome(here)
        there = kept.load(last, "model.pt")
        assert all(torch.equal(there[name], weight) for name, weight in weights.items())
        assert [(record["epoch"], record["metrics"]) for record in last.history] == metrics


@pytest.mark.parametrize("model", ARMS)
def test_different_seeds_give_different_numbers(model: str, digits: Dataset, tmp_path: Path) -> None:
    one, other = (
        train(small_trial(model, seed=seed), digits, Checkpoints(tmp_path / str(seed), "one")) for seed in (0, 1)
    )
    assert any(not torch.equal(a, b) for a, b in zip(outcome(one)[0].values(), outcome(other)[0].values(), strict=True))


def test_a_networks_own_random_draws_depend_only_on_seed_and_epoch(
    digits: Dataset, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws: dict[int, list[float]] = {}
    original = ElboLearner.loss

    def with_dropout(self: ElboLearner, batch: Any, step: int) -> Loss:
        draws.setdefault(step, []).append(float(torch.rand(())))
        return original(self, batch, step)

    monkeypatch.setattr(ElboLearner, "loss", with_dropout)
    trial = small_trial()
    unbroken(trial, digits, tmp_path)
    interrupted(trial, digits, folder, 2)
    torch.manual_seed(5)
    train(trial, digits, Checkpoints(folder, "second"))
    assert all(twice[0] == twice[1] for twice in draws.values())
    assert len({draw for draw, _ in draws.values()}) == EPOCHS * STEPS
    torch.manual_seed(5)
    train(small_trial(seed=1), digits, Checkpoints(tmp_path / "other", "one"))
    assert all(mine != other for mine, _, other in draws.values())


def test_training_does_not_change_the_callers_random_stream(digits: Dataset, folder: Path) -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    train(small_trial(epochs=1), digits, Checkpoints(folder, "one"))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_trial_uses_one_thread(digits: Dataset, folder: Path) -> None:
    torch.set_num_threads(2)
    train(small_trial(epochs=1), digits, Checkpoints(folder, "one"))
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("model", ARMS)
def test_validation_and_test_labels_have_no_influence(model: str, digits: Dataset, tmp_path: Path) -> None:
    image, label = digits.validation.values
    wrong = Split((image, (label + 1) % 10))
    clean = unbroken(small_trial(model), digits, tmp_path / "clean")
    spoilt = unbroken(
        small_trial(model), dataclasses.replace(digits, validation=wrong, test=wrong), tmp_path / "spoilt"
    )
    for name, weight in outcome(clean)[0].items():
        assert torch.equal(weight, outcome(spoilt)[0][name])


# ---- reports and checkpoints


@pytest.mark.parametrize("every", [0, 60])
def test_each_record_is_reported_once_and_only_after_its_checkpoint(
    every: float, digits: Dataset, folder: Path
) -> None:
    heard: list[int] = []

    def hear(progress: Progress) -> None:
        last = Checkpoints(folder, "reader").latest()
        covered = last.epoch if last else 0
        assert all(record["epoch"] <= covered for record in progress.committed)
        heard.extend(record["epoch"] for record in progress.committed)

    done = train(small_trial(), digits, Checkpoints(folder, "one"), heard=hear, checkpoint_every=every)
    assert heard == [record["epoch"] for record in done.history] == list(range(1, EPOCHS + 1))
    assert done.checkpoint.epoch == EPOCHS


@pytest.mark.parametrize(("every", "saved"), [(0, [1, 2, 3, 4]), (20, [2, 4]), (30, [3, 4]), (1e9, [4])])
def test_checkpoints_are_saved_after_the_given_seconds_and_after_the_last_epoch(
    every: float, saved: list[int], digits: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("mvae.training.loop.time.monotonic", lambda: clock[0])
    told: list[int] = []

    def hear(progress: Progress) -> None:
        if progress.committed:
            told.append(progress.epoch)

    def facts_after_ten_seconds(_: ElboLearner) -> dict[str, float]:
        clock[0] += 10.0
        return {}

    monkeypatch.setattr(ElboLearner, "facts", facts_after_ten_seconds)
    train(small_trial(), digits, Checkpoints(folder, "one"), heard=hear, checkpoint_every=every)
    assert told == saved


def test_a_checkpoint_keeps_the_callers_provenance(digits: Dataset, folder: Path) -> None:
    done = train(small_trial(epochs=1), digits, Checkpoints(folder, "one"), provenance=lambda: {"device": "abacus"})
    assert done.checkpoint.device == "abacus"


def test_each_epoch_records_loss_parts_and_validation(digits: Dataset, folder: Path) -> None:
    done = train(small_trial(), digits, Checkpoints(folder, "one"))
    parts = {"train/loss", "train/kl", "train/log_likelihood_image", "train/log_likelihood_label"}
    for record in done.history:
        assert record["metrics"].keys() == parts | {"validation/accuracy", "train/paired_batches"}


def test_a_test_curve_is_recorded_every_epoch_and_changes_nothing_else(digits: Dataset, folder: Path) -> None:
    plain = train(small_trial(), digits, Checkpoints(folder, "one"))
    watched = train(small_trial(), digits, Checkpoints(folder / "watched", "one"), test_curve=True)
    curve = [record["metrics"].pop("diagnostic/test_accuracy") for record in watched.history]
    assert [record["metrics"] for record in watched.history] == [record["metrics"] for record in plain.history]
    assert curve[-1] == prediction_accuracy(watched.model, digits.modalities, digits.test)


@pytest.mark.parametrize(("pairing", "fraction"), [("reserved", 0.01), ("proportional", 0.3), ("resampled", 0.5)])
def test_the_number_of_paired_batches_counts_the_complete_examples_of_an_epoch(
    digits: Dataset, folder: Path, pairing: str, fraction: float
) -> None:
    trial = small_trial(pairing=pairing, paired_fraction=fraction)
    (first, *_) = train(trial, digits, Checkpoints(folder, "one")).history
    shown = steps(
        pairing=pairing,
        targets="own",
        n=len(digits.train),
        paired=paired_set(len(digits.train), fraction, trial.seed, dataset="digits"),
        batch_size=trial.batch_size,
        seed=trial.seed,
        epoch=0,
        modalities=2,
    )
    complete = sum(all(index >= 0 for index in row) for step in shown for row in step.index_RM.tolist())
    assert first["metrics"]["train/paired_batches"] == complete / trial.batch_size
    assert complete > 0


def test_a_recorded_loss_is_the_mean_over_the_epochs_steps(
    digits: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []
    original = ElboLearner.loss

    def noted(self: ElboLearner, batch: Any, step: int) -> Loss:
        loss = original(self, batch, step)
        assert step == len(losses)
        losses.append(float(loss.total.detach()))
        return loss

    monkeypatch.setattr(ElboLearner, "loss", noted)
    done = train(small_trial(epochs=2), digits, Checkpoints(folder, "one"))
    means = [sum(losses[:STEPS]) / STEPS, sum(losses[STEPS:]) / STEPS]
    assert [record["metrics"]["train/loss"] for record in done.history] == pytest.approx(means)


# ---- number formats and compilation


@pytest.mark.parametrize("model", sorted(ARMS.keys() - {"logreg"}))
def test_every_gradient_arm_trains_in_bfloat16_about_as_well_as_in_float32(
    model: str, digits: Dataset, tmp_path: Path
) -> None:
    half, full = (
        train(small_trial(model, precision=precision), digits, Checkpoints(tmp_path / precision, "one"))
        for precision in ("bfloat16", "float32")
    )
    one, other = (trained.history[-1]["metrics"]["train/loss"] for trained in (half, full))
    assert one != other
    assert one == pytest.approx(other, rel=0.05, abs=0.3)


@pytest.mark.parametrize("model", ["mvae", "mvae_q", "nn"])
def test_bfloat16_trains_close_to_float32_and_keeps_float32_weights(
    model: str, digits: Dataset, tmp_path: Path
) -> None:
    plain = train(small_trial(model), digits, Checkpoints(tmp_path / "1", "one"))
    narrow = train(small_trial(model, precision="bfloat16"), digits, Checkpoints(tmp_path / "2", "two"))
    assert all(weight.dtype == torch.float32 for weight in outcome(narrow)[0].values())
    for record, reference in zip(narrow.history, plain.history, strict=True):
        loss, expected = record["metrics"]["train/loss"], reference["metrics"]["train/loss"]
        assert loss != expected, "nothing was computed in bfloat16"
        assert loss == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mvae", "nn"])
def test_compiled_networks_agree_to_1e_4(model: str, digits: Dataset, tmp_path: Path) -> None:
    trial = small_trial(model, epochs=3, batch_size=200)
    plain = train(trial, digits, Checkpoints(tmp_path / "1", "one"))
    compiled = train(trial.with_(compile=True), digits, Checkpoints(tmp_path / "2", "two"))
    weights, reference = outcome(compiled)[0], outcome(plain)[0]
    assert weights.keys() == reference.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, reference[name], rtol=1e-4, atol=1e-4, msg=name)
    for record, other in zip(compiled.history, plain.history, strict=True):
        assert record["metrics"]["train/loss"] == pytest.approx(other["metrics"]["train/loss"], rel=1e-4)


@pytest.mark.parametrize(("epochs", "looks"), [(4, [1, 2, 3]), (1, []), (40, [5, 10, 15, 20, 25, 30, 35])])
def test_training_is_watched_at_equal_intervals_before_its_end(
    digits: Dataset, tmp_path: Path, epochs: int, looks: list[int]
) -> None:
    seen: list[tuple[int, bool]] = []
    trial = small_trial(epochs=epochs, batch_size=200)
    train(trial, digits, Checkpoints(tmp_path, "a"), look=lambda model, epoch: seen.append((epoch, model.training)))
    assert seen == [(epoch, False) for epoch in looks]


def test_watching_training_changes_no_number(digits: Dataset, tmp_path: Path) -> None:
    def look(model: nn.Module, epoch: int) -> None:
        assert isinstance(model, Multimodal)
        sample_grids(model, digits.test, seed=epoch)

    trial = small_trial()
    looked_at = train(trial, digits, Checkpoints(tmp_path / "looked", "a"), look=look)
    assert_identical(unbroken(trial, digits, tmp_path), looked_at)
