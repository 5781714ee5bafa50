"""The arms: what their posteriors are, what they predict, which labels they see, and what they share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as ScikitLearn
from torch import Tensor

from mvae.data import Dataset, load
from mvae.models import ARMS, arm
from mvae.models.arm import Learner
from mvae.models.classifiers import LogisticRegression, NeuralNetworkLearner, fit_logistic_regression
from mvae.models.layout import layout
from mvae.models.learners import ImageLearner, PairedLearner
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import MVAE, ElboBatch, ElboLearner
from mvae.refusal import Refusal
from mvae.sampling import steps
from mvae.supervision import paired_set
from mvae.trial import Trial
from sweeps.table.published import TABLE_4
from tests.small_models import LATENTS, PHOTO, RULES, SEVERAL, shortened, small_model, with_labels

FRACTION = 0.05


@pytest.fixture(scope="module")
def digits(cache: Path) -> Dataset:
    return load("digits", cache=cache)


def digits_trial(model: str, **fields: Any) -> Trial:
    return Trial.create(dataset="digits", model=model, **{"paired_fraction": FRACTION, "epochs": 3, **fields})


def learner(data: Dataset, trial: Trial) -> Learner:
    chosen = arm(trial.model)
    assert chosen.learner is not None
    torch.manual_seed(0)
    return chosen.learner(chosen.build(trial, data.modalities), trial, data)


@dataclass
class FollowedSplit:
    """A split that notes which examples are taken: what a learner gets to see, by example."""

    values: tuple[Tensor, ...]
    taken: list[tuple[int, Tensor]] = field(default_factory=list)
    lengths: None = None
    """No sentences."""

    def __len__(self) -> int:
        return len(self.values[0])

    def take(self, modality: int, index: Tensor) -> Tensor:
        self.taken.append((modality, index.clone()))
        return self.values[modality].index_select(0, index).to(torch.int64 if modality else torch.float32)


def followed(data: Dataset, trial: Trial, epochs: int) -> Iterator[tuple[Any, Tensor, Tensor]]:
    """Each batch of several epochs, with the examples that its images and its labels are of."""
    watched = learner(data, trial)
    assert isinstance(watched, ElboLearner | NeuralNetworkLearner | PairedLearner)
    split = FollowedSplit(data.train.values)
    watched.split = split  # type: ignore[assignment]
    for epoch in range(epochs):
        for batch in watched.batches(epoch):
            (image, images), (label, labels) = split.taken
            assert (image, label) == (0, 1)
            yield batch, images, labels
            split.taken.clear()


def rows_of(batch: ElboBatch, images: Tensor, labels: Tensor) -> Tensor:
    """The example of each row's image and label, int64 [R, 2], -1 where it has none."""
    rows = torch.full((batch.plan.rows, 2), -1)
    for m, index in enumerate((images, labels)):
        where = batch.plan.encoded[m]
        rows[slice(None) if where is None else where, m] = index
    return rows


# ---- posteriors


def test_inferring_from_an_unknown_modality_names_those_that_exist() -> None:
    model = small_model(3, RULES["mvae"], normalised=False)
    names = ", ".join(modality.name for modality in model.modalities)
    with pytest.raises(ValueError, match=f"there is no modality 'sound': there are {names}"):
        model.infer({"sound": torch.zeros(1)})


@pytest.mark.parametrize("present", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("rule", RULES)
def test_the_posterior_given_some_modalities_is_that_of_a_plain_sum_of_precisions(
    rule: str, present: tuple[int, ...]
) -> None:
    model = small_model(3, RULES[rule], normalised=False)
    values = [torch.rand(6, 2, 2, 3).double(), torch.arange(6) % 4, torch.arange(6) % 3]
    given = {m: values[m] for m in present}
    q = model.infer_at(given)
    by_name = model.infer({model.modalities[m].name: value for m, value in given.items()})
    assert torch.equal(q.mean, by_name.mean) and torch.equal(q.log_var, by_name.log_var)
    experts = [model.encoders[m](values[m]).chunk(2, -1) for m in present]
    if rule == "mvae":
        variances = [spread.clamp(-15, 15).exp() for _, spread in experts]
        precision = 1 + sum(1 / v for v in variances)
    else:
        variances = [1.5 * torch.sigmoid(spread) for _, spread in experts]
        precision = sum(1 / v for v in variances) - (len(present) - 1)
    mean = sum(mu / v for (mu, _), v in zip(experts, variances, strict=True)) / precision
    torch.testing.assert_close(q.mean, mean)
    torch.testing.assert_close(q.log_var, -torch.log(torch.as_tensor(precision)))


@pytest.mark.parametrize("modalities", [2, 3])
def test_the_mvae_counts_the_prior_once_and_not_once_a_modality(modalities: int) -> None:
    model = small_model(modalities, MVAE, normalised=False)
    zero = torch.zeros(1, modalities, LATENTS)
    members = torch.tril(torch.ones(modalities, modalities)).bool().unsqueeze(0)
    precision = model.posterior(zero, zero, members).log_var.neg().exp()[0, :, 0]
    torch.testing.assert_close(precision, 1 + torch.arange(1.0, modalities + 1))


@pytest.mark.parametrize("rule", RULES)
def test_a_missing_modality_that_holds_nan_changes_nothing(rule: str) -> None:
    model = small_model(3, RULES[rule], normalised=False)
    mean, spread = torch.randn(2, 4, 3, LATENTS).unbind()
    members = torch.tensor([[[True, False, True]]]).expand(4, -1, -1)
    clean = model.posterior(mean, spread, members)
    mean[:, 1], spread[:, 1] = torch.nan, torch.nan
    dirty = model.posterior(mean, spread, members)
    assert torch.equal(dirty.mean, clean.mean)
    assert torch.equal(dirty.log_var, clean.log_var)


def test_extreme_encoder_outputs_are_clamped_so_that_posteriors_stay_finite() -> None:
    model = small_model(2, MVAE, normalised=False)
    with torch.no_grad():
        last = model.encoders[1][-1]  # type: ignore[index]
        last.bias[LATENTS:] = torch.tensor([1e4, -1e4, 0.0])
    _, spread = model.encode(1, torch.zeros(1, dtype=torch.int64))
    assert spread.min() == -15
    assert spread.max() == 15


@pytest.mark.parametrize("model_token", ["mvae", "mvae_q"])
def test_the_prediction_is_the_label_decoded_at_the_mean_of_the_posterior_given_the_image(
    model_token: str, digits: Dataset
) -> None:
    trial = digits_trial(model_token)
    model = arm(model_token).build(trial, digits.modalities)
    assert isinstance(model, Multimodal)
    image = digits.test.take(0, torch.arange(20))
    mean, spread = model.encoders[0](image).chunk(2, -1)
    if model_token == "mvae":
        mean = mean / (1 + spread.exp())  # one expert beside the prior: T mu / (1 + T)
    torch.testing.assert_close(model(image), model.decoders[1](mean))


# ---- arms


def test_an_unknown_arm_is_refused_with_the_names_of_those_that_exist() -> None:
    with pytest.raises(Refusal, match=r"^no arm 'gan': there are nn, logreg, rbm, vae, jmvae, mvae, mvae_q, cvae$"):
        arm("gan")


@pytest.mark.parametrize("token", ARMS)
def test_every_arm_gives_label_logits_or_features_of_images_as_its_measures_say(token: str, digits: Dataset) -> None:
    chosen = ARMS[token]
    assert chosen.token == token
    widths = {"accuracy": 10, "readout": 128 if token == "rbm" else 16}
    for name in chosen.measures & widths.keys():
        model = chosen.build(digits_trial(token), digits.modalities)
        assert model(digits.test.take(0, torch.arange(7))).shape == (7, widths[name])


def test_arms_stand_in_the_order_of_table_4() -> None:
    assert [token for token in ARMS if token in TABLE_4.rows] == list(TABLE_4.rows)


def test_arms_of_one_seed_share_the_paired_set(digits: Dataset) -> None:
    sets = [learner(digits, digits_trial(token, seed=5)) for token in ("mvae", "mvae_q", "nn", "jmvae", "cvae")]
    expected = paired_set(1297, FRACTION, 5)
    for each in sets:
        assert isinstance(each, ElboLearner | NeuralNetworkLearner | PairedLearner)
        assert (each.paired == expected).all()


def test_arms_of_one_seed_share_the_batch_order(digits: Dataset) -> None:
    def seen(token: str, **fields: Any) -> list[tuple[list[int], list[int]]]:
        trial = digits_trial(token, seed=5, **fields)
        return [(images.tolist(), labels.tolist()) for _, images, labels in followed(digits, trial, 2)]

    mvae = seen("mvae")
    assert seen("mvae_q") == mvae
    assert seen("mvae", targets="all", latents=3) == mvae
    assert seen("mvae", pairing="proportional") != mvae
    pairs = min(100, round(FRACTION * 1297))
    assert [images[-pairs:] for images, _ in mvae] == [images for images, _ in seen("nn")]
    assert [labels[-pairs:] for _, labels in mvae] == [labels for _, labels in seen("nn")]


def test_every_gradient_arm_and_protocol_takes_as_many_steps_an_epoch(digits: Dataset) -> None:
    count = -(-1297 // 100)
    for token in ("mvae", "mvae_q", "nn", "rbm", "vae", "jmvae", "cvae"):
        for pairing in ("reserved", "proportional", "resampled"):
            each = learner(digits, digits_trial(token, pairing=pairing))
            assert each.steps_per_epoch == len(list(each.batches(0))) == count


def test_other_seeds_and_epochs_see_other_batches_and_noise(digits: Dataset) -> None:
    def first(seed: int, epoch: int) -> Tensor:
        watched = learner(digits, digits_trial("mvae", seed=seed))
        torch.seed()  # whatever the global stream holds
        batch = next(iter(watched.batches(epoch)))
        return torch.cat([batch.values[0].flatten(), batch.noise.flatten()])

    assert torch.equal(first(1, 0), first(1, 0))
    assert not torch.equal(first(1, 0), first(1, 1))
    assert not torch.equal(first(1, 0), first(2, 0))


@pytest.mark.parametrize("fixed", [False, True])
def test_fixed_noise_is_one_draw_for_all_terms_of_a_step(fixed: bool, digits: Dataset) -> None:
    batch = next(iter(learner(digits, digits_trial("mvae", fixed_noise=fixed)).batches(0)))
    assert batch.noise.shape == (1 if fixed else 3, batch.plan.rows, 16)


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("annealing", [{}, {"annealing_share": 0.001}, {"annealing_share": 1.0}])
def test_beta_reaches_exactly_1_in_runs_of_any_length(
    epochs: int, annealing: dict[str, float], digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    betas = betas_of(learner(digits, digits_trial("mvae", epochs=epochs, **annealing)), epochs, monkeypatch)
    rise = round(annealing.get("annealing_share", 0.4) * epochs * 13)
    assert betas[-1] == 1.0
    assert betas == [min(1.0, (step + 1) / max(rise, 1)) for step in range(epochs * 13)]


def test_annealing_epochs_are_taken_literally_in_place_of_the_share(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = betas_of(learner(digits, digits_trial("mvae", epochs=10, annealing_epochs=20)), 10, monkeypatch)
    assert half[-1] == 0.5
    at_once = betas_of(learner(digits, digits_trial("mvae", epochs=2, annealing_epochs=0)), 2, monkeypatch)
    assert set(at_once) == {1.0}


def betas_of(trained: Learner, epochs: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The weight of the KL at each step of a training."""
    betas: list[float] = []

    def noted(*args: Any, beta: float, **settings: Any) -> None:
        betas.append(beta)

    monkeypatch.setattr("mvae.models.mvae.negative_elbo", noted)
    batch = next(iter(trained.batches(0)))
    for step in range(epochs * trained.steps_per_epoch):
        trained.loss(batch, step)
    return betas


def test_the_objective_gets_the_trials_weights_and_its_global_batch_size(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: list[dict[str, Any]] = []
    monkeypatch.setattr("mvae.models.mvae.negative_elbo", lambda *args, **given: settings.append(given))
    each = learner(digits, digits_trial("mvae", batch_size=1000, image_weight=2.0, label_weight=7.0))
    *_, short = each.batches(0)
    each.loss(short, 0)
    assert settings[0]["weights"] == [2.0, 7.0]
    assert settings[0]["batch_size"] == 1000


@pytest.mark.parametrize(
    ("token", "objective"), [("jmvae", "negative_joint_elbo"), ("vae", "vae_loss"), ("cvae", "cvae_loss")]
)
def test_every_other_objective_gets_the_trials_weights_its_batch_size_and_a_beta_that_rises(
    token: str, objective: str, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(f"mvae.models.{token}.{objective}", lambda *args, **settings: given.append(settings))
    fields = {"epochs": 2, "batch_size": 100, "paired_fraction": 1.0, "image_weight": 3.0}
    if token == "jmvae":
        fields |= {"label_weight": 7.0, "alpha": 0.25}
    trained = learner(digits, digits_trial(token, **fields))
    for step, batch in enumerate([*trained.batches(0), *trained.batches(1)]):
        trained.loss(batch, step)
    rise = round(0.4 * 2 * trained.steps_per_epoch)
    assert [settings["beta"] for settings in given] == [min(1.0, (step + 1) / rise) for step in range(len(given))]
    assert len(given) == 2 * trained.steps_per_epoch
    own = {"weights": [3.0, 7.0], "alpha": 0.25} if token == "jmvae" else {"weight": 3.0}
    for settings in given:
        assert {name: value for name, value in settings.items() if name != "beta"} == {**own, "batch_size": 100}


@pytest.mark.parametrize(
    ("token", "golden"), [("vae", 4_070_472), ("mvae", 4_447_504), ("mvae_q", 4_447_504), ("jmvae", 9_052_504)]
)
def test_the_inference_networks_of_the_arms_on_celeba_have_the_golden_numbers_of_parameters(
    token: str, golden: int
) -> None:
    trial = Trial.create(dataset="multi_mnist", model=token, image_network="dcgan", latents=100)
    model = arm(token).build(trial, (PHOTO, SEVERAL))
    names = ("encoders.", "encoder.", "joint.")
    assert sum(weight.numel() for name, weight in model.named_parameters() if name.startswith(names)) == golden


# ---- no leak


@pytest.mark.parametrize("targets", ["own", "all"])
@pytest.mark.parametrize("pairing", ["reserved", "proportional"])
@pytest.mark.parametrize("token", ["mvae", "mvae_q"])
def test_no_pair_outside_the_reserved_set_is_ever_seen_together(
    token: str, pairing: str, targets: str, digits: Dataset
) -> None:
    trial = digits_trial(token, pairing=pairing, targets=targets, seed=2)
    reserved = set(paired_set(1297, FRACTION, 2).tolist())
    together: set[int] = set()
    images_seen: set[int] = set()
    for batch, images, labels in followed(digits, trial, epochs=4):
        rows = rows_of(batch, images, labels)
        pairs = rows[(rows >= 0).all(1)]
        assert (pairs[:, 0] == pairs[:, 1]).all(), "a row joins the image of one example to the label of another"
        together |= set(pairs[:, 0].tolist())
        images_seen |= set(images.tolist())
        check_targets(batch, rows)
    assert together == reserved
    assert images_seen == set(range(1297))


@pytest.mark.parametrize("pairing", ["reserved", "proportional", "resampled"])
def test_a_learner_takes_exactly_the_rows_that_its_protocol_gives(pairing: str, digits: Dataset) -> None:
    trial = digits_trial("mvae", pairing=pairing)
    given = steps(
        pairing=pairing,
        targets="own",
        n=1297,
        paired=paired_set(1297, FRACTION, 0),
        batch_size=100,
        seed=0,
        epoch=0,
        modalities=2,
    )
    for step, (batch, images, labels) in zip(given, followed(digits, trial, 1), strict=True):
        assert (rows_of(batch, images, labels).numpy() == step.index_RM).all()
        expected = layout(step.present_RM, np.array([[1, 1], [1, 0], [0, 1]], dtype=bool), step.active_TR)
        assert batch.plan.groups == expected.groups


def check_targets(batch: ElboBatch, rows: Tensor) -> None:
    """What a latent of a row is asked to reconstruct is of the very examples of that row."""
    plan, terms = batch.plan, batch.plan.members.shape[1]
    pairs = torch.arange(terms * plan.rows) if plan.pairs is None else plan.pairs
    for m in range(2):
        decoded = torch.arange(len(pairs)) if plan.decoded[m] is None else plan.decoded[m]
        row = pairs[decoded] % plan.rows
        where = plan.encoded[m]
        source = torch.arange(plan.rows) if where is None else where
        assert torch.equal(source[plan.targets[m]], row)
        assert (rows[row, m] >= 0).all()
    term, row = pairs // plan.rows, pairs % plan.rows
    conditions = plan.members[row, term]
    assert (rows[row] >= 0)[conditions].all(), "a term conditions on what its row does not have"


@pytest.mark.parametrize("targets", ["own", "all"])
def test_a_reserved_step_is_images_alone_labels_alone_and_the_paired_set(targets: str, digits: Dataset) -> None:
    pairs = round(FRACTION * 1297)
    batch, images, labels = next(followed(digits, digits_trial("mvae", targets=targets), 1))
    rows = rows_of(batch, images, labels)
    assert (rows[:100, 1] == -1).all()
    assert (rows[100:200, 0] == -1).all()
    assert (rows[200:] >= 0).all()
    assert len(rows) == 200 + pairs
    own = ((pairs, 100), (pairs, 100))  # rows of the joint term, rows of the modality's own term
    everything = ((pairs, 100 + pairs, pairs), (pairs, pairs, 100 + pairs))
    assert batch.plan.groups == (own if targets == "own" else everything)


@pytest.mark.parametrize("token", ["nn", "jmvae", "cvae"])
def test_nn_jmvae_and_cvae_see_the_pairs_of_the_paired_set_and_no_others(token: str, digits: Dataset) -> None:
    reserved = set(paired_set(1297, FRACTION, 0).tolist())
    seen: set[int] = set()
    for _, images, labels in followed(digits, digits_trial(token), epochs=4):
        assert torch.equal(images, labels)
        assert len(set(images.tolist())) == len(images) <= 100
        seen |= set(labels.tolist())
    assert seen == reserved


@pytest.mark.parametrize("token", ["rbm", "vae"])
def test_rbm_and_vae_see_every_image_once_an_epoch_in_the_shared_order_and_no_label(
    token: str, digits: Dataset
) -> None:
    watched = learner(digits, digits_trial(token, seed=5))
    assert isinstance(watched, ImageLearner)
    split = FollowedSplit(digits.train.values)
    watched.split = split  # type: ignore[assignment]
    assert all(len(batch.values) == 1 for batch in watched.batches(1))
    assert {modality for modality, _ in split.taken} == {0}
    seen = [index.tolist() for _, index in split.taken]
    assert sorted(image for images in seen for image in images) == list(range(1297))
    theirs = [images.tolist() for _, images, _ in followed(digits, digits_trial("mvae", seed=5), 2)][len(seen) :]
    assert [images[: len(own)] for images, own in zip(theirs, seen, strict=True)] == seen


@pytest.fixture
def spoilt(digits: Dataset) -> Dataset:
    """The digits with a wrong label on every example outside the paired set of seed 0."""
    labels = (digits.train.values[1].numpy() + 1) % 10
    kept = paired_set(1297, FRACTION, 0)
    labels[kept] = digits.train.values[1].numpy()[kept]
    return with_labels(digits, labels)


def test_the_nn_learns_the_same_when_all_other_labels_are_wrong(digits: Dataset, spoilt: Dataset) -> None:
    batches = [list(learner(data, digits_trial("nn")).batches(1)) for data in (digits, spoilt)]
    for whole, dirty in zip(*batches, strict=True):
        assert torch.equal(whole.values[0], dirty.values[0])
        assert torch.equal(whole.values[1], dirty.values[1])


def test_logistic_regression_fits_the_same_when_all_other_labels_are_wrong(digits: Dataset, spoilt: Dataset) -> None:
    whole, dirty = (fitted(data, digits_trial("logreg")) for data in (digits, spoilt))
    assert torch.equal(whole.linear.weight, dirty.linear.weight)
    assert torch.equal(whole.linear.bias, dirty.linear.bias)


# ---- LOGREG


def fitted(data: Dataset, trial: Trial) -> LogisticRegression:
    model = arm("logreg").build(trial, data.modalities)
    assert isinstance(model, LogisticRegression)
    fit_logistic_regression(model, trial, data)
    return model


def relabelled(data: Dataset, classes: list[int]) -> Dataset:
    """A data set that knows these classes only."""
    return with_labels(data, np.asarray(classes)[data.train.values[1].numpy() % len(classes)])


@pytest.mark.parametrize("classes", [list(range(10)), [2, 5], [1, 4, 8]])
def test_logistic_regression_is_that_of_scikit_learn_whatever_classes_it_saw(
    classes: list[int], digits: Dataset
) -> None:
    data = relabelled(digits, classes)
    model = fitted(data, digits_trial("logreg"))
    kept = torch.from_numpy(paired_set(1297, FRACTION, 0))
    reference = ScikitLearn(max_iter=1000).fit(
        data.train.take(0, kept).flatten(1).double().numpy(), data.train.take(1, kept).numpy()
    )
    assert reference.classes_.tolist() == classes
    image = digits.test.take(0, torch.arange(250))
    with torch.no_grad():
        ours = torch.softmax(model(image), -1).numpy()
    theirs = np.zeros((250, 10))
    theirs[:, classes] = reference.predict_proba(image.flatten(1).double().numpy())
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_logistic_regression_of_one_class_predicts_it(digits: Dataset) -> None:
    model = fitted(relabelled(digits, [7]), digits_trial("logreg"))
    assert model(digits.test.take(0, torch.arange(250))).argmax(-1).eq(7).all()


def test_fewer_than_two_pairs_are_refused_by_every_arm(digits: Dataset) -> None:
    for token in ("mvae", "nn", "jmvae", "cvae"):
        with pytest.raises(Refusal, match="1 pair"):
            learner(digits, digits_trial(token, paired_fraction=1 / 1297))
    with pytest.raises(Refusal, match="1 pair"):
        fitted(digits, digits_trial("logreg", paired_fraction=1 / 1297))


def test_a_short_training_set_makes_short_steps(digits: Dataset) -> None:
    few = shortened(digits, train=30)
    batches = list(learner(few, digits_trial("mvae", paired_fraction=0.5)).batches(0))
    assert [batch.plan.rows for batch in batches] == [30 + 30 + 15]
