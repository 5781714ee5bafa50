"""Data sets by name. The module that declares a data set is imported when the data set is first looked up.

So listing the names costs nothing, and a trial on digits never imports what reads CelebA's pictures.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping

from mvae.data.dataset import Source

DECLARED = {
    "digits": "mnist.digits:DIGITS",
    "mnist": "mnist.mnist:MNIST",
    "binary_mnist": "mnist.mnist:BINARY_MNIST",
    "fashion_mnist": "mnist.mnist:FASHION_MNIST",
    "multi_mnist": "mnist.multi_mnist:MULTI_MNIST",
    "mnist19": "mnist.mnist19:MNIST19",
    "celeba": "faces.celeba:CELEBA",
    "celeba19": "faces.celeba:CELEBA19",
    "faces": "faces.faces:FACES",
    "faces19": "faces.faces:FACES19",
    "vision": "faces.vision:VISION",
    "vision_images": "faces.vision:VISION_IMAGES",
    "vision_faces": "faces.vision:VISION_FACES",
    "vision_faces_small": "faces.vision:VISION_FACES_SMALL",
    "polymnist": "polymnist.polymnist:POLYMNIST",
    "polymnist_free": "polymnist.polymnist:POLYMNIST_FREE",
    "polymnist_digits": "polymnist.polymnist:POLYMNIST_DIGITS",
    "translation": "sentences.translation:TRANSLATION",
    "toy_translation": "sentences.toy_translation:TOY_TRANSLATION",
}
"""Each data set's module in mvae/data/ and its name there."""


class Registry(MutableMapping[str, Source]):
    """A dictionary of data sets whose declared entries are imported on first access."""

    def __init__(self) -> None:
        self._sources: dict[str, Source | None] = dict.fromkeys(DECLARED)

    def __getitem__(self, name: str) -> Source:
        found = self._sources[name]
        if found is None:
            module, _, constant = DECLARED[name].partition(":")
            found = self._sources[name] = getattr(importlib.import_module(f"mvae.data.{module}"), constant)
        return found

    def __setitem__(self, name: str, source: Source) -> None:
        self._sources[name] = source

    def __delitem__(self, name: str) -> None:
        del self._sources[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)
