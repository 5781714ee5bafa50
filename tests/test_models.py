"""The arms: posteriors, predictions, and the weights and batches of their objectives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mvae.data import Dataset
from mvae.models import ARMS, arm
from mvae.models.arm import Learner
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import MVAE
from mvae.refusal import Refusal
from mvae.trial import Trial
from sweeps.table.published import TABLE_4
from tests.digits_learners import digits, digits_trial, learner
from tests.small_models import LATENTS, PHOTO, RULES, SEVERAL, shortened, small_model

__all__ = ["digits"]

# ---- posteriors


def test_inferring_from_an_unknown_modality_lists_the_known_ones() -> None:
    model = small_model(3, RULES["mvae"], normalised=False)
    names = ", ".join(modality.name for modality in model.modalities)
    with pytest.raises(ValueError, match=f"unknown modality 'sound': choose from {names}"):
        model.infer({"sound": torch.zeros(1)})


@pytest.mark.parametrize("present", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("rule", RULES)
def test_the_posterior_given_some_modalities_equals_a_plain_sum_of_precisions(
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
def test_the_mvae_counts_the_prior_once_and_not_once_per_modality(modalities: int) -> None:
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
def test_the_prediction_is_the_label_decoded_at_the_posterior_mean_given_the_image(
    model_token: str, digits: Dataset
) -> None:
    trial = digits_trial(model_token)
    model = arm(model_token).build(trial, digits.modalities)
    assert isinstance(model, Multimodal)
    image = digits.test.take(0, torch.arange(20))
    mean, spread = model.encoders[0](image).chunk(2, -1)
    if model_token == "mvae":
        mean = mean / (1 + spread.exp())  # one expert times the prior: T mu / (1 + T)
    torch.testing.assert_close(model(image), model.decoders[1](mean))


# ---- arms


def test_an_unknown_arm_is_refused_with_a_list_of_known_arms() -> None:
    with pytest.raises(Refusal) as refusal:
        arm("gan")
    assert str(refusal.value) == f"unknown arm 'gan': choose one of {', '.join(ARMS)}"
    assert list(ARMS)[:8] == ["nn", "logreg", "rbm", "vae", "jmvae", "mvae", "mvae_q", "cvae"]


@pytest.mark.parametrize("token", ARMS)
def test_every_arm_provides_the_logits_or_features_that_its_measures_need(token: str, digits: Dataset) -> None:
    chosen = ARMS[token]
    assert chosen.token == token
    widths = {"accuracy": 10, "readout": 128 if token == "rbm" else 16}
    for name in chosen.measures & widths.keys():
        model = chosen.build(digits_trial(token), digits.modalities)
        assert model(digits.test.take(0, torch.arange(7))).shape == (7, widths[name])


def test_arms_are_in_the_order_of_table_4() -> None:
    assert [token for token in ARMS if token in TABLE_4.rows] == list(TABLE_4.rows)


def test_every_gradient_arm_and_protocol_takes_the_same_number_of_steps_per_epoch(digits: Dataset) -> None:
    count = -(-1297 // 100)
    for token in ("mvae", "mvae_q", "nn", "rbm", "vae", "jmvae", "cvae"):
        for pairing in ("reserved", "proportional", "resampled"):
            each = learner(digits, digits_trial(token, pairing=pairing))
            assert each.steps_per_epoch == len(list(each.batches(0))) == count


def test_seeds_and_epochs_differ_in_batches_and_noise(digits: Dataset) -> None:
    def first(seed: int, epoch: int) -> Tensor:
        watched = learner(digits, digits_trial("mvae", seed=seed))
        torch.seed()  # for any state of the global stream
        batch = next(iter(watched.batches(epoch)))
        return torch.cat([batch.values[0].flatten(), batch.noise.flatten()])

    assert torch.equal(first(1, 0), first(1, 0))
    assert not torch.equal(first(1, 0), first(1, 1))
    assert not torch.equal(first(1, 0), first(2, 0))


@pytest.mark.parametrize("fixed", [False, True])
def test_fixed_noise_is_drawn_once_for_all_terms_of_a_step(fixed: bool, digits: Dataset) -> None:
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


def test_annealing_epochs_replace_the_annealing_share(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    half = betas_of(learner(digits, digits_trial("mvae", epochs=10, annealing_epochs=20)), 10, monkeypatch)
    assert half[-1] == 0.5
    at_once = betas_of(learner(digits, digits_trial("mvae", epochs=2, annealing_epochs=0)), 2, monkeypatch)
    assert set(at_once) == {1.0}


def betas_of(trained: Learner, epochs: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Weight of the KL at each step of a training."""
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
def test_every_other_objective_gets_the_trials_weights_batch_size_and_rising_beta(
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
def test_on_celeba_every_arms_inference_networks_have_the_golden_numbers_of_parameters(token: str, golden: int) -> None:
    trial = Trial.create(dataset="multi_mnist", model=token, image_network="dcgan", latents=100)
    model = arm(token).build(trial, (PHOTO, SEVERAL))
    names = ("encoders.", "encoder.", "joint.")
    assert sum(weight.numel() for name, weight in model.named_parameters() if name.startswith(names)) == golden


def test_a_short_training_set_makes_short_steps(digits: Dataset) -> None:
    few = shortened(digits, train=30)
    batches = list(learner(few, digits_trial("mvae", paired_fraction=0.5)).batches(0))
    assert [batch.plan.rows for batch in batches] == [30 + 30 + 15]
