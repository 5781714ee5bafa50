"""FID: Frechet distances in the features of a given network. No other number is called FID."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mvae.data import source
from mvae.data.dataset import Kind, Modality
from mvae.data.examples import Dataset, Split
from mvae.evaluation.fid import fid_metrics, measure_of, read
from mvae.evaluation.measurable import check_measurable
from mvae.measure import COHERENCE
from mvae.models.gaussian import Gaussian
from mvae.models.multimodal import Multimodal
from mvae.refusal import Refusal
from pipelines import coherence
from sweeps.cli.options import read as options_of

MODALITIES = tuple(Modality(f"m{m}", Kind.IMAGE, (3, 4, 4), likelihood="laplace", scale=0.75) for m in range(2))
N = 4000


class Means(nn.Module):
    """Features: the mean of each colour, from 0 to 1."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        return images.float().mean(3).mean(2) / 255


class Published(nn.Module):
    """Returns class probabilities unless features are wanted, as the published network does."""

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        means = images.float().mean(3).mean(2) / 255
        return means if return_features else means.softmax(1)[:, :1]


class Constant(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float()


def saved(folder: Path, network: nn.Module) -> Path:
    path = folder / "network.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.script(network), str(path))
    return path


class Painting(Multimodal):
    """Paints images of one colour each: modality m of `centre[m]` plus a tenth of z. The posterior is the prior."""

    def __init__(self, centre: tuple[float, float]) -> None:
        super().__init__(MODALITIES, [nn.Identity()] * 2, [nn.Identity()] * 2, 3)
        self.centre = centre

    def infer_at(self, values: dict[int, Tensor]) -> Gaussian:
        n = len(values[min(values)])
        return Gaussian(torch.zeros(n, 3), torch.zeros(n, 3))

    def decode(self, m: int, z: Tensor) -> Tensor:
        return (self.centre[m] + 0.1 * z)[:, :, None, None].expand(-1, -1, 4, 4)


def painted() -> Dataset:
    """Real images of both modalities, of colours drawn from N(0.5, 0.05^2)."""
    colours = 0.5 + 0.05 * torch.randn(2, N, 3, generator=torch.Generator().manual_seed(1))
    images = (colours.clamp(0, 1) * 255).round().to(torch.uint8)[..., None, None].expand(-1, -1, -1, 4, 4)
    split = Split(tuple(images.contiguous()))
    return Dataset("made up", MODALITIES, "0" * 64, split, split, split)


@pytest.mark.parametrize("network", [Means(), Published()])
def test_fid_equals_the_closed_form_for_normal_features_of_generated_and_real_images(
    tmp_path: Path, network: nn.Module
) -> None:
    measure = measure_of(saved(tmp_path, network))
    found = fid_metrics(Painting((0.5, 0.4)), painted(), read(measure, "cpu"), seed=0)
    spread = 3 * (0.1 - 0.05) ** 2
    for name in ("fid-prior", "fid-given-1"):
        assert found[f"test/{name}-m0"] == pytest.approx(spread, rel=0.1)
        assert found[f"test/{name}-m1"] == pytest.approx(spread + 3 * 0.1**2, rel=0.1)
        both = [found[f"test/{name}-m{m}"] for m in range(2)]
        assert found[f"test/{name}"] == pytest.approx(np.mean(both))


def test_another_file_is_another_measure_and_its_path_is_not_part_of_it(tmp_path: Path) -> None:
    one = measure_of(saved(tmp_path, Means()))
    moved = (tmp_path / "network.pt").rename(tmp_path / "moved.pt")
    assert measure_of(moved) == one and measure_of(moved).token == one.token
    other = measure_of(saved(tmp_path, Published()))
    assert other != one and other.token != one.token
    assert one.token == f"fid-{one.digest}-v1" and len(one.digest) == 16


def test_a_machine_with_another_file_of_that_name_computes_nothing(tmp_path: Path) -> None:
    measure = measure_of(saved(tmp_path, Means()))
    saved(tmp_path, Published())
    with pytest.raises(Refusal, match=r"network\.pt on .* is missing or differs from the driver's: copy"):
        read(measure, "cpu")


def bad_file(folder: Path, kind: str) -> Path:
    path = folder / "network.pt"
    if kind == "weights":
        torch.save({"weight": torch.zeros(3)}, path)
    elif kind == "text":
        path.write_text("no network", encoding="utf-8")
    elif kind == "shape":
        saved(folder, Constant())
    elif kind == "failing":
        saved(folder, nn.Linear(5, 2))
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"No such file or directory: give a TorchScript file"),
        ("text", r"is not a TorchScript file: save the whole network with torch\.jit\.save, not only its weights"),
        ("weights", r"is not a TorchScript file: save the whole network"),
        ("shape", r"maps 2 images to \[2, 3, 28, 28\]: give a network that maps n images to finite features \[n, F\]"),
        ("failing", r"fails on two images, uint8 \[2, 3, 28, 28\] \(.+\): give a network"),
    ],
)
def test_a_bad_inception_file_is_refused_in_one_line_before_anything_starts(
    tmp_path: Path, kind: str, message: str
) -> None:
    options = options_of(coherence.Options, ["--arms", "mvae", "--inception", str(bad_file(tmp_path, kind))])
    with pytest.raises(Refusal, match=message) as refusal:
        coherence.sweep(options)
    assert "\n" not in str(refusal.value)


def test_only_a_given_file_adds_quantities_called_fid(tmp_path: Path) -> None:
    def columns(*typed: str) -> set[Any]:
        return {cell.column for cell in coherence.cells(options_of(coherence.Options, ["--arms", "mvae", *typed]))}

    plain = columns()
    assert not any("fid" in str(column).lower() for column in plain)
    with_fid = list(
        coherence.cells(options_of(coherence.Options, ["--arms", "mvae", "--inception", str(saved(tmp_path, Means()))]))
    )
    added = [cell for cell in with_fid if cell.column not in plain]
    assert [cell.column for cell in added] == ["FID prior", "FID 1 input"]
    assert {cell.measure.name for cell in added} == {"fid"}
    assert {cell.trial for cell in added} == {cell.trial for cell in with_fid if cell.measure == COHERENCE}


def test_fid_needs_images_of_three_colours(tmp_path: Path) -> None:
    measure = measure_of(saved(tmp_path, Means()))
    with pytest.raises(Refusal, match="digits has no images of three colours in every modality: choose among"):
        check_measurable(measure, "mvae", source("digits"))
