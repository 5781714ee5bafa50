"""The example arm with its own loss and a mixture posterior (docs/examples/my_mixture.py) works like a built-in arm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mvae import plugins
from mvae.data import Dataset
from mvae.evaluation.likelihood_estimates import likelihood_metrics
from mvae.models import arm
from mvae.models.posteriors import Mixture
from mvae.models.rows import Presence
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import train
from tests.plugin_files import EXAMPLES
from tests.small_models import LATENTS, small_model
from tests.small_training import assert_identical, digits, folder, interrupted, small_trial, unbroken
from tests.sweeping import ROOT
from tests.test_successors import (
    BATCH,
    BETA,
    EVERY,
    WEIGHTS,
    assert_same,
    expert,
    kl,
    log_prob,
    normal,
    rows_of,
    values_of,
)

__all__ = ["digits", "folder"]

FILE = EXAMPLES / "my_mixture.py"


@pytest.fixture(autouse=True)
def loaded() -> Iterator[None]:
    plugins.load(plugins.read([FILE]))
    yield
    plugins.forget()


@EVERY
def test_the_loss_equals_a_plain_loop(pattern: np.ndarray | None) -> None:
    learner: Any = arm("mixture").learner
    rule = learner.__annotations__["model"]
    rule = vars(__import__(learner.__module__, fromlist=["x"]))[rule] if isinstance(rule, str) else rule
    model: Any = small_model(3, rule, normalised=False)
    present = rows_of(pattern)
    whole, given = values_of(present)
    noise = normal(len(present), LATENTS)
    choice = torch.rand(len(present), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    plain = torch.zeros((), dtype=torch.float64)
    for r, has in enumerate(present):
        a = np.flatnonzero(has).tolist()
        experts = [expert(model, m, whole[m][r]) for m in a]
        plain = plain + BETA / len(a) * sum(kl(mean, log_var.exp()) for mean, log_var in experts)
        mean, log_var = experts[int(choice[r] * len(a))]
        z = mean + torch.exp(log_var / 2) * noise[r]
        plain = plain - sum(WEIGHTS[m] * log_prob(model, m, z, whole[m][r]) for m in a)
    found = learner.objective(
        model, Presence.of(present), given, noise, choice, beta=BETA, weights=WEIGHTS, batch_size=BATCH
    )
    assert_same(found.total, plain / BATCH, model)


def test_the_posterior_of_two_modalities_is_a_mixture_with_a_likelihood(digits: Dataset, tmp_path: Path) -> None:
    done = train(small_trial("mixture"), digits, Checkpoints(tmp_path / "run", "one"))
    rows = torch.arange(5)
    both = {"image": digits.test.take(0, rows), "label": digits.test.take(1, rows)}
    model: Any = done.model
    q = model.infer(both)
    assert isinstance(q, Mixture) and q.components == 2
    single = model.infer({"image": both["image"]})
    torch.testing.assert_close(q.parts.mean[:, 0], single.mean)
    found = likelihood_metrics(done.model, digits, samples=20, seed=0)
    assert -100 < found["test/log_joint"] < 0


def test_a_killed_training_resumes_bit_for_bit(digits: Dataset, folder: Path, tmp_path: Path) -> None:
    trial = small_trial("mixture")
    interrupted(trial, digits, folder, 1)
    resumed = train(trial, digits, Checkpoints(folder, "second"))
    assert_identical(resumed, unbroken(trial, digits, tmp_path))


def test_the_page_shows_the_loss_that_the_tests_run() -> None:
    page = (ROOT / "docs" / "extend" / "arm.md").read_text(encoding="utf-8")
    shown = FILE.read_text(encoding="utf-8")
    assert shown[shown.index("class MixtureOfExperts") : shown.index("class MixtureLearner")].strip() in page
