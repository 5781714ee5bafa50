"""Steps recorded on a GPU equal the loop's eager steps: bit for bit, resumed or not, for every arm that records."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from benchmarks.timing import random_data
from mvae.data import Dataset, source
from mvae.models import ARMS, arm
from mvae.models.annealing import annealed_beta, annealed_steps
from mvae.training import steps
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import Trained, train
from mvae.training.optimiser import Adam
from mvae.training.steps import EAGER_STEPS, RecordedSteps, Steps, step_signature, steps_of, tensors_of, with_tensors
from mvae.trial import Trial
from mvae.workers import ALONE, Workers

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")

EXAMPLES, BATCH = 330, 50
"""The last step of an epoch is short."""


def a_trial(model: str = "mvae", dataset: str = "mnist", **fields: Any) -> Trial:
    small = {"epochs": 3, "batch_size": BATCH, "latents": 8, "paired_fraction": 0.2}
    return Trial.create(dataset=dataset, model=model, **{**small, **fields})


def the_data(trial: Trial) -> Dataset:
    return random_data(trial.dataset, source(trial.dataset).modalities, EXAMPLES)


def taken(trial: Trial, way: type[Steps] | None = None) -> Steps:
    data, chosen = the_data(trial), arm(trial.model)
    assert chosen.learner is not None
    model = chosen.build(trial, data.modalities)
    learner = chosen.learner(model, trial, data)
    optimizer = Adam(model.parameters(), lr=1e-3, fused=True)
    if way is not None:
        return way(learner, model, optimizer, trial)
    return steps_of(learner, model, optimizer, trial, data.modalities, ALONE)


def signature_of(batch: Any) -> Hashable:
    made = step_signature(batch)
    assert made is not None
    return made[0]


def test_a_batch_is_rebuilt_from_its_tensors_with_the_same_plan() -> None:
    for model in ("mvae", "nn", "jmvae"):
        batch = next(taken(a_trial(model)).learner.batches(0))
        parts = tensors_of(batch)
        assert len(parts) == 3
        other = with_tensors(batch, [part.clone() for part in parts])
        assert type(other) is type(batch)
        for one, copy in zip(parts, tensors_of(other), strict=True):
            assert torch.equal(one, copy)
            assert one.data_ptr() != copy.data_ptr()
        assert step_signature(other) == step_signature(batch)


@pytest.mark.parametrize("model", ["mvae", "nn", "vae"])
def test_an_epoch_has_few_step_signatures_and_the_next_epoch_has_the_same(model: str) -> None:
    learner = taken(a_trial(model, pairing="reserved" if model == "mvae" else None)).learner
    signatures = [[signature_of(batch) for batch in learner.batches(epoch)] for epoch in range(2)]
    assert signatures[0] == signatures[1]
    assert len(set(signatures[0])) <= 3
    whole = signatures[0][:-1]
    assert max(whole.count(one) for one in whole) >= len(whole) / 2


def test_two_steps_share_a_signature_exactly_if_they_have_equally_many_pairs() -> None:
    learner = taken(a_trial(pairing="proportional", paired_fraction=0.5, batch_size=4)).learner
    seen: dict[int, set[Hashable]] = {}
    for epoch in range(3):
        for batch in list(learner.batches(epoch))[:-1]:
            pairs = sum(map(len, batch.values)) - batch.noise.shape[1]
            seen.setdefault(pairs, set()).add(signature_of(batch))
    assert len(seen) > 3
    assert {len(signatures) for signatures in seen.values()} == {1}
    assert len(set.union(*seen.values())) == len(seen)


@dataclass
class Labelled:
    values: tuple[torch.Tensor, ...]
    name: str


class Pair(NamedTuple):
    one: torch.Tensor
    other: torch.Tensor


def test_a_batch_that_cannot_be_rebuilt_has_no_signature() -> None:
    x = torch.zeros(3)
    assert step_signature((x, x)) is not None
    assert step_signature(Labelled((x,), "a")) is not None
    for batch in ([x, x], {"x": x}, (x, 3), Pair(x, x), Labelled((), "a"), ()):
        assert step_signature(batch) is None


@pytest.mark.parametrize("fields", [{}, {"annealing_share": 1.0}, {"annealing_epochs": 2}])
def test_the_kl_weight_on_a_gpu_is_the_cpus_rounded_to_float32(fields: dict[str, Any]) -> None:
    annealed = annealed_steps(a_trial(epochs=7, **fields), 41)
    for step in range(7 * 41):
        recorded = annealed_beta(torch.tensor(float(step), dtype=torch.float64), annealed)
        assert torch.equal(torch.as_tensor(recorded, dtype=torch.float32), torch.tensor(annealed_beta(step, annealed)))


def test_steps_are_recorded_only_on_a_gpu_with_one_worker_and_a_suitable_arm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def recorded(trial: Trial, workers: Workers = ALONE, device: str = "cuda") -> bool:
        return steps.may_be_recorded(trial, source(trial.dataset).modalities, workers, torch.device(device))

    assert recorded(a_trial())
    assert not recorded(a_trial(), device="cpu")
    assert not recorded(a_trial(), Workers(0, 2))
    assert not recorded(a_trial(compile=True))
    assert not recorded(a_trial("rbm"))
    assert not recorded(a_trial(dataset="multi_mnist"))
    monkeypatch.setenv(steps.SWITCH, "0")
    assert not recorded(a_trial())
    assert type(taken(a_trial())) is Steps


class Counted(RecordedSteps):
    """Counts recordings and replays without a GPU."""

    def __init__(self, *given: Any) -> None:
        Steps.__init__(self, *given)
        self.recorded, self._seen = {}, {}
        self.told: list[str] = []

    def _step(self, batch: Any, step: int | torch.Tensor) -> Any:
        self.told.append("eager")

    def _record(self, batch: Any) -> Any:
        self.told.append("recorded")
        return self

    def play(self, batch: Any, step: int) -> Any:
        self.told.append("played")


def test_a_signature_is_recorded_after_enough_eager_steps_and_replayed_from_then_on() -> None:
    counted = taken(a_trial(pairing="proportional", paired_fraction=1.0), Counted)
    assert isinstance(counted, Counted)
    batch = next(counted.learner.batches(0))
    for step in range(6):
        counted(batch, step)
    assert counted.told == ["eager"] * EAGER_STEPS + ["recorded", "played", "played", "played"]


def test_steps_that_never_recur_are_not_recorded_and_eventually_forgotten() -> None:
    counted = taken(a_trial(dataset="mnist19", paired_fraction=1.0, k=3, batch_size=2), Counted)
    assert isinstance(counted, Counted)
    for step, batch in enumerate(counted.learner.batches(0)):
        counted(batch, step)
        assert len(counted._seen) <= steps.MOST_SEEN
    assert set(counted.told) == {"eager"}


def test_signatures_beyond_the_recording_limit_stay_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MOST_GRAPHS", 1)
    counted = taken(a_trial(pairing="proportional", paired_fraction=1.0), Counted)
    assert isinstance(counted, Counted)
    whole, *_, short = counted.learner.batches(0)
    for step in range(5):
        counted(whole, step)
        counted(short, step)
    assert counted.told.count("recorded") == 1
    assert counted.told.count("played") == 2
    assert counted.told.count("eager") == 3 + 5


def trained(trial: Trial, folder: Path, recorded: bool, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Trained:
    monkeypatch.setenv(steps.SWITCH, "1" if recorded else "0")
    return train(trial, the_data(trial).to(torch.device("cuda")), Checkpoints(folder, "one"), **more)


def differences(one: Trained, other: Trained) -> list[str]:
    """Names of unequal weights, and how far apart they are."""
    weights, others = one.model.state_dict(), other.model.state_dict()
    return [
        f"{name} {float((weight - others[name]).abs().max()):.2g}"
        for name, weight in weights.items()
        if not torch.equal(weight, others[name])
    ]


SUCCESSORS = ("mopoe", "mvtcae", "mmvae", "mmvae_plus")

RECORDED_ARMS = [token for token, one in ARMS.items() if one.cuda_graphs]

VARIANTS: list[dict[str, Any]] = [
    *({"model": model} for model in RECORDED_ARMS),
    *({"model": model, "image_network": "dcgan", "dataset": "fashion_mnist"} for model in RECORDED_ARMS),
    {"pairing": "proportional", "paired_fraction": 0.9, "epochs": 16},
    *({"pairing": pairing, "targets": targets} for pairing in ("reserved", "resampled") for targets in ("own", "all")),
    {"paired_fraction": 1.0, "fixed_noise": True},
    {"paired_fraction": 1.0, "precision": "bfloat16"},
    *({"dataset": name, "paired_fraction": 1.0, "k": 0} for name in ("mnist19", "celeba", "celeba19", "vision_faces")),
    {"model": "mopoe", "own": {"beta": 2.5, "full_subset_prior": True}},
    {"model": "mmvae", "own": {"samples": 3}},
    {"model": "mmvae_plus", "own": {"samples": 3, "private_latents": 4}},
    *({"model": model, "dataset": "celeba", "paired_fraction": 1.0} for model in SUCCESSORS),
    *({"model": model, "dataset": "celeba19", "paired_fraction": 1.0} for model in ("mvtcae", "mmvae")),
]


@needs_gpu
@pytest.mark.parametrize("fields", VARIANTS, ids=lambda fields: " ".join(map(str, fields.values())))
def test_recorded_steps_equal_eager_ones_bit_for_bit(
    fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = a_trial(**fields)
    assert {modality.kind for modality in source(trial.dataset).modalities} <= steps.RECORDED_KINDS
    played, play = [], steps._Recorded.play

    def counted(self: Any, batch: Any, step: int) -> Any:
        played.append(step)
        return play(self, batch, step)

    monkeypatch.setattr(steps._Recorded, "play", counted)
    recorded = trained(trial, tmp_path / "recorded", True, monkeypatch)
    assert len(played) > 5
    eager = trained(trial, tmp_path / "eager", False, monkeypatch)
    assert differences(recorded, eager) == []
    assert [record["metrics"] for record in recorded.history] == [record["metrics"] for record in eager.history]
    assert all(math.isfinite(record["metrics"]["train/loss"]) for record in recorded.history)


class Cut(Exception):
    """Simulates the death of the trial's process."""


@needs_gpu
def test_recorded_training_resumes_to_the_same_numbers_and_a_cpu_can_load_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = a_trial(pairing="reserved", targets="all", epochs=4)
    whole = trained(trial, tmp_path / "whole", True, monkeypatch)

    def cut(progress: Any) -> None:
        if progress.epoch == 2:
            raise Cut

    for place in ("gpu", "cpu"):
        with pytest.raises(Cut):
            trained(trial, tmp_path / place, True, monkeypatch, heard=cut, checkpoint_every=0.0)
    assert differences(whole, trained(trial, tmp_path / "gpu", True, monkeypatch)) == []
    on_processor = train(trial, the_data(trial), Checkpoints(tmp_path / "cpu", "one"))
    assert [record["epoch"] for record in on_processor.history] == [1, 2, 3, 4]
