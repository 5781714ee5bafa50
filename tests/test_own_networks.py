"""One data set of images of several sizes and channels, vectors and labels: each has its own network and likelihood."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mvae.data import DATASETS
from mvae.data.dataset import Defaults, Kind, Modality, Source
from mvae.data.examples import Dataset, Split
from mvae.models import arm
from mvae.networks.convolutional import ConvolutionalEncoder
from mvae.networks.image import MlpImageEncoder
from mvae.trial import Trial
from tests.small_models import made_up

MIXED = made_up(
    name="mixed",
    modalities=(
        Modality("small", Kind.IMAGE, (1, 28, 28)),
        Modality("wide", Kind.IMAGE, (5, 40, 44), likelihood="laplace", scale=0.75, network="mlp"),
        Modality("odd", Kind.IMAGE, (2, 37, 37), likelihood="gaussian", scale=None, network="conv"),
        Modality("large", Kind.IMAGE, (3, 64, 64), likelihood="gaussian", scale=0.5, network="dcgan"),
        Modality("numbers", Kind.VECTOR, (7,), likelihood="laplace", scale=None),
        Modality("label", Kind.LABEL, (), classes=3, likelihood="categorical"),
    ),
    defaults=Defaults(latents=6, epochs=1, image_network="conv", image_networks=("conv", "mlp", "dcgan"), batch_size=4),
    examples=4,
)


@pytest.fixture(autouse=True)
def mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "mixed", MIXED)


def trial_of(model: str, **fields: Any) -> Trial:
    return Trial.create(dataset="mixed", model=model, **fields)


def data() -> Dataset:
    draw = torch.Generator().manual_seed(0)

    def value(modality: Modality) -> torch.Tensor:
        if modality.kind is Kind.VECTOR:
            return torch.randn(4, *modality.shape, generator=draw)
        return torch.randint(modality.classes or 256, (4, *modality.shape), generator=draw, dtype=torch.uint8)

    split = Split(tuple(map(value, MIXED.modalities)))
    return Dataset("mixed", MIXED.modalities, "0" * 64, split, split, split)


@pytest.mark.parametrize("model", ["mvae", "jmvae", "mopoe", "mvtcae", "mmvae", "mmvae_plus", "nn"])
def test_an_arm_trains_every_network_of_a_mixed_data_set(model: str) -> None:
    trial, given = trial_of(model), data()
    module: Any = arm(model).build(trial, given.modalities).train()
    learner: Any = arm(model).learner(module, trial, given)  # type: ignore[misc]
    (batch,) = learner.batches(0)
    total = learner.loss(batch, 0).total
    total.backward()
    assert total.isfinite()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_jmvaes_joint_encoder_reads_each_image_through_its_own_network() -> None:
    module: Any = arm("jmvae").build(trial_of("jmvae"), MIXED.modalities)
    small, wide, odd, *_ = module.joint.trunks
    convolution, full = (
        type(one.layers[0]) for one in (ConvolutionalEncoder((2, 37, 37), 12), MlpImageEncoder((5, 40, 44), 12))
    )
    assert isinstance(small[0], convolution) and isinstance(odd[0], convolution) and isinstance(wide[1], full)


def test_jmvaes_joint_encoder_has_as_many_features_of_a_conv_image_as_latents() -> None:
    module: Any = arm("jmvae").build(trial_of("jmvae", latents=20), MIXED.modalities)
    assert module.joint.trunks[0](torch.rand(2, 1, 28, 28)).shape == (2, 20)


def key(**fields: Any) -> str:
    return trial_of("mvtcae", **fields).key("f" * 64)


def test_the_depth_of_decoders_is_in_the_key_if_a_vector_or_an_image_of_its_own_has_an_mlp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for kept in (MIXED.modalities[1:2], MIXED.modalities[4:5]):
        few = (MIXED.modalities[0], *kept)
        monkeypatch.setitem(DATASETS, "mixed", Source(**{**vars(MIXED), "modalities": few}))
        assert key(decoder_hidden=1) != key(decoder_hidden=3)
    monkeypatch.setitem(DATASETS, "mixed", Source(**{**vars(MIXED), "modalities": MIXED.modalities[2:4]}))
    assert key(decoder_hidden=1) == key(decoder_hidden=3)


def test_shared_statistics_are_in_the_key_if_an_image_of_its_own_has_batch_normalisation() -> None:
    assert key(workers=2, sync_batchnorm=True) != key(workers=2)
    assert key(workers=2, sync_batchnorm=True, image_network="mlp") != key(workers=2, image_network="mlp")
