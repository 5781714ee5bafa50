"""Looks up data sets by name. The module that defines a data set is imported when the data set is first looked up.

So listing the names imports nothing, and a trial on digits never imports the code that reads CelebA's pictures.
"""

import importlib
from collections.abc import Iterator, MutableMapping

from mvae.data.dataset import Source

DECLARED = {
    "digits": ("mnist.digits:DIGITS", "image label"),
    "mnist": ("mnist.mnist:MNIST", "image label"),
    "binary_mnist": ("mnist.mnist:BINARY_MNIST", "image label"),
    "fashion_mnist": ("mnist.mnist:FASHION_MNIST", "image label"),
    "multi_mnist": ("mnist.multi_mnist:MULTI_MNIST", "image text"),
    "mnist19": ("mnist.mnist19:MNIST19", "image attribute"),
    "celeba": ("faces.celeba:CELEBA", "image attributes"),
    "celeba19": ("faces.celeba:CELEBA19", "image attribute"),
    "faces": ("faces.faces:FACES", "image attributes"),
    "faces19": ("faces.faces:FACES19", "image attribute"),
    "vision": ("faces.vision:VISION", "views"),
    "vision_images": ("faces.vision:VISION_IMAGES", "views"),
    "vision_faces": ("faces.vision:VISION_FACES", "views"),
    "vision_faces_small": ("faces.vision:VISION_FACES_SMALL", "views"),
    "polymnist": ("polymnist.polymnist:POLYMNIST", "image"),
    "polymnist_free": ("polymnist.polymnist:POLYMNIST_FREE", "image"),
    "polymnist_digits": ("polymnist.polymnist:POLYMNIST_DIGITS", "image"),
    "translation": ("sentences.translation:TRANSLATION", "sentences"),
    "toy_translation": ("sentences.toy_translation:TOY_TRANSLATION", "sentences"),
}
"""For each data set: its module in mvae/data/, its name in the module, and the type of its examples.

The type is "sentences", "views" (section 10), or the kinds of the modalities, for example "image label".
"""


def names_of(*examples: str) -> list[str]:
    """Returns the names of this package's data sets whose type of examples (see `DECLARED`) is one of `examples`."""
    return [name for name, (_, kinds) in DECLARED.items() if kinds in examples]


class Registry(MutableMapping[str, Source]):
    """Maps names to data sets. A data set of this package is imported when it is first looked up."""

    def __init__(self) -> None:
        self._sources: dict[str, Source | None] = dict.fromkeys(DECLARED)

    def __getitem__(self, name: str) -> Source:
        found = self._sources[name]
        if found is None:
            module, _, constant = DECLARED[name][0].partition(":")
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
