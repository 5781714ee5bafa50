"""MultiVae's protocol for missing values: the first modality is always there, and the MVAE has its joint term alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mvae.data import DATASETS
from mvae.models import arm
from mvae.models.annealing import annealed_beta
from mvae.models.elbo import elbo_terms, negative_elbo_by_terms
from mvae.models.mvae import ElboLearner
from mvae.refusal import Refusal
from mvae.streams import numpy_generator
from mvae.supervision import kept_values
from mvae.trial import Trial
from tests.small_models import TINY_19, tiny_19


@pytest.fixture(autouse=True)
def tiny19(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "tiny19", TINY_19)


def learner(**fields: Any) -> ElboLearner:
    trial, data = Trial.create(dataset="tiny19", model="mvae", **fields), tiny_19()
    torch.manual_seed(0)
    return ElboLearner(arm("mvae").build(trial, data.modalities), trial, data)


def test_the_first_modality_is_never_missing_and_the_others_are_dropped_as_before() -> None:
    kept, free = (kept_values(4000, 5, 0.5, seed=2, keep_first=first) for first in (True, False))
    assert kept[:, 0].all() and not free[:, 0].all()
    assert (kept[:, 1:] == free[:, 1:]).all()
    assert kept[:, 1:].mean() == pytest.approx(0.5, abs=0.01)
    made = learner(keep_probability=0.3, keep_first=True, seed=6)
    assert all(step.present_RM[:, 0].all() for step in made._steps(0))


@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize("dropping", [{}, {"keep_probability": 0.4, "keep_first": True}])
def test_without_unimodal_terms_the_loss_is_the_other_terms_of_the_plain_loop(k: int, dropping: dict[str, Any]) -> None:
    made = learner(k=k, unimodal_terms=False, pairing="proportional", **dropping)
    step, batch = next(made._steps(0, "own", k)), next(made.batches(0))
    subsets = elbo_terms(19, k, numpy_generator(made.trial.seed, "subsets", 0))[20:]
    terms = np.concatenate([np.ones((1, 19), bool), subsets])
    examples = [made.split.take(m, torch.from_numpy(step.index_RM[:, m].clip(0))) for m in range(19)]
    slow = negative_elbo_by_terms(
        made.model,
        examples,
        step.present_RM,
        terms,
        np.ones((1 + k, len(step.index_RM)), bool),
        batch.noise,
        targets="own",
        beta=float(annealed_beta(5, made.annealed_steps)),
        weights=made.weights,
        batch_size=made.trial.batch_size,
    )
    assert made.loss(batch, 5).total.item() == pytest.approx(slow.item(), rel=1e-5)


def test_without_unimodal_terms_unpaired_values_are_refused() -> None:
    for fields in ({"pairing": "reserved"}, {"pairing": "proportional", "paired_fraction": 0.5}):
        with pytest.raises(Refusal, match="unimodal_terms = False leaves unpaired values without a term: use it only"):
            Trial.create(dataset="digits", model="mvae", unimodal_terms=False, **fields)
