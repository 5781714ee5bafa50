"""MVAE19: its objective equals a plain loop over 19 encoders, 19 decoders and all terms, for any missing values."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import mvae.models.elbo
from mvae.data import DATASETS
from mvae.data.dataset import Kind, Modality
from mvae.models import arm
from mvae.models.annealing import annealed_beta
from mvae.models.elbo import elbo_terms, negative_elbo
from mvae.models.layout import layout
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import MVAE, ElboBatch, ElboLearner
from mvae.sampling import steps
from mvae.streams import numpy_generator
from mvae.trial import Trial
from tests.plain_elbo import named_as_in, plain_negative_elbo, plain_twin
from tests.small_models import (
    COLOUR,
    IMAGE,
    LABEL,
    LATENTS,
    MANY,
    PHOTO,
    RULES,
    SEVERAL,
    TINY_19,
    many_model,
    single,
    tiny_19,
)

# R rows, M modalities, T terms, A single attributes, D latents


def available(modalities: int, which: str, rows: int = 7) -> np.ndarray:
    """Modalities that each row has, boolean [R, M]."""
    random = np.random.default_rng(5).random((rows, modalities)) < 0.3
    match which:
        case "everything":
            return np.ones_like(random)
        case "something":
            random[0] = np.arange(modalities) == 0  # only the image
            random[1] = np.arange(modalities) == modalities - 1  # only one attribute
            random[2] = True
            random[3] = False
        case "no image":
            random[:, 0] = False
        case "images alone":
            random[:] = np.arange(modalities) == 0
        case "one attribute alone":
            random[:] = np.arange(modalities) == modalities - 2
    return random


class Scene:
    """One step: modalities of each row, terms and noise."""

    def __init__(
        self,
        modalities: tuple[Modality, ...],
        present: np.ndarray,
        k: int,
        *,
        targets: str = "own",
        shared_noise: bool = False,
        active: np.ndarray | None = None,
    ) -> None:
        self.present, self.targets = present, targets
        self.terms = elbo_terms(len(modalities), k, np.random.default_rng(k))
        rows = len(present)
        self.active = np.ones((len(self.terms), rows), bool) if active is None else active
        draw = torch.Generator().manual_seed(3)
        self.examples = [_values(modality, rows, draw) for modality in modalities]
        draws = 1 if shared_noise else len(self.terms)
        self.noise = torch.randn(draws, rows, LATENTS, generator=draw, dtype=torch.float64)
        self.weights = [1.0, *np.linspace(2, 10, len(modalities) - 1).tolist()]
        self.beta, self.batch_size = 0.3, 9

    def loss(self, model: Multimodal) -> Tensor:
        stacked = len(model.stacked)
        plan = layout(self.present, self.terms, self.active, targets=self.targets, stacked=stacked)
        values = [x[torch.from_numpy(self.present[:, m].copy())] for m, x in enumerate(self.examples)]
        torch.manual_seed(0)
        rest = {"beta": self.beta, "weights": self.weights, "batch_size": self.batch_size}
        return negative_elbo(model, plan, values, self.noise, **rest).total  # type: ignore[arg-type]

    def plain_loss(self, twin: Multimodal) -> Tensor:
        return plain_negative_elbo(
            twin,
            self.examples,
            self.present,
            self.terms,
            self.active,
            self.noise,
            targets=self.targets,
            beta=self.beta,
            weights=self.weights,
            batch_size=self.batch_size,
        )


def _values(modality: Modality, rows: int, draw: torch.Generator) -> Tensor:
    if modality.kind is Kind.IMAGE:
        return torch.rand(rows, *modality.shape, generator=draw, dtype=torch.float64)
    return torch.randint(max(modality.classes, 2), (rows, *modality.shape), generator=draw)


def gradients(loss: Tensor, model: nn.Module) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters, materialize_grads=True), strict=True))


def assert_equal_to_the_plain_loop(scene: Scene, model: Multimodal, tolerance: float = 1e-9) -> None:
    twin = plain_twin(model)
    ours, theirs = scene.loss(model), scene.plain_loss(twin)
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=0)
    expected, actual = named_as_in(model, gradients(theirs, twin)), gradients(ours, model)
    assert actual.keys() == expected.keys()
    largest = {name: float(gradient.abs().max()) for name, gradient in expected.items()}
    negligible = 1e-4 * max(largest.values())  # a bias before a normalisation has gradient 0 except for rounding
    for name, gradient in actual.items():
        atol = tolerance * max(largest[name], negligible)
        torch.testing.assert_close(gradient, expected[name], rtol=tolerance, atol=atol, msg=name)
    buffers = dict(twin.named_buffers())
    assert len(buffers) == len(list(model.named_buffers()))
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, buffers[name], rtol=tolerance, atol=tolerance, msg=name)


# ---- the objective


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("targets", ["own", "all"])
@pytest.mark.parametrize("shared_noise", [False, True], ids=["free noise", "shared noise"])
@pytest.mark.parametrize("rule", RULES)
def test_the_objective_of_19_modalities_equals_a_plain_loop(
    rule: str, shared_noise: bool, targets: str, k: int
) -> None:
    scene = Scene(MANY, available(19, "something"), k, targets=targets, shared_noise=shared_noise)
    assert len(scene.terms) == 20 + k
    assert_equal_to_the_plain_loop(scene, many_model(MANY, RULES[rule]))


@pytest.mark.parametrize("which", ["everything", "no image", "images alone", "one attribute alone"])
@pytest.mark.parametrize("rule", RULES)
def test_the_objective_equals_a_plain_loop_for_any_missing_modalities(rule: str, which: str) -> None:
    scene = Scene(MANY, available(19, which), 1, targets="all" if rule == "mvae" else "own")
    assert_equal_to_the_plain_loop(scene, many_model(MANY, RULES[rule]))


@pytest.mark.parametrize(
    ("which", "rule", "k"), [("everything", "mvae", 1), ("something", "mvae_q", 3), ("no image", "mvae", 1)]
)
def test_with_the_64x64_dcgan_the_objective_equals_a_plain_loop(which: str, rule: str, k: int) -> None:
    modalities = (PHOTO, *single(18))
    targets, shared_noise = ("all", True) if which == "something" else ("own", False)
    scene = Scene(modalities, available(19, which, rows=5), k, targets=targets, shared_noise=shared_noise)
    model = many_model(modalities, RULES[rule], image_network="dcgan")
    assert any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
    assert_equal_to_the_plain_loop(scene, model)


@pytest.mark.parametrize("rule", RULES)
def test_the_objective_of_reserved_pairs_among_19_modalities_equals_a_plain_loop(rule: str) -> None:
    step = next(
        steps(
            pairing="reserved",
            targets="own",
            n=12,
            paired=np.arange(3),
            batch_size=2,
            seed=0,
            epoch=0,
            modalities=19,
            subsets=2,
        )
    )
    scene = Scene(MANY, step.present_RM, 2, active=step.active_TR)
    assert_equal_to_the_plain_loop(scene, many_model(MANY, RULES[rule]))


@pytest.mark.parametrize(
    "modalities",
    [(IMAGE, *single(1)), (IMAGE, *single(2)), (IMAGE, LABEL, COLOUR, *single(3)), (IMAGE, SEVERAL)],
    ids=["2", "3", "labels too", "18 as one"],
)
@pytest.mark.parametrize("rule", RULES)
def test_the_objective_of_other_sets_of_modalities_equals_a_plain_loop(
    rule: str, modalities: tuple[Modality, ...]
) -> None:
    k = 2 if len(modalities) > 2 else 0
    for which in ("everything", "something"):
        scene = Scene(modalities, available(len(modalities), which), k)
        assert_equal_to_the_plain_loop(scene, many_model(modalities, RULES[rule]))


@pytest.mark.parametrize("rows", [1, 60, 10_000])
def test_stacked_decoding_in_pieces_of_any_size_equals_a_plain_loop(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mvae.models.elbo, "DECODED_ROWS", rows)
    monkeypatch.setattr(mvae.models.elbo, "STACKED_ROWS", rows)
    scene = Scene(MANY, available(19, "something"), 3, targets="all")
    assert_equal_to_the_plain_loop(scene, many_model(MANY, MVAE))


def test_every_part_of_the_loss_belongs_to_its_own_modality() -> None:
    scene, model = Scene(MANY, available(19, "something"), 2), many_model(MANY, MVAE).eval()
    scene.beta = 0.0
    values = [x[torch.from_numpy(scene.present[:, m])] for m, x in enumerate(scene.examples)]
    plan = layout(scene.present, scene.terms, scene.active, stacked=18)
    parts = negative_elbo(model, plan, values, scene.noise, beta=0.0, weights=[1.0] * 19, batch_size=9).parts
    assert list(parts) == ["kl", *(f"log_likelihood_{modality.name}" for modality in MANY)]
    for m, modality in enumerate(MANY):
        scene.weights = [float(m == other) for other in range(19)]
        assert not parts[f"log_likelihood_{modality.name}"].requires_grad
        torch.testing.assert_close(-parts[f"log_likelihood_{modality.name}"], scene.loss(model).detach())


def test_absent_modalities_have_no_influence_even_if_they_hold_nan_or_invalid_values() -> None:
    def outcome(pixel: float, attribute: int) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        scene, model = Scene(MANY, available(19, "something"), 3, targets="all"), many_model(MANY, MVAE)
        absent = torch.from_numpy(~scene.present)
        for m, value in enumerate(scene.examples):
            value[absent[:, m]] = attribute if m else pixel
        scene.noise[~torch.from_numpy(scene.terms @ scene.present.T)] = pixel
        loss = scene.loss(model)
        return loss, gradients(loss, model), dict(model.named_buffers())

    torch.testing.assert_close(outcome(torch.nan, -77), outcome(0.0, 0), rtol=0, atol=0)


# ---- subsets


def test_subset_sizes_are_uniform_from_2_to_18_and_modalities_are_equally_frequent() -> None:
    draws = 8000
    subsets = elbo_terms(19, draws, np.random.default_rng(2))[20:]
    sizes = Counter(subsets.sum(1).tolist())
    assert set(sizes) == set(range(2, 19))
    assert stats.chisquare([sizes[size] for size in range(2, 19)]).pvalue > 0.001
    share = subsets.mean(0)
    expected = np.mean(np.arange(2, 19)) / 19
    assert np.abs(share - expected).max() < 4.5 * np.sqrt(expected * (1 - expected) / draws)


@pytest.fixture
def tiny19(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "tiny19", TINY_19)


def learner(model: str = "mvae", **fields: Any) -> ElboLearner:
    trial, data = Trial.create(dataset="tiny19", model=model, **fields), tiny_19()
    torch.manual_seed(0)
    chosen = arm(model)
    assert chosen.learner is not None
    made = chosen.learner(chosen.build(trial, data.modalities), trial, data)
    assert isinstance(made, ElboLearner)
    return made


def terms_of(batch: ElboBatch) -> list[bytes]:
    """Terms of a step whose rows have every modality."""
    assert bool((batch.plan.members == batch.plan.members[:1]).all())
    return [term.numpy().tobytes() for term in batch.plan.members[0]]


@pytest.mark.usefixtures("tiny19")
def test_the_k_subsets_depend_on_the_seed_and_change_each_step() -> None:
    def drawn(seed: int, epoch: int) -> list[list[bytes]]:
        return [terms_of(batch)[20:] for batch in learner(seed=seed, k=3).batches(epoch)]

    first = drawn(0, 0)
    assert len(first) == 4 and all(len(subsets) == 3 for subsets in first)
    assert drawn(0, 0) == first
    everything = [subset for seed, epoch in product((0, 1), (0, 1)) for step in drawn(seed, epoch) for subset in step]
    assert len(set(everything)) > 0.9 * len(everything)


@pytest.mark.usefixtures("tiny19")
@pytest.mark.parametrize(("fields", "draws"), [({}, 21), ({"k": 0}, 20), ({"k": 5}, 25), ({"fixed_noise": True}, 1)])
def test_a_step_of_mvae19_has_21_terms_by_default(fields: dict[str, Any], draws: int) -> None:
    batch = next(iter(learner(**fields).batches(0)))
    assert batch.plan.members.shape == (20, 21 if "k" not in fields else draws, 19)
    assert batch.noise.shape == (draws, 20, 4)


@pytest.mark.usefixtures("tiny19")
def test_a_learner_step_equals_a_plain_loop_over_its_rows() -> None:
    made = learner(keep_probability=0.4, k=2, attribute_weight=3.0, image_weight=2.0, batch_size=7)
    made.model.double()
    twin = plain_twin(made.model)
    batch = next(iter(made.batches(0)))
    rows = batch.plan.rows
    present = np.zeros((rows, 19), bool)
    examples: list[Tensor] = []
    for value, where in zip(batch.values, batch.plan.encoded, strict=True):
        index = torch.arange(rows) if where is None else where
        present[index, len(examples)] = True
        value = value.double() if value.is_floating_point() else value
        examples.append(value.new_zeros(rows, *value.shape[1:]).index_copy(0, index, value))
    terms = elbo_terms(19, 2, numpy_generator(0, "subsets"))
    weights = [2.0, *[3.0] * 18]
    theirs = plain_negative_elbo(
        twin,
        examples,
        present,
        terms,
        np.ones((len(terms), rows), bool),
        batch.noise.double(),
        targets="own",
        beta=float(annealed_beta(1, made.annealed_steps)),
        weights=weights,
        batch_size=7,
    )
    values = tuple(value.double() if value.is_floating_point() else value for value in batch.values)
    ours = made.loss(ElboBatch(batch.plan, values, batch.noise.double()), 1).total
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
