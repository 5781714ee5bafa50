"""The vectorised sub-sampled ELBO equals a plain loop, in value and in every gradient, for any missing modalities."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import mvae.models.elbo
from mvae.models.annealing import annealed_beta
from mvae.models.elbo import Loss, elbo_terms, negative_elbo, negative_elbo_by_terms
from mvae.models.layout import chunks, layout
from mvae.models.multimodal import Multimodal
from mvae.networks.normalisation import TermBatchNorm
from tests.plain_elbo import plain_negative_elbo, plain_twin
from tests.small_models import LATENTS, RULES, small_model

# R rows, M modalities, T terms, D latents


class Scene:
    """Rows, terms and noise of one step, with a mix of all availability patterns and one empty row."""

    def __init__(self, modalities: int, k: int = 0, *, shared_noise: bool = False, reserved: bool = False) -> None:
        random = np.random.default_rng(modalities * 10 + k)
        patterns = [row for row in product((False, True), repeat=modalities) if any(row)]
        rows = [pattern for i, pattern in enumerate(patterns) for _ in range(1 + i % 3)] + [(False,) * modalities]
        self.present = random.permutation(np.array(rows))
        self.terms = elbo_terms(modalities, k, random)
        self.active = np.ones((len(self.terms), len(rows)), dtype=bool)
        if reserved:  # a term of one modality takes rows that have only this modality; other terms take complete rows
            size = self.present.sum(1)
            self.active[:] = size == modalities
            self.active[1 : 1 + modalities] = size == 1
        draw = torch.Generator().manual_seed(3)
        count = len(rows)
        image = torch.rand(count, 2, 2, 3, generator=draw, dtype=torch.float64)
        labels = [torch.randint(classes, (count,), generator=draw) for classes in (4, 3)]
        self.examples = [image, *labels][:modalities]
        draws = 1 if shared_noise else len(self.terms)
        self.noise = torch.randn(draws, count, LATENTS, generator=draw, dtype=torch.float64)
        self.weights = [1.0, 50.0, 3.5][:modalities]

    def loss(self, model: Multimodal, targets: str = "own", beta: float = 0.3, batch_size: int = 9) -> Loss:
        plan = layout(self.present, self.terms, self.active, targets=targets)
        values = [x[torch.from_numpy(self.present[:, m])] for m, x in enumerate(self.examples)]
        return negative_elbo(model, plan, values, self.noise, beta=beta, weights=self.weights, batch_size=batch_size)

    def plain_loss(
        self, twin: Multimodal, targets: str = "own", beta: float = 0.3, batch_size: int = 9, dropout_seed: int = 0
    ) -> Tensor:
        return plain_negative_elbo(
            twin,
            self.examples,
            self.present,
            self.terms,
            self.active,
            self.noise,
            targets=targets,
            beta=beta,
            weights=self.weights,
            batch_size=batch_size,
            dropout_seed=dropout_seed,
        )

    def with_rows(self, present: np.ndarray) -> Scene:
        """The scene with fewer rows and other available modalities."""
        count = len(present)
        self.present, self.active = present, self.active[:, :count]
        self.examples, self.noise = [x[:count] for x in self.examples], self.noise[:, :count]
        return self

    def to(self, dtype: torch.dtype) -> Scene:
        self.noise = self.noise.to(dtype)
        self.examples[0] = self.examples[0].to(dtype)
        return self


def gradients(loss: Tensor, model: torch.nn.Module) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def assert_equal_to_the_plain_loop(scene: Scene, model: Multimodal, targets: str, tolerance: float) -> None:
    twin = plain_twin(model)
    ours, theirs = scene.loss(model, targets).total, scene.plain_loss(twin, targets)
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=0)
    expected = gradients(theirs, twin)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in gradients(ours, model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=tolerance, atol=tolerance * largest, msg=name)
    buffers = dict(twin.named_buffers())
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, buffers[name], rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("targets", ["own", "all"])
@pytest.mark.parametrize("shared_noise", [False, True], ids=["free noise", "shared noise"])
@pytest.mark.parametrize("reserved", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_the_objective_equals_its_specification(rule: str, reserved: bool, shared_noise: bool, targets: str) -> None:
    scene = Scene(3, 3, shared_noise=shared_noise, reserved=reserved)
    model = small_model(3, RULES[rule], normalised=False)
    specified = negative_elbo_by_terms(
        model,
        scene.examples,
        scene.present,
        scene.terms,
        scene.active,
        scene.noise,
        targets=targets,
        beta=0.3,
        weights=scene.weights,
        batch_size=9,
    )
    ours = scene.loss(model, targets).total
    torch.testing.assert_close(ours, specified, rtol=1e-12, atol=0)
    expected = gradients(specified, model)
    for name, gradient in gradients(ours, model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("normalised", [False, True], ids=["plain", "batchnorm"])
@pytest.mark.parametrize("targets", ["own", "all"])
@pytest.mark.parametrize("shared_noise", [False, True], ids=["free noise", "shared noise"])
@pytest.mark.parametrize(("modalities", "k"), [(2, 0), (3, 0), (3, 3)])
@pytest.mark.parametrize("rule", RULES)
def test_the_objective_and_all_its_gradients_equal_a_plain_loop(
    rule: str, modalities: int, k: int, shared_noise: bool, targets: str, normalised: bool
) -> None:
    scene = Scene(modalities, k, shared_noise=shared_noise)
    model = small_model(modalities, RULES[rule], normalised=normalised)
    assert_equal_to_the_plain_loop(scene, model, targets, tolerance=1e-10)


@pytest.mark.parametrize("normalised", [False, True], ids=["plain", "batchnorm"])
@pytest.mark.parametrize("targets", ["own", "all"])
@pytest.mark.parametrize(("modalities", "k"), [(2, 0), (3, 3)])
@pytest.mark.parametrize("rule", RULES)
def test_the_objective_of_reserved_rows_equals_a_plain_loop(
    rule: str, modalities: int, k: int, targets: str, normalised: bool
) -> None:
    scene = Scene(modalities, k, reserved=True)
    model = small_model(modalities, RULES[rule], normalised=normalised)
    assert_equal_to_the_plain_loop(scene, model, targets, tolerance=1e-10)


@pytest.mark.parametrize("normalised", [False, True], ids=["plain", "batchnorm"])
@pytest.mark.parametrize("rule", RULES)
def test_in_float32_the_objective_equals_a_plain_loop_to_1e_5(rule: str, normalised: bool) -> None:
    scene = Scene(3, 3).to(torch.float32)
    model = small_model(3, RULES[rule], normalised=normalised).float()
    assert_equal_to_the_plain_loop(scene, model, "own", tolerance=1e-5)


@pytest.mark.parametrize("pattern", [p for p in product((False, True), repeat=3) if any(p)])
@pytest.mark.parametrize("rule", RULES)
def test_a_batch_with_equal_modalities_in_all_rows_equals_a_plain_loop(rule: str, pattern: tuple[bool, ...]) -> None:
    scene = Scene(3, 3).with_rows(np.tile(np.array(pattern), (4, 1)))
    model = small_model(3, RULES[rule], normalised=False)
    twin = plain_twin(model)
    ours, theirs = scene.loss(model).total, scene.plain_loss(twin)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)
    mine = torch.autograd.grad(ours, list(model.parameters()), materialize_grads=True)
    plain = torch.autograd.grad(theirs, list(twin.parameters()), materialize_grads=True)
    torch.testing.assert_close(mine, plain, rtol=1e-10, atol=1e-10)


def test_a_term_with_a_single_row_is_normalised_by_the_running_statistics() -> None:
    scene = Scene(2).with_rows(np.array([[True, True], [True, False]]))
    scene.active = np.array([[True, False], [True, True], [False, False]])
    model = small_model(2, RULES["mvae"], normalised=True)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert_equal_to_the_plain_loop(scene, model, "own", tolerance=1e-10)
    moved = {name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])}
    assert any("encoders.0" in name for name in moved)
    assert any("decoders.0" in name for name in moved)
    assert not any("encoders.1" in name or "decoders.1" in name for name in moved)


def test_running_statistics_are_updated_once_per_step_for_any_terms_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mvae.models.elbo, "DECODED_ROWS", 1)
    moves: Counter[int] = Counter()
    update = TermBatchNorm._update_running_statistics

    def counted(norm: TermBatchNorm) -> None:
        moves[id(norm)] += bool(norm._seen)
        update(norm)

    monkeypatch.setattr(TermBatchNorm, "_update_running_statistics", counted)
    model = small_model(3, RULES["mvae"], normalised=True)
    Scene(3, 3).loss(model)
    norms = [module for module in model.modules() if isinstance(module, TermBatchNorm)]
    assert [moves[id(norm)] for norm in norms] == [1] * len(norms)


@pytest.mark.parametrize("normalised", [False, True], ids=["plain", "batchnorm"])
@pytest.mark.parametrize("rows", [1, 5, 12, 10_000])
def test_decoding_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch, rows: int, normalised: bool) -> None:
    def outcome() -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        model = small_model(3, RULES["mvae"], normalised=normalised)
        loss = Scene(3, 3).loss(model, "all").total
        return loss, gradients(loss, model), dict(model.named_buffers())

    whole = outcome()
    monkeypatch.setattr(mvae.models.elbo, "DECODED_ROWS", rows)
    torch.testing.assert_close(outcome(), whole, rtol=1e-12, atol=1e-12)


def test_chunks_consist_of_whole_groups_in_order() -> None:
    assert chunks([3, 4, 5, 20, 1, 1], 8) == [(3, 4), (5,), (20,), (1, 1)]
    assert chunks([], 8) == []
    assert chunks([8, 8], 8) == [(8,), (8,)]


def test_nan_outside_the_active_pairs_changes_no_value_and_no_gradient() -> None:
    def outcome(garbage: float) -> tuple[Tensor, dict[str, Tensor]]:
        scene = Scene(3, 3, reserved=True)
        model = small_model(3, RULES["mvae"], normalised=True)
        taken = torch.from_numpy(scene.active & (scene.terms @ scene.present.T))
        scene.noise[~taken] = garbage
        scene.examples[0][~torch.from_numpy(scene.present[:, 0])] = garbage
        loss = scene.loss(model, "all").total
        return loss, gradients(loss, model)

    dirty, clean = outcome(torch.nan), outcome(0.0)
    assert torch.isfinite(dirty[0])
    torch.testing.assert_close(dirty, clean, rtol=0, atol=0)


@pytest.mark.parametrize("rule", RULES)
def test_experts_of_missing_modalities_may_hold_nan(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome() -> tuple[Tensor, dict[str, Tensor]]:
        model = small_model(3, RULES[rule], normalised=False)
        loss = Scene(3, 3).loss(model).total
        return loss, gradients(loss, model)

    clean = outcome()

    def nan_elsewhere(present: Tensor, rows: Tensor | None, total: int) -> Tensor:
        return present if rows is None else present.new_full((total, LATENTS), torch.nan).index_copy(0, rows, present)

    monkeypatch.setattr(mvae.models.elbo, "all_rows", nan_elsewhere)
    torch.testing.assert_close(outcome(), clean, rtol=1e-12, atol=1e-14)


def test_terms_are_divided_by_the_global_batch_size_and_not_by_the_number_of_present_rows() -> None:
    model, scene = small_model(2, RULES["mvae"], normalised=False), Scene(2)
    whole = scene.loss(model, batch_size=100).total
    torch.testing.assert_close(scene.loss(model, batch_size=200).total * 2, whole)
    parts = []
    for row in range(len(scene.present)):
        scene.active[:] = False
        scene.active[:, row] = True
        parts.append(scene.loss(model, batch_size=100).total)
    torch.testing.assert_close(torch.stack(parts).sum(), whole)


def test_weights_multiply_likelihoods_and_beta_multiplies_only_the_kl() -> None:
    model, scene = small_model(3, RULES["mvae"], normalised=False), Scene(3, 3)
    reference = scene.loss(model).parts
    for beta, weights in ((0.0, [1.0, 1.0, 1.0]), (1.0, [0.0, 0.0, 0.0]), (0.25, [2.0, 7.0, 0.5])):
        scene.weights = weights
        loss = scene.loss(model, beta=beta)
        torch.testing.assert_close(loss.parts, reference)
        weighted = sum(
            w * reference[f"log_likelihood_{m.name}"] for w, m in zip(weights, model.modalities, strict=True)
        )
        torch.testing.assert_close(loss.total.detach(), beta * reference["kl"] - weighted)


def test_with_shared_noise_every_term_gets_the_same_draw() -> None:
    model, free, shared = small_model(3, RULES["mvae"], normalised=False), Scene(3, 3), Scene(3, 3, shared_noise=True)
    free.noise = shared.noise.expand(len(free.terms), -1, -1)
    torch.testing.assert_close(free.loss(model).total, shared.loss(model).total, rtol=0, atol=0)


@pytest.mark.parametrize("targets", ["own", "all"])
def test_a_term_reconstructs_its_own_modalities_or_all_present_ones(targets: str) -> None:
    present = np.array([[True, True], [True, False], [False, True]])
    terms = elbo_terms(2, 0, np.random.default_rng(0))
    plan = layout(present, terms, np.ones((3, 3), dtype=bool), targets=targets)
    image_terms, label_terms = ((2, 2), (2, 2)) if targets == "own" else ((2, 2, 1), (2, 1, 2))
    assert plan.groups == (image_terms, label_terms)


def test_a_step_without_active_terms_has_zero_loss() -> None:
    scene = Scene(2)
    scene.active[:] = False
    assert scene.loss(small_model(2, RULES["mvae"], normalised=True)).total == 0


def test_the_terms_are_all_modalities_then_single_modalities_then_k_subsets() -> None:
    terms = elbo_terms(5, 4, np.random.default_rng(0))
    assert terms.shape == (1 + 5 + 4, 5)
    assert terms[0].all()
    assert (terms[1:6] == np.eye(5, dtype=bool)).all()
    assert set(terms[6:].sum(1)) <= {2, 3, 4}


def test_nineteen_modalities_and_one_subset_make_the_21_terms_of_the_paper() -> None:
    assert len(elbo_terms(19, 1, np.random.default_rng(0))) == 21


def test_subset_sizes_are_uniform_and_subsets_uniform_within_their_size() -> None:
    modalities, draws = 5, 12_000
    subsets = elbo_terms(modalities, draws, np.random.default_rng(1))[1 + modalities :]
    sizes = Counter(subsets.sum(1).tolist())
    assert set(sizes) == {2, 3, 4}
    assert stats.chisquare([sizes[size] for size in (2, 3, 4)]).pvalue > 0.001
    for size in (2, 3, 4):
        seen = Counter(tuple(np.flatnonzero(s)) for s in subsets[subsets.sum(1) == size])
        assert set(seen) == set(combinations(range(modalities), size))
        assert stats.chisquare(list(seen.values())).pvalue > 0.001


def test_subsets_are_equal_for_one_seed_and_differ_between_seeds() -> None:
    one, same, other = (elbo_terms(6, 20, np.random.default_rng(seed)) for seed in (4, 4, 5))
    assert (one == same).all()
    assert (one != other).any()


def test_subsets_of_two_modalities_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 3 modalities.*k = 0"):
        elbo_terms(2, 1, np.random.default_rng(0))


@pytest.mark.parametrize("total", [1, 2, 3, 10, 65, 50_000])
@pytest.mark.parametrize("share", [0.01, 0.2, 0.4, 1.0])
def test_beta_rises_linearly_and_reaches_exactly_1(total: int, share: float) -> None:
    annealed = round(share * total)
    betas = [annealed_beta(step, annealed) for step in range(total)]
    assert betas[-1] == 1.0
    assert all(beta == 1.0 for beta in betas[max(annealed - 1, 0) :])
    assert betas == [min(1.0, (step + 1) / max(annealed, 1)) for step in range(total)]


def test_beta_of_the_literal_200_epochs_in_a_100_epoch_run_ends_at_one_half() -> None:
    steps = 500
    assert annealed_beta(100 * steps - 1, 200 * steps) == 0.5
