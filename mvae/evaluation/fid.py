"""Computes FID: the Frechet distance between features of generated and of real images.

The features come from an Inception network that the user gives.

The network is a TorchScript file that maps images, uint8 [n, 3, H, W] from 0 to 255, to features, float [n, F]. It
resizes the images itself. If its `forward` has an argument `return_features`, that argument is set to True. So the file
inception-2015-12-05.pt by StyleGAN2-ADA's authors works unchanged. The file is a translation of the original TensorFlow
network. Only the original weights give numbers that can be compared with published FIDs. torchvision's inception_v3 has
other weights.

Generated images are means of p(x_m | z), clipped to [0, 1] and rounded to 8 bits. Real images are the whole test split.

fid-prior      FID of samples of the prior, as many as there are test images
fid-given-1    FID of images generated from one other modality alone, one image per test example, averaged over the
               given modalities

Both numbers are means over modalities. fid-prior-NAME and fid-given-1-NAME are the values of the modality NAME.

Shapes: n images, M modalities, D latents, F features.
"""

import platform
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvae.data.examples import Dataset
from mvae.evaluation.accuracy import evaluated
from mvae.evaluation.coherence import drawn, frechet_distance
from mvae.measure import Measure, fid
from mvae.models.multimodal import Multimodal
from mvae.refusal import Refusal
from mvae.storage.files import sha256_cached
from mvae.streams import torch_generator

PASS = 100
"""Images per pass through the network, which enlarges them to 299x299."""
SIDE = 28
"""Width and height, in pixels, of the images with which a network is tested."""

Features = Callable[[Tensor], Tensor]
"""Maps images, float [n, 3, H, H] in [0, 1], to features, float [n, F]."""


def measure_of(file: Path) -> Measure:
    """Tests an Inception network on two images, then returns the FID measure that uses the network.

    Raises:
        Refusal: the file is missing, is not TorchScript, or does not map images to features.
    """
    try:
        digest = sha256_cached(file)
    except OSError as error:
        raise Refusal(
            f"--inception {file}: {error.strerror}: give a TorchScript file of an Inception network"
        ) from None
    if not _is_script(file):
        raise Refusal(
            f"--inception {file} is not a TorchScript file: save the whole network with torch.jit.save, not only its"
            " weights"
        )
    try:
        found = _features(_loaded(file, "cpu"))(torch.rand(2, 3, SIDE, SIDE))
    except Exception as error:  # whatever the network's own code raises
        line = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise Refusal(
            f"--inception {file} fails on two images, uint8 [2, 3, {SIDE}, {SIDE}] ({line[0].strip()}): give a network"
            " that maps images to features [n, F]"
        ) from None
    if found.ndim != 2 or len(found) != 2 or found.shape[1] < 2 or not found.isfinite().all():
        raise Refusal(
            f"--inception {file} maps 2 images to {list(found.shape)}: give a network that maps n images to finite"
            " features [n, F], F at least 2"
        )
    return fid(str(file.resolve()), digest)


def read(measure: Measure, device: torch.device | str) -> Features:
    """Loads a measure's Inception network onto a device.

    Raises:
        Refusal: the file is missing on this machine, or differs from the file on the driver's machine.
    """
    file = Path(measure.file)
    if not file.is_file() or not sha256_cached(file).startswith(measure.digest):
        raise Refusal(
            f"{file} on {platform.node()} is missing or differs from the driver's: copy the driver's file there"
        )
    return _features(_loaded(file, device))


@torch.no_grad()
def fid_metrics(
    model: Multimodal,
    data: Dataset,
    features: Features,
    seed: int,
    heard: Callable[[int, int], None] = lambda _done, _of: None,
) -> dict[str, float]:
    """Returns all metrics listed in this module's docstring, as test/NAME, over the whole test split.

    Args:
        seed: seed of all random draws.
        heard: called after every set of images with the number of finished sets and the number of all sets.
    """
    names, split = [modality.name for modality in model.modalities], data.test
    device, count = split.values[0].device, len(names)
    noise = torch.randn(len(split), model.latents, generator=torch_generator(seed, "FID", count, device), device=device)
    found: dict[str, list[float]] = {}

    def distances(z: Tensor, targets: list[int], name: str) -> None:
        for m in targets:
            made = [features(model.likelihoods[m].mean(model.decode(m, part))) for part in torch.split(z, PASS)]
            found.setdefault(f"{name}-{names[m]}", []).append(frechet_distance(_array(made), real[m]))

    with evaluated(model):
        real = [_array([features(split.take(m, rows)) for rows in split.passes(PASS)]) for m in range(count)]
        distances(model.prior_at(noise), list(range(count)), "fid-prior")
        heard(1, 1 + count)
        for given in range(count):
            generator = torch_generator(seed, "FID", given, device)
            z = torch.cat(
                [drawn(model.infer_at({given: split.take(given, rows)}), generator) for rows in split.passes()]
            )
            distances(z, [m for m in range(count) if m != given], "fid-given-1")
            heard(2 + given, 1 + count)
    each = {name: float(np.mean(values)) for name, values in found.items()}
    whole = {
        head: float(np.mean([value for name, value in each.items() if name.startswith(f"{head}-")]))
        for head in ("fid-prior", "fid-given-1")
    }
    return {f"test/{name}": value for name, value in (whole | each).items()}


def _array(parts: list[Tensor]) -> np.ndarray:
    return np.asarray(torch.cat(parts).cpu().double().numpy())


def _is_script(file: Path) -> bool:
    """Whether a file is an archive with code, as written by torch.jit.save. Files of torch.save contain no code."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any("/code/" in name for name in archive.namelist())


def _loaded(file: Path, device: torch.device | str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch.jit, in which the published file is written
        return torch.jit.load(str(file), map_location=device).eval()  # type: ignore[no-untyped-call]


def _features(network: Any) -> Features:
    named = {argument.name for argument in network.forward.schema.arguments}
    options = {"return_features": True} if "return_features" in named else {}

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        whole = (images.clamp(0, 1) * 255).round().to(torch.uint8)
        made: Tensor = network(whole, **options)
        return made

    return features
