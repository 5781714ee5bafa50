"""Gradients computed in pieces equal the gradients of one pass, and further terms need little memory."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mvae.models.elbo
from mvae.data.dataset import Kind, Modality
from mvae.models.elbo import elbo_terms, negative_elbo
from mvae.models.layout import layout
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import MVAE, MVAEQ
from mvae.models.pieces import piece_by_piece
from mvae.networks.normalisation import TermBatchNorm, term_statistics
from tests.small_models import IMAGE, LABEL, LATENTS, PHOTO, SEVERAL, many_model, single

# R rows, M modalities, T terms, A single attributes, D latents

TEXT = Modality("text", Kind.TEXT, (5,), classes=12)
KINDS: dict[str, tuple[tuple[Modality, ...], str | None]] = {
    "image by an MLP": ((Modality("image", Kind.IMAGE, (1, 8, 8)), LABEL), "mlp"),
    "image by small networks": ((IMAGE, LABEL), None),
    "28x28": ((Modality("image", Kind.IMAGE, (1, 28, 28)), LABEL), "dcgan"),
    "50x50 and text": ((Modality("image", Kind.IMAGE, (1, 50, 50)), TEXT), "dcgan"),
    "64x64 and 18 attributes as one": ((PHOTO, SEVERAL), "dcgan"),
    "18 single attributes": ((IMAGE, LABEL, *single(18)), None),
}
"""Modalities and image network, for every kind of network."""

FEW = 4
"""Rows per piece, so that a step of 6 rows has several pieces."""


def step(model: Multimodal, rows: int, k: int, *, seed: int = 0, everything: bool = False) -> mvae.models.elbo.Loss:
    """One step of the objective, with values and noise in the model's precision."""
    modalities, dtype = model.modalities, next(model.parameters()).dtype
    random, draw = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    present = np.ones((rows, len(modalities)), bool) if everything else random.random((rows, len(modalities))) < 0.7
    terms = elbo_terms(len(modalities), k, random)
    plan = layout(present, terms, np.ones((len(terms), rows), bool), targets="all", stacked=len(model.stacked))
    values = []
    for m, modality in enumerate(modalities):
        shape = (int(present[:, m].sum()), *modality.shape)
        if modality.kind is Kind.IMAGE:
            values.append(torch.rand(shape, generator=draw, dtype=dtype))
        else:
            value = torch.randint(max(2, modality.classes - 2), shape, generator=draw)
            values.append(value.index_fill(-1, torch.tensor(4), 10) if modality.kind is Kind.TEXT else value)
    noise = torch.randn(len(terms), rows, model.latents, generator=draw, dtype=dtype)
    weights = np.linspace(1, 3, len(modalities)).tolist()
    torch.manual_seed(0)
    return negative_elbo(model, plan, values, noise, beta=0.5, weights=weights, batch_size=rows)


Outcome = tuple[Tensor, dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]
"""The loss, its parts, the gradients, and the running statistics afterwards."""


def cut(model: Multimodal, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Limits decoders to the given number of rows per pass."""
    monkeypatch.setattr(mvae.models.elbo, "DECODED_ROWS", rows)
    monkeypatch.setattr(mvae.models.elbo, "FEW_MODALITIES", 0)
    monkeypatch.setattr(mvae.models.elbo, "STACKED_ROWS", rows * max(1, len(model.stacked)))
    for decoder in model.decoders:
        if hasattr(decoder, "rows"):
            monkeypatch.setattr(decoder, "rows", rows)


def outcome(kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, rows: int) -> Outcome:
    modalities, network = KINDS[kind]
    model = many_model(modalities, MVAE, image_network=network).to(dtype)
    cut(model, monkeypatch, rows)
    loss = step(model, 6, k=3 if len(modalities) > 2 else 0)
    loss.total.backward()  # type: ignore[no-untyped-call]
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    return loss.total.detach(), loss.parts, gradients, dict(model.named_buffers())  # type: ignore[return-value]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["32", "64"])
@pytest.mark.parametrize("kind", KINDS)
def test_for_every_network_gradients_computed_in_pieces_equal_those_in_one_pass(
    kind: str, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = outcome(kind, dtype, monkeypatch, 10**9)
    for rows in (1, FEW):
        pieces = outcome(kind, dtype, monkeypatch, rows)
        torch.testing.assert_close(pieces[:2], whole[:2], rtol=tolerance, atol=tolerance)
        scale = max(float(gradient.abs().max()) for gradient in whole[2].values())
        for name, gradient in pieces[2].items():
            # Sums over 64x64 pixels: the rounding of float32 differs between processors.
            atol = 10 * tolerance * max(1e-2 * scale, float(whole[2][name].abs().max()))
            torch.testing.assert_close(gradient, whole[2][name], rtol=tolerance, atol=atol, msg=name)
        torch.testing.assert_close(pieces[3], whole[3], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_the_test_above_splits_every_network_into_pieces(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[int] = []

    def counted(*arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        pieces.append(len(arguments[3]))
        return piece_by_piece(*arguments, **options)

    monkeypatch.setattr(mvae.models.elbo, "piece_by_piece", counted)
    outcome(kind, torch.float32, monkeypatch, FEW)
    assert len(pieces) == min(3, len(KINDS[kind][0]))
    assert min(pieces) > 1
    pieces.clear()
    outcome(kind, torch.float32, monkeypatch, 10**9)
    assert max(pieces) == 1


def test_a_single_piece_is_differentiated_as_usual_bit_for_bit() -> None:
    torch.manual_seed(0)
    network, whole = nn.Sequential(nn.Linear(4, 5), nn.SiLU(), nn.Linear(5, 3)), torch.randn(7, 4, requires_grad=True)
    leaves, weights = [whole, *network.parameters()], torch.tensor([1.0, 2.0, 3.0])
    plain = network(whole).sum(0)
    total, each = piece_by_piece(lambda part, _s, _e: network(part).sum(0), whole, 0, [7], weights, network)
    assert torch.equal(total, (weights * plain).sum()) and torch.equal(each, plain)
    assert not each.requires_grad
    mine = torch.autograd.grad(total, leaves)
    for one, other in zip(mine, torch.autograd.grad((weights * plain).sum(), leaves), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("weighted", [False, True])
def test_pieces_along_any_dimension_give_the_right_totals_sums_and_gradients(weighted: bool, dim: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.SiLU(), nn.Linear(5, 3)).double()
    source = torch.randn(6, 6, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64) if weighted else None

    def summed(part: Tensor, start: int, end: int) -> Tensor:
        assert part.shape[dim] == end - start
        each: Tensor = network(part.sin()).flatten(0, 1).sum(0)
        return each if weighted else each.sum()

    total, each = piece_by_piece(summed, source * 2, dim, [1, 2, 5, 6], weights, network)
    plain = network((source * 2).sin()).flatten(0, 1).sum(0)
    expected = plain.sum() if weights is None else (weights * plain).sum()
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(each, plain.detach() if weighted else plain.detach().sum())
    leaves = [source, *network.parameters()]
    mine = torch.autograd.grad(total.square() * 0.1, leaves)
    torch.testing.assert_close(mine, torch.autograd.grad(expected.square() * 0.1, leaves))


def test_a_sum_over_nothing_is_zero() -> None:
    whole, network = torch.zeros(0, 4, requires_grad=True), nn.Linear(4, 1)

    def never(part: Tensor, start: int, end: int) -> Tensor:
        raise AssertionError

    total, each = piece_by_piece(never, whole, 0, [], torch.ones(3), network)
    assert total.shape == () and total == 0
    assert torch.equal(each, torch.zeros(3))
    total, each = piece_by_piece(never, whole, 0, [], None, network)
    assert total.shape == each.shape == ()


def test_frozen_parameters_get_no_gradient_and_no_grad_mode_leaves_no_graph() -> None:
    torch.manual_seed(0)
    network, whole = nn.Sequential(nn.Linear(4, 5), nn.SiLU(), nn.Linear(5, 1)), torch.randn(7, 4)
    network[0].requires_grad_(False)
    arguments = (lambda part, _s, _e: network(part).sum(), whole, 0, [3, 7], None, network)
    total, _ = piece_by_piece(*arguments)
    total.backward()  # type: ignore[no-untyped-call]
    assert network[0].weight.grad is None
    expected = torch.autograd.grad(network(whole).sum(), list(network[2].parameters()))
    torch.testing.assert_close([network[2].weight.grad, network[2].bias.grad], list(expected))
    with torch.no_grad():
        quiet, _ = piece_by_piece(*arguments)
    assert not quiet.requires_grad
    torch.testing.assert_close(quiet, total.detach())


def test_running_statistics_are_updated_once_over_all_pieces_with_and_without_gradients() -> None:
    def moved(*, pieces: bool, gradients: bool) -> Tensor:
        torch.manual_seed(0)
        network, whole = nn.Sequential(nn.Linear(4, 3), TermBatchNorm(3)), torch.randn(8, 4)
        groups, ends = ([(5,), (3,)], [5, 8]) if pieces else ([(5, 3)], [8])
        with torch.set_grad_enabled(gradients), term_statistics(network) as next_groups:

            def summed(part: Tensor, start: int, end: int) -> Tensor:
                next_groups(groups[ends.index(end)])
                total: Tensor = network(part).square().sum()
                return total

            piece_by_piece(summed, whole, 0, ends, None, network)
        return torch.cat([network[1].running_mean, network[1].running_var])  # type: ignore[list-item]

    once = moved(pieces=False, gradients=True)
    assert once.abs().max() > 0
    for pieces, gradients in ((True, True), (True, False), (False, False)):
        torch.testing.assert_close(moved(pieces=pieces, gradients=gradients), once)


def test_in_bfloat16_pieces_give_nearly_the_gradients_of_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def flat(rows: int) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            _, _, gradients, _ = outcome("18 single attributes", torch.float32, monkeypatch, rows)
        assert all(gradient.dtype == torch.float32 for gradient in gradients.values())
        return torch.cat([gradient.flatten() for gradient in gradients.values()])

    whole, pieces = flat(10**9), flat(FEW)
    assert not torch.equal(whole, pieces)
    assert (whole - pieces).norm() < 0.02 * whole.norm()


# ---- memory


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the tensors that operations create, and records the largest number of bytes alive at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(given):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        return given

    def _note(self, storage: torch.UntypedStorage) -> None:
        address, size = storage.data_ptr(), storage.nbytes()
        if size and address not in self.known:
            self.known.add(address)
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._gone, address, size)

    def _gone(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.bytes -= size


def peak(model: Multimodal, rows: int, k: int) -> int:
    """Largest number of bytes alive at once in a step with its backward pass."""
    model.zero_grad()
    gc.collect()
    alive = Alive()
    with alive:
        step(model, rows, k, everything=True).total.backward()  # type: ignore[no-untyped-call]
    return alive.peak


def per_term_and_row(model: Multimodal, rows: int, few: int, many: int) -> float:
    """Growth of the peak for each row of each further term, in float32 numbers."""
    return (peak(model, rows, many) - peak(model, rows, few)) / (many - few) / rows / 4


@pytest.mark.parametrize("rule", [MVAE, MVAEQ])
def test_each_further_term_costs_only_a_few_latent_vectors_of_memory_per_row_and_modality(
    rule: type[Multimodal], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 20
    model = many_model((Modality("image", Kind.IMAGE, (1, 28, 28)), *single(18)), rule, image_network="mlp").float()
    cut(model, monkeypatch, rows)
    slope = per_term_and_row(model, rows, 8, 20)
    assert 0 < slope < 12 * LATENTS + 100  # per subset: z for its 10 attributes, one posterior, and indices
    assert slope == pytest.approx(per_term_and_row(model, rows, 20, 32), rel=0.05), "memory is not linear in k"
    cut(model, monkeypatch, 10**9)
    assert per_term_and_row(model, rows, 8, 20) > 30 * slope, "all terms at once should need far more memory"
