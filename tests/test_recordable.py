"""Losses of the successors can be recorded as CUDA graphs, checked as far as possible without a GPU.

A recorded step must read no value from the GPU, copy nothing to the GPU, and launch the same kernels for batches with
equal signatures. Tensors on the meta device have shapes but no values, so any read of a value fails. The losses take
the same branches there as on a GPU.
"""

from __future__ import annotations

import itertools
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.timing import random_data
from mvae.data import DATASETS
from mvae.data.dataset import Defaults, Kind, Modality, Source
from mvae.models import arm
from mvae.models.rows import Presence, RowBatch, RowLearner
from mvae.training.steps import RECORDED_KINDS, step_signature, tensors_of, with_tensors
from mvae.trial import Trial
from tests.small_models import made_up

FOUR = made_up(
    name="four",
    modalities=(
        Modality("image", Kind.IMAGE, (1, 4, 4)),
        Modality("label", Kind.LABEL, (), classes=3),
        Modality("attributes", Kind.ATTRIBUTES, (2,), attributes=("a", "b")),
        Modality("attribute", Kind.ATTRIBUTE, (), classes=2),
    ),
    defaults=Defaults(latents=3, epochs=5, image_network="mlp", image_networks=("mlp",), batch_size=16),
    examples=64,
)
"""One modality of every kind that can be recorded, except vectors."""

REAL = made_up(
    name="real",
    modalities=(
        Modality("image", Kind.IMAGE, (1, 4, 4), likelihood="gaussian", scale=None),
        Modality("numbers", Kind.VECTOR, (3,), likelihood="laplace", scale=None),
    ),
    defaults=FOUR.defaults,
    examples=64,
)

PATTERNS = [np.array(bits, bool) for bits in itertools.product((False, True), repeat=4) if any(bits)]
MIXED = np.stack(PATTERNS)
ROWS_OF = [MIXED, *(np.tile(one, (5, 1)) for one in PATTERNS)]
"""Masks of a step's rows, boolean [R, M]: one mask with every pattern of present modalities, and one per pattern."""

CASES: list[tuple[str, dict[str, Any]]] = [
    ("mopoe", {}),
    ("mopoe", {"beta": 2.3, "full_subset_prior": True}),
    ("mvtcae", {"beta": 2.3}),
    ("mmvae", {}),
    ("mmvae", {"samples": 3, "posterior": "normal"}),
    ("mmvae", {"samples": 3, "gradient": "exact", "learn_prior": False}),
    ("mmvae_plus", {"samples": 2, "private_latents": 2, "beta": 2.3}),
]
EVERY_CASE = pytest.mark.parametrize(("model", "own"), CASES, ids=str)


@pytest.fixture(autouse=True)
def _four(monkeypatch: pytest.MonkeyPatch) -> None:
    for made in (FOUR, REAL):
        monkeypatch.setitem(DATASETS, made.name, made)


def learner_of(model: str, own: dict[str, Any], of: Source = FOUR) -> RowLearner:
    trial = Trial.create(dataset=of.name, model=model, own=own)
    chosen = arm(model)
    assert chosen.cuda_graphs and chosen.learner is not None
    data = random_data(of.name, of.modalities, 64)
    learner = chosen.learner(chosen.build(trial, data.modalities).train(), trial, data)
    assert isinstance(learner, RowLearner) and learner.annealed_steps > 3
    return learner


def batch_of(learner: RowLearner, present: np.ndarray, presence: Presence, seed: int = 0) -> RowBatch:
    """A step of random examples with the modalities in `present`."""
    draw, rows = np.random.default_rng(seed), len(present)
    chosen = [torch.from_numpy(draw.integers(0, len(learner.split), int(column.sum()))) for column in present.T]
    values = tuple(learner.split.take(m, index) for m, index in enumerate(chosen))
    noise = torch.from_numpy(draw.standard_normal((rows, *learner.noise_shape()))).float()
    return RowBatch(presence, values, noise, torch.from_numpy(draw.random(rows)))


def moved(part: Any, device: str) -> Any:
    """A batch with all its tensors on another device."""
    if isinstance(part, Tensor):
        return part.to(device)
    if isinstance(part, tuple):
        return tuple(moved(one, device) for one in part)
    if is_dataclass(part) and not isinstance(part, type):
        return type(part)(**{field.name: moved(getattr(part, field.name), device) for field in fields(part)})
    return part


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lists every operator of a step, with the shapes of its tensors and its other arguments."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ran: list[tuple[Any, ...]] = []
        self.devices: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        out = func(*args, **given)
        parts = tree_leaves((args, given, out))
        self.devices |= {one.device.type for one in parts if isinstance(one, Tensor)}
        described = (
            (one.shape, one.dtype) if isinstance(one, Tensor) else str(one) for one in tree_leaves((args, given))
        )
        self.ran.append((str(func), *described))
        return out


def take(learner: RowLearner, batch: RowBatch, step: int | Tensor) -> tuple[Tensor, list[Tensor | None]]:
    """Loss and gradients of one step."""
    learner.model.zero_grad(set_to_none=True)
    loss = learner.loss(batch, step)
    loss.total.backward()  # type: ignore[no-untyped-call]
    return loss.total.detach(), [parameter.grad for parameter in learner.model.parameters()]


def operators(learner: RowLearner, batch: RowBatch, step: int | Tensor) -> Operators:
    found = Operators()
    with found:
        take(learner, batch, step)
    return found


def at(step: int, device: str = "cpu") -> Tensor:
    """The step as a recorded step gets it."""
    return torch.tensor(float(step), dtype=torch.float64, device=device)


def assert_same(one: tuple[Tensor, list[Tensor | None]], other: tuple[Tensor, list[Tensor | None]]) -> None:
    assert torch.equal(one[0], other[0])
    for gradient, its in zip(one[1], other[1], strict=True):
        assert (gradient is None) == (its is None)
        assert gradient is None or (its is not None and torch.equal(gradient, its))


@EVERY_CASE
def test_a_loss_reads_no_value_from_its_device_and_copies_none_to_it(model: str, own: dict[str, Any]) -> None:
    learner = learner_of(model, own)
    learner.model.to("meta")
    batches = [moved(batch_of(learner, present, Presence.of(present)), "meta") for present in ROWS_OF]
    take(learner, batches[0], at(3, "meta"))  # eager steps precede the recording, and fill caches of constants
    for present, batch in zip(ROWS_OF, batches, strict=True):
        found = operators(learner, batch, at(3, "meta"))
        assert found.devices == {"meta"}, present
        assert len(found.ran) > 100


@EVERY_CASE
def test_steps_of_vectors_and_of_learnt_scales_can_be_recorded(model: str, own: dict[str, Any]) -> None:
    assert {modality.kind for modality in REAL.modalities} <= RECORDED_KINDS
    learner, present = learner_of(model, own, REAL), np.array([[1, 0], [0, 1], [1, 1]], bool)
    presence = Presence.of(present)
    one, other = (batch_of(learner, present, presence, seed) for seed in (0, 1))
    take(learner, one, at(0))
    assert step_signature(one) == step_signature(other)
    assert operators(learner, one, at(0)).ran == operators(learner, other, at(3)).ran
    learner.model.to("meta")
    take(learner, moved(one, "meta"), at(3, "meta"))
    assert operators(learner, moved(one, "meta"), at(3, "meta")).devices == {"meta"}


@EVERY_CASE
def test_batches_with_equal_signatures_run_the_same_operators(model: str, own: dict[str, Any]) -> None:
    learner = learner_of(model, own)
    for present in (MIXED, ROWS_OF[1], ROWS_OF[-1]):
        presence = Presence.of(present)
        one, other = (batch_of(learner, present, presence, seed) for seed in (0, 1))
        assert step_signature(one) == step_signature(other)
        assert not torch.equal(one.noise, other.noise) and not torch.equal(one.choice, other.choice)
        if present is MIXED:
            take(learner, one, at(0))  # fills caches of constants
        assert operators(learner, one, at(0)).ran == operators(learner, other, at(3)).ran, present


@EVERY_CASE
def test_a_loss_depends_only_on_the_tensors_that_a_recorded_step_copies(model: str, own: dict[str, Any]) -> None:
    learner, present = learner_of(model, own), MIXED
    presence = Presence.of(present)
    one, other = (batch_of(learner, present, presence, seed) for seed in (0, 1))
    wanted = take(learner, other, at(2))
    assert_same(take(learner, with_tensors(one, tensors_of(other)), at(2)), wanted)
    assert not torch.equal(take(learner, one, at(2))[0], wanted[0])


@EVERY_CASE
def test_the_step_as_a_tensor_gives_the_same_loss_and_gradients_bit_for_bit(model: str, own: dict[str, Any]) -> None:
    learner, present = learner_of(model, own), MIXED
    batch = batch_of(learner, present, Presence.of(present))
    for step in (0, 1, 2, 100):
        assert_same(take(learner, batch, at(step)), take(learner, batch, step))


@pytest.mark.parametrize("weight", [0.7, 2.3, 2.5])
def test_the_annealed_weight_is_rounded_once(weight: float) -> None:
    learner = learner_of("mopoe", {"beta": weight})
    for step in range(learner.annealed_steps + 2):
        number, tensor = learner.beta(step), learner.beta(at(step))
        assert isinstance(number, float) and isinstance(tensor, Tensor)
        assert torch.equal(tensor, torch.tensor(number, dtype=torch.float32))


def test_a_read_and_a_copy_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, present = learner_of("mvtcae", {}), MIXED
    batch = moved(batch_of(learner, present, Presence.of(present)), "meta")
    learner.model.to("meta")
    plain = learner.arguments

    def copied(batch: RowBatch, step: int | Tensor) -> dict[str, Any]:
        return {**plain(batch, step), "beta": torch.ones(2).to("meta").sum()}

    def read(batch: RowBatch, step: int | Tensor) -> dict[str, Any]:
        return {**plain(batch, step), "a": float(batch.choice.sum())}

    monkeypatch.setattr(learner, "arguments", copied)
    assert operators(learner, batch, at(0, "meta")).devices == {"cpu", "meta"}
    monkeypatch.setattr(learner, "arguments", read)
    with pytest.raises(RuntimeError, match="meta"):
        take(learner, batch, at(0, "meta"))
