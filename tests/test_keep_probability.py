"""Missing modalities: the mask is drawn once, larger p keep more, and dropped values have no influence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import mvae.models.mvae
from mvae.data import DATASETS, Dataset, Split, load
from mvae.models import arm
from mvae.models.mvae import ElboBatch, ElboLearner
from mvae.sampling import Step, kept_steps, steps
from mvae.supervision import kept_values
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import Progress, Trained, train
from mvae.trial import Trial
from tests.small_models import TINY_19, tiny_19
from tests.small_training import assert_identical

# N training examples, M modalities, R rows

FINGERPRINT = "0123456789abcdef" * 4
P = 0.1
"""With p = 0.1, some of 70 examples lose all their 19 values."""


@pytest.fixture(autouse=True)
def tiny19(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "tiny19", TINY_19)


def tiny_trial(model: str = "mvae", **fields: Any) -> Trial:
    return Trial.create(dataset="tiny19", model=model, **fields)


def learner(trial: Trial, data: Dataset) -> ElboLearner:
    torch.manual_seed(0)
    made = ElboLearner(arm(trial.model).build(trial, data.modalities), trial, data)
    made.model.train()
    return made


@dataclasses.dataclass
class FollowedSplit:
    """A split that records which examples each modality is taken from."""

    values: tuple[Tensor, ...]
    taken: list[tuple[int, Tensor]] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.values[0])

    def take(self, modality: int, index: Tensor) -> Tensor:
        self.taken.append((modality, index.clone()))
        return Split(self.values).take(modality, index)


def followed(trial: Trial, data: Dataset, epoch: int) -> Iterator[tuple[ElboBatch, np.ndarray]]:
    """Yields each batch of an epoch, and the example of each row's modalities, int64 [R, M]; -1 where missing."""
    watched, split = learner(trial, data), FollowedSplit(data.train.values)
    watched.split = split  # type: ignore[assignment]
    for batch in watched.batches(epoch):
        rows = np.full((batch.plan.rows, len(split.values)), -1)
        assert [m for m, _ in split.taken] == list(range(len(split.values)))
        for m, index in split.taken:
            where = batch.plan.encoded[m]
            rows[slice(None) if where is None else where.numpy(), m] = index.numpy()
        split.taken.clear()
        yield batch, rows


def metrics_by_epoch(trained: Trained) -> list[dict[str, float]]:
    return [record["metrics"] for record in trained.history]


def trained(trial: Trial, data: Dataset, folder: Path) -> Trained:
    return train(trial, data, Checkpoints(folder, "only"))


# ---- the mask


def test_each_value_is_kept_independently_with_the_given_probability() -> None:
    for p in (0.05, 0.3, 0.9):
        kept = kept_values(4000, 19, p, seed=1)
        assert stats.binomtest(int(kept.sum()), kept.size, p).pvalue > 0.001
        of_each = [stats.binomtest(int(count), 4000, p).pvalue for count in kept.sum(0)]
        assert min(of_each) > 0.001 / 19
        sizes = np.bincount(kept.sum(1), minlength=20)
        expected = 4000 * stats.binom.pmf(np.arange(20), 19, p)
        common = expected >= 5
        rest = [sizes[~common].sum()], [expected[~common].sum()]
        pvalue = stats.chisquare([*sizes[common], *rest[0]], [*expected[common], *rest[1]]).pvalue
        assert pvalue > 0.001, "values of an example are not independent"


def test_with_one_seed_a_larger_probability_keeps_all_that_a_smaller_one_keeps() -> None:
    grid = (0.001, 0.01, 0.0999, 0.1, 0.5, 0.999, 1)
    masks = [kept_values(2000, 19, p, seed=4) for p in grid]
    for fewer, more in pairwise(masks):
        assert not (fewer & ~more).any()
        assert fewer.sum() < more.sum()
    assert masks[-1].all()


def test_the_mask_depends_only_on_the_seed() -> None:
    np.random.seed(1)
    torch.manual_seed(1)
    mask = kept_values(100, 19, 0.5, seed=4)
    np.random.seed(2)
    torch.manual_seed(2)
    assert (kept_values(100, 19, 0.5, seed=4) == mask).all()
    assert (kept_values(100, 19, 0.5, seed=5) != mask).any()
    assert kept_values(100, 19, 0.5, seed=4).shape == (100, 19)


def test_the_mask_is_drawn_once_and_not_for_each_epoch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    draws: list[tuple[Any, ...]] = []

    def counted(*arguments: Any) -> np.ndarray:
        draws.append(arguments)
        return kept_values(*arguments)

    monkeypatch.setattr(mvae.models.mvae, "kept_values", counted)
    trained(tiny_trial(keep_probability=0.3, seed=6), tiny_19(), tmp_path)
    assert draws == [(70, 19, 0.3, 6, False)]
    trained(tiny_trial(), tiny_19(), tmp_path / "full")
    assert len(draws) == 1, "the mask is not drawn if everything is kept"


# ---- examples of a step


@pytest.mark.parametrize("model", ["mvae", "mvae_q"])
@pytest.mark.parametrize("p", [0.05, 0.3, 0.97])
def test_every_epoch_shows_exactly_the_kept_values_once_each(p: float, model: str) -> None:
    trial, data = tiny_trial(model, keep_probability=p, seed=3), tiny_19()
    kept = kept_values(70, 19, p, seed=3)
    orders = set()
    for epoch in range(4):
        shown = np.zeros(kept.shape, int)
        for batch, rows in followed(trial, data, epoch):
            examples = rows.max(1)
            assert (examples >= 0).all(), "a row has no value"
            assert ((rows == examples[:, None]) | (rows == -1)).all(), "a row joins values of different examples"
            assert ((rows >= 0) == kept[examples]).all()
            shown += np.array([(rows == example).any(0) for example in range(70)])
            _assert_plan_fits(batch, rows)
            orders.add((epoch, tuple(examples)))
        assert (shown == kept).all()
    assert len({examples for _, examples in orders}) == len(orders), "two epochs have a step in common"


def _assert_plan_fits(batch: ElboBatch, rows: np.ndarray) -> None:
    """Asserts that no term conditions on, or reconstructs, a modality that its row lacks."""
    plan = batch.plan
    terms = plan.members.shape[1]
    assert not (plan.members.numpy() & (rows < 0)[:, None]).any()
    pairs = np.arange(terms * plan.rows) if plan.pairs is None else plan.pairs.numpy()
    decoded = np.arange(len(pairs)) if plan.decoded[0] is None else plan.decoded[0].numpy()
    assert (rows[pairs[decoded] % plan.rows, 0] >= 0).all()
    assert plan.stacked is not None
    real, of = plan.stacked.real.numpy(), plan.stacked.rows.numpy()
    assert (pairs[plan.stacked.pairs.numpy()] % plan.rows == of)[real].all()
    for a in range(18):
        assert (rows[of[a][real[a]], 1 + a] >= 0).all()


@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize("modalities", [2, 3, 19])
def test_with_everything_kept_the_steps_are_those_of_proportional_with_all_pairs(modalities: int, k: int) -> None:
    k = k if modalities > 2 else 0
    for epoch in range(3):
        full = steps(
            pairing="proportional",
            targets="own",
            n=45,
            paired=np.arange(45)[::-1],
            batch_size=10,
            seed=2,
            epoch=epoch,
            modalities=modalities,
            subsets=k,
        )
        mine = kept_steps(np.ones((45, modalities), bool), 10, 2, epoch, subsets=k)
        for one, other in zip(mine, full, strict=True):
            assert (one.index_RM == other.index_RM).all() and one.index_RM.dtype == other.index_RM.dtype
            assert (one.present_RM == other.present_RM).all() and one.present_RM.dtype == other.present_RM.dtype
            assert (one.active_TR == other.active_TR).all() and one.active_TR.dtype == other.active_TR.dtype


def test_examples_keep_the_order_of_the_full_run_except_empty_ones() -> None:
    def order(p: float) -> list[int]:
        kept = kept_values(300, 19, p, seed=5)
        return [int(row.max()) for step in kept_steps(kept, 32, 5, 1) for row in step.index_RM]

    everything = order(1.0)
    for p in (0.01, 0.1):
        some = order(p)
        assert some == [example for example in everything if example in set(some)]
        assert 2 < len(some) < 300


def test_empty_examples_are_skipped_and_batches_are_filled_with_others() -> None:
    kept = np.zeros((9, 3), bool)
    kept[[1, 4, 5, 7], [0, 2, 1, 0]] = True
    made: list[Step] = list(kept_steps(kept, 2, 0, 0))
    assert [len(step.index_RM) for step in made] == [2, 2]
    assert sorted(int(row.max()) for step in made for row in step.index_RM) == [1, 4, 5, 7]


def test_empty_examples_are_counted_and_the_steps_cover_the_others(tmp_path: Path) -> None:
    trial = tiny_trial(keep_probability=P)
    nothing = int((~kept_values(70, 19, P, seed=0).any(1)).sum())
    assert 0 < nothing < 30
    count = -(-(70 - nothing) // 20)
    assert count < -(-70 // 20), "the mask must drop enough examples to save a step"
    made = learner(trial, tiny_19())
    assert made.steps_per_epoch == len(list(made.batches(0))) == len(list(made.batches(1))) == count
    for record in trained(trial, tiny_19(), tmp_path).history:
        assert record["metrics"]["train/skipped_examples"] == nothing
        assert record["metrics"]["train/steps_per_epoch"] == count


def test_beta_reaches_1_over_its_share_of_the_remaining_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    betas: list[float] = []
    monkeypatch.setattr(mvae.models.mvae, "negative_elbo", lambda *_, beta, **__: betas.append(beta))
    made = learner(tiny_trial(keep_probability=P, epochs=10, annealing_share=0.5), tiny_19())
    total, batch = 10 * made.steps_per_epoch, next(iter(made.batches(0)))
    for step in range(total):
        made.loss(batch, step)
    assert betas == [min(1.0, (step + 1) / (total // 2)) for step in range(total)]


@pytest.mark.parametrize("model", ["mvae", "mvae_q"])
def test_a_step_with_one_example_and_one_value_is_trained_like_any_other(model: str, tmp_path: Path) -> None:
    trial = tiny_trial(model, keep_probability=0.05, batch_size=1, epochs=1, seed=1)
    kept = kept_values(70, 19, 0.05, seed=1)
    alone = kept[kept.sum(1) == 1]
    assert alone[:, 0].any() and alone[:, 1:].any(), "some rows must hold only an image, and some only an attribute"
    metrics = metrics_by_epoch(trained(trial, tiny_19(), tmp_path))[0]
    assert metrics["train/steps_per_epoch"] == kept.any(1).sum()
    assert np.isfinite(list(metrics.values())).all()


# ---- influence of dropped values


def spoilt(data: Dataset, where: np.ndarray, pixel: float = torch.nan, attribute: int = 200) -> Dataset:
    """Replaces training values at a boolean mask [N, M]: images by nan, attributes by an invalid value."""
    image, *attributes = data.train.values
    at = torch.from_numpy(where)
    image = image.float()
    image[at[:, 0]] = pixel
    changed = [value.masked_fill(at[:, 1 + a], attribute) for a, value in enumerate(attributes)]
    return dataclasses.replace(data, train=Split((image, *changed)))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"targets": "all", "k": 3},
        {"model": "mvae_q", "fixed_noise": True},
        {"model": "mvae_q", "targets": "all", "precision": "bfloat16"},
    ],
    ids=["mvae", "all", "mvae_q", "bfloat16"],
)
@pytest.mark.parametrize("p", [0.05, 0.4])
def test_dropped_values_change_no_bit(p: float, fields: dict[str, Any], tmp_path: Path) -> None:
    trial, data = tiny_trial(**{"model": "mvae", **fields}).with_(keep_probability=p), tiny_19()
    dropped = ~kept_values(70, 19, p, seed=0)
    clean = trained(trial, spoilt(data, np.zeros_like(dropped)), tmp_path / "clean")
    assert_identical(clean, trained(trial, spoilt(data, dropped), tmp_path / "spoilt"))


def test_each_kept_value_changes_the_training(tmp_path: Path) -> None:
    trial, data = tiny_trial(keep_probability=P, epochs=1), tiny_19()
    kept = kept_values(70, 19, P, seed=0)
    clean = metrics_by_epoch(trained(trial, spoilt(data, kept & False), tmp_path / "clean"))
    for i, (example, modality) in enumerate(np.argwhere(kept)[::17]):
        one = np.zeros_like(kept)
        one[example, modality] = True
        flipped = 1 - int(data.train.values[modality][example]) if modality else 0
        changed = trained(trial, spoilt(data, one, pixel=77.0, attribute=flipped), tmp_path / str(i))
        assert metrics_by_epoch(changed) != clean, (example, modality)


# ---- p = 1


def test_a_keep_probability_of_1_has_the_key_and_the_numbers_of_the_full_run(tmp_path: Path) -> None:
    silent, spelt = tiny_trial(k=2), tiny_trial(k=2, keep_probability=1)
    assert silent.key(FINGERPRINT) == spelt.key(FINGERPRINT)
    assert "keep_probability" not in spelt.hashed_fields()
    assert silent.key(FINGERPRINT) != tiny_trial(k=2, keep_probability=0.999).key(FINGERPRINT)
    assert_identical(trained(silent, tiny_19(), tmp_path / "1"), trained(spelt, tiny_19(), tmp_path / "2"))


@pytest.mark.parametrize("fields", [{}, {"targets": "all", "k": 2}, {"model": "mvae_q", "fixed_noise": True}])
def test_with_all_values_kept_the_mask_gives_the_numbers_of_the_full_run(
    fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = tiny_trial(**{"model": "mvae", **fields})
    full = trained(trial, tiny_19(), tmp_path / "full")
    monkeypatch.setattr(mvae.models.mvae, "kept_values", lambda n, modalities, *_: np.ones((n, modalities), bool))
    kept = trained(trial.with_(keep_probability=0.5), tiny_19(), tmp_path / "kept")
    for mine, theirs in zip(metrics_by_epoch(kept), metrics_by_epoch(full), strict=True):
        assert (mine.pop("train/skipped_examples"), mine.pop("train/steps_per_epoch")) == (0, 4)
        assert mine == theirs
    for name, weight in full.model.state_dict().items():
        assert torch.equal(weight, kept.model.state_dict()[name]), name


def test_values_can_be_dropped_from_data_of_two_modalities(cache: Path, tmp_path: Path) -> None:
    data = load("digits", cache=cache)
    trial = Trial.create(dataset="digits", model="mvae", pairing="proportional", keep_probability=P, epochs=1)
    kept = kept_values(len(data.train), 2, P, seed=0)
    metrics = metrics_by_epoch(trained(trial, data, tmp_path))[0]
    assert metrics["train/skipped_examples"] == (~kept.any(1)).sum() > 900
    assert np.isfinite(list(metrics.values())).all()


# ---- exact resume


class Cut(Exception):
    """Simulates the death of the trial's process."""


def _cut_after(epoch: int) -> Callable[[Progress], None]:
    def heard(progress: Progress) -> None:
        if progress.epoch == epoch:
            raise Cut

    return heard


@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.parametrize("model", ["mvae", "mvae_q"])
def test_a_resumed_trial_with_dropped_values_equals_an_unbroken_one(model: str, epoch: int, tmp_path: Path) -> None:
    trial, data = tiny_trial(model, keep_probability=0.3, k=2), tiny_19()
    with pytest.raises(Cut):
        train(trial, data, Checkpoints(tmp_path / "key", "first"), heard=_cut_after(epoch), checkpoint_every=0)
    torch.manual_seed(9)
    resumed = train(trial, data, Checkpoints(tmp_path / "key", "second"))
    assert_identical(resumed, trained(trial, data, tmp_path / "unbroken"))
    other = trained(trial.with_(seed=1), data, tmp_path / "other")
    assert metrics_by_epoch(other) != metrics_by_epoch(resumed)
