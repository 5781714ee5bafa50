"""The read-out: a logistic regression on a trained model's features, at any number of fractions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as ScikitLearn
from torch import nn

import mvae.training.loop
from mvae.data import Dataset, load
from mvae.evaluation.measures import compute
from mvae.measure import ACCURACY, readout
from mvae.models import ARMS, arm
from mvae.refusal import Refusal
from mvae.supervision import paired_set
from mvae.trial import Trial
from sweeps.planning.plan import plan
from sweeps.planning.state import TrialState
from sweeps.store.results import Results
from sweeps.store.store import Store
from sweeps.trials.messages import Job, Message
from sweeps.trials.run import run
from tests.crashes import on_disk
from tests.small_models import with_labels
from tests.sweeping import digits_job

FRACTION = 0.05


@pytest.fixture(scope="module")
def digits(cache: Path) -> Dataset:
    return load("digits", cache=cache)


def untrained(model: str, data: Dataset, seed: int = 3) -> tuple[nn.Module, Trial]:
    trial = Trial.create(dataset="digits", model=model, seed=seed)
    torch.manual_seed(0)
    return arm(model).build(trial, data.modalities), trial


@pytest.mark.parametrize("model", ["vae", "rbm"])
def test_a_read_out_is_scikit_learns_regression_on_the_paired_set_of_the_trials_seed(
    model: str, digits: Dataset
) -> None:
    module, trial = untrained(model, digits)
    kept, every = torch.from_numpy(paired_set(1297, FRACTION, trial.seed)), torch.arange(250)
    with torch.no_grad():
        features = [module(split.take(0, rows)).numpy() for split, rows in ((digits.train, kept), (digits.test, every))]
    reference = ScikitLearn(max_iter=1000).fit(features[0].astype(np.float64), digits.train.take(1, kept).numpy())
    expected = (reference.predict(features[1].astype(np.float64)) == digits.test.take(1, every).numpy()).mean()
    found = compute(readout(FRACTION), module, trial, digits)
    assert found.keys() == {"test/accuracy-f0.05", "train/accuracy-f0.05"}
    assert found["test/accuracy-f0.05"] == pytest.approx(expected, abs=1e-9)
    assert compute(readout(FRACTION), module, trial, digits) == found


def test_labels_outside_the_paired_set_do_not_change_a_read_out(digits: Dataset) -> None:
    module, trial = untrained("vae", digits)
    labels = digits.train.values[1].numpy()
    kept = paired_set(1297, FRACTION, trial.seed)
    spoilt = (labels + 1) % 10
    spoilt[kept] = labels[kept]
    assert compute(readout(FRACTION), module, trial, with_labels(digits, spoilt)) == compute(
        readout(FRACTION), module, trial, digits
    )


def test_a_read_out_of_one_class_predicts_that_class(digits: Dataset) -> None:
    module, trial = untrained("vae", digits)
    found = compute(readout(FRACTION), module, trial, with_labels(digits, np.full(1297, 7)))
    assert found["test/accuracy-f0.05"] == float((digits.test.values[1] == 7).double().mean())
    assert found["train/accuracy-f0.05"] == 1.0


def test_an_arm_gets_only_the_measures_it_declares(digits: Dataset) -> None:
    module, trial = untrained("vae", digits)
    able = "nn, logreg, jmvae, mvae, mvae_q, mopoe, mvtcae, mmvae, mmvae_plus"
    with pytest.raises(Refusal, match=rf"^arm vae has no accuracy: choose among {able}$"):
        compute(ACCURACY, module, trial, digits)
    module, trial = untrained("nn", digits)
    with pytest.raises(Refusal, match=r"^arm nn has no readout: choose among rbm, vae$"):
        compute(readout(0.5), module, trial, digits)
    assert {token for token, known in ARMS.items() if known.predicts} == {
        *("nn", "logreg", "jmvae", "mvae", "mvae_q"),
        *("mopoe", "mvtcae", "mmvae", "mmvae_plus"),
    }


def test_fewer_than_two_pairs_are_refused(digits: Dataset) -> None:
    module, trial = untrained("vae", digits)
    with pytest.raises(Refusal, match="keeps only 1 pair"):
        compute(readout(1 / 1297), module, trial, digits)


@pytest.fixture
def store(storage: Path) -> Store:
    return Store.open(storage, "main", create=True)


def done(job: Job) -> None:
    words: list[Message] = []
    run(job, words.append)
    assert words[-1].done, words[-1].details


@pytest.mark.parametrize("model", ["vae", "rbm"])
def test_another_fraction_of_a_trained_model_is_measured_without_training(
    model: str, store: Store, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = digits_job(store, cache, model=model, paired_fraction=1.0)
    done(replace(job, measures=(readout(0.1), readout(1))))
    before = {path.name: path.read_bytes() for path in on_disk(store.results.folder).glob("*.json")}
    assert sorted(before) == [f"{job.key}.readout-f0.1-v1.json", f"{job.key}.readout-f1-v1.json"]
    monkeypatch.setattr(mvae.training.loop, "steps_of", lambda *_: None)  # training would now fail
    done(replace(job, measures=(readout(0.05),)))
    after = {path.name: path.read_bytes() for path in on_disk(store.results.folder).glob("*.json")}
    assert after.keys() - before.keys() == {f"{job.key}.readout-f0.05-v1.json"}
    assert {name: after[name] for name in before} == before
    assert len({result.trial["seed"] for result in store.results}) == 1
    for result in store.results:
        assert not [name for name in result.metrics if name.startswith("best/")]


def test_an_older_version_of_a_read_out_is_replaced_only_at_its_fraction(store: Store, cache: Path) -> None:
    job = digits_job(store, cache, model="rbm")
    done(replace(job, measures=(readout(0.1), readout(1))))
    newer = replace(readout(0.1), version=2)
    assert Results(store.results.folder).superseded(newer) == [f"{job.key}.readout-f0.1-v1.json"]
    assert store.results.superseded(readout(0.1)) == []
    assert store.results.keys(readout(1).token) == [job.key]


def test_a_plan_counts_one_trial_for_all_fractions_and_only_missing_measures(store: Store, cache: Path) -> None:
    from tests.test_weak_supervision_cells import made  # makes the cells to plan

    small = ("--arms", "rbm", "--seeds", "0", "--epochs", "2")
    job = digits_job(store, cache, model="rbm", paired_fraction=1.0)
    done(replace(job, measures=(readout(0.1), readout(1))))
    fingerprint = load("digits", cache=cache).fingerprint
    assert plan(made(*small, "--fractions", "0.1,1"), store, fingerprint).todo == []
    planned = plan(made(*small, "--fractions", "0.05,0.1,1"), store, fingerprint)
    assert [(one.key, one.missing) for one in planned.todo] == [(job.key, (readout(0.05),))]
    assert [planned.state(index) for index in range(3)] == [TrialState.INTERRUPTED, TrialState.DONE, TrialState.DONE]
    measured = median(result.provenance["measured_in_seconds"] for result in store.results)
    assert 0 < planned.estimate.seconds < 1.5 * measured, "the estimate must contain no training time"
