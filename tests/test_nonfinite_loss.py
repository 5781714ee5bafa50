"""A loss or weight that is not finite stops the trial, names the step, and keeps the last good checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import mvae.training.loop
from mvae.data import Dataset
from mvae.models.elbo import Loss
from mvae.models.mvae import ElboLearner
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import NonFiniteLoss, train
from mvae.workers import ALONE
from tests.small_training import STEPS, digits, folder, small_trial

__all__ = ["digits", "folder"]


@pytest.mark.parametrize(("position", "name", "other"), [(0, "image", "label"), (1, "label", "image")])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_non_finite_loss_stops_the_trial_names_the_step_and_keeps_the_last_checkpoint(
    value: float, position: int, name: str, other: str, digits: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ElboLearner.loss

    def broken(self: ElboLearner, batch: Any, step: int) -> Loss:
        if step == 2 * STEPS + 2:
            with torch.no_grad():
                list(self.model.decoders[position].parameters())[-1].fill_(value)
        return original(self, batch, step)

    monkeypatch.setattr(ElboLearner, "loss", broken)
    with pytest.raises(NonFiniteLoss, match=rf"epoch 3, step 3 \(log_likelihood_{name}\)") as error:
        train(small_trial(), digits, Checkpoints(folder, "one"), checkpoint_every=0)
    assert other not in str(error.value)
    assert "\n" not in str(error.value)
    last = Checkpoints(folder, "reader").latest()
    assert last is not None
    assert last.epoch == 2
    weights = Checkpoints(folder, "reader").load(last, "model.pt")
    assert all(torch.isfinite(weight).all() for weight in weights.values())


@pytest.mark.parametrize("model", ["mvae", "mvae_q", "nn"])
def test_a_learning_rate_that_is_too_large_gives_a_non_finite_loss(model: str, digits: Dataset, folder: Path) -> None:
    with pytest.raises(NonFiniteLoss, match=r"epoch 1, step \d+ .*label.*lower the learning rate"):
        train(small_trial(model, learning_rate=1e30), digits, Checkpoints(folder, "one"))
    assert Checkpoints(folder, "reader").latest() is None


def test_non_finite_weights_after_an_epochs_last_step_become_neither_checkpoint_nor_result(
    digits: Dataset, folder: Path
) -> None:
    one_step = {"batch_size": 10_000, "epochs": 1}
    with pytest.raises(NonFiniteLoss, match=r"weights are not finite after the last step of epoch 1 \(.*weight\)"):
        train(small_trial("nn", learning_rate=3e38, **one_step), digits, Checkpoints(folder, "one"))
    assert Checkpoints(folder, "reader").latest() is None


@pytest.mark.parametrize("check_every", [1, 3, 50])
def test_the_first_non_finite_step_is_named_even_if_losses_are_checked_rarely(check_every: int) -> None:
    watch = mvae.training.loop._FiniteWatch(epoch=6, check_every=check_every, workers=ALONE)

    def an_epoch() -> None:
        for step in range(10):
            part = torch.tensor(torch.inf if step >= 4 else 1.0)
            watch.note(Loss(torch.tensor(1.0) * part, {"kl": torch.tensor(0.0), "log_likelihood_label": part}))
        watch.means()

    with pytest.raises(NonFiniteLoss, match=r"epoch 7, step 5 \(log_likelihood_label\)"):
        an_epoch()
