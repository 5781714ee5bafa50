"""Defines `faces` and `faces19`: small drawn faces with CelebA's attributes, for tests and for runs without CelebA.

A face is drawn at 178x218 pixels (mvae/data/faces/drawing.py), then reduced to 64x64 like CelebA's images. Eyes and
mouth have about the same positions as in CelebA's aligned images. The drawings show the paper's 18 attributes
and nine more, all listed in DRAWN. No face has CelebA's other attributes. Each of the paper's 18 attributes holds for
8 % to 92 % of the faces.

The attributes are consistent. A face is bald or has exactly one hair colour. A bald face has no bangs, no receding
hairline, and neither straight nor wavy hair. A face with a hat has neither bangs nor a receding hairline. Only men have
a mustache. Only women have heavy makeup.

Face `i` depends only on the seed, on `i` and on Pillow's drawing. The data set's digest covers the version, the
seed and the number of faces.
"""

import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence, Set
from pathlib import Path

import numpy as np
from PIL.Image import Image

from mvae.data.dataset import Source
from mvae.data.faces import pictures
from mvae.data.faces.celeba import ATTRIBUTES, PARTITIONS, VALUES, convert, defaults, modalities
from mvae.data.faces.celeba_lists import COLUMNS
from mvae.data.faces.drawing import HAIR, NUMBERS, draw
from mvae.refusal import Refusal

# N faces

VERSION = 1
"""Version of the drawings. Increase this number whenever the drawn faces change."""
SEED = 178218
COUNT = 12_000
DRAWS = len(COLUMNS) + NUMBERS
"""Random numbers per face: one per column of CelebA's list, then NUMBERS that vary the face's appearance."""

DRAWN = (
    *ATTRIBUTES,
    *("5_o_Clock_Shadow", "Big_Nose", "Chubby", "Goatee", "No_Beard", "Rosy_Cheeks", "Sideburns", "Wearing_Earrings"),
    "Wearing_Lipstick",
)
"""The columns that are visible in a drawn face."""


PROBABILITIES = {
    "Bald": ("Male", 0.24, 0.02),
    "Wearing_Hat": ("Male", 0.16, 0.16),
    "Receding_Hairline": ("Male", 0.32, 0.14),
    "Bangs": ("Male", 0.34, 0.34),
    "Eyeglasses": ("Male", 0.22, 0.22),
    "Mouth_Slightly_Open": ("Smiling", 0.6, 0.3),
    "Mustache": ("Male", 0.32, 0),
    "Goatee": ("Male", 0.2, 0),
    "5_o_Clock_Shadow": ("Male", 0.2, 0),
    "Sideburns": ("Male", 0.25, 0),
    "Bushy_Eyebrows": ("Male", 0.4, 0.14),
    "Heavy_Makeup": ("Male", 0, 0.5),
    "Wearing_Lipstick": ("Male", 0, 0.3),
    "Rosy_Cheeks": ("Heavy_Makeup", 0.5, 0),
    "Pale_Skin": ("Male", 0.16, 0.16),
    "Wearing_Earrings": ("Male", 0.05, 0.4),
    "Chubby": ("Male", 0.15, 0.15),
    "Big_Nose": ("Male", 0.25, 0.25),
}
"""For each attribute: another attribute, the probability if the other attribute holds, and the probability if not.

Afterwards, `columns` corrects attributes that contradict each other.
"""


def draws(seed: int, start: int, stop: int) -> np.ndarray:
    """Returns 64 random numbers for each face from `start` to `stop - 1`: float64 [N, 64] in [0, 1).

    The numbers of a face depend only on the seed and on the face's index.
    """
    words = [np.random.Philox(key=[seed, face]).random_raw(DRAWS) for face in range(start, stop)]
    return np.asarray((np.array(words).reshape(-1, DRAWS) >> np.uint64(11)) * 2.0**-53)


def columns(draws: np.ndarray) -> dict[str, np.ndarray]:
    """Maps the name of each of CelebA's 40 attributes to a boolean array [N]: whether each face has the attribute.

    Args:
        draws: [N, 64], as `draws` returns them.
    """
    chance = dict(zip(COLUMNS, draws.T, strict=False))
    has = {name: np.zeros(len(draws), bool) for name in COLUMNS}
    has["Male"] = chance["Male"] < 0.45
    has["Smiling"] = chance["Smiling"] < 0.5
    for name, (condition, if_true, if_false) in PROBABILITIES.items():
        has[name] = chance[name] < np.where(has[condition], if_true, if_false)
    shades = dict(zip(HAIR, itertools.pairwise((0, 0.30, 0.52, 0.84, 1)), strict=True))
    for name, (low, high) in shades.items():
        has[name] = ~has["Bald"] & (low <= chance["Black_Hair"]) & (chance["Black_Hair"] < high)
    has["Straight_Hair"] = ~has["Bald"] & (chance["Straight_Hair"] < 0.38)
    has["Wavy_Hair"] = ~has["Bald"] & (chance["Straight_Hair"] >= 0.62)
    forehead = ~has["Bald"] & ~has["Wearing_Hat"]
    has["Receding_Hairline"] &= forehead
    has["Bangs"] &= forehead & ~has["Receding_Hairline"]
    has["Sideburns"] &= ~has["Bald"]
    has["No_Beard"] = ~(has["Mustache"] | has["Goatee"] | has["5_o_Clock_Shadow"] | has["Sideburns"])
    has["Wearing_Lipstick"] |= has["Heavy_Makeup"]
    return has


def attributes(seed: int, count: int) -> np.ndarray:
    """Returns the paper's 18 attributes of the first `count` faces, uint8 [N, 18], 0 or 1."""
    has = columns(draws(seed, 0, count))
    return np.stack([has[name] for name in ATTRIBUTES], axis=1).astype(np.uint8)


def partitions(count: int) -> np.ndarray:
    """Returns the split of each face, uint8 [N]. The last twelfth is test (2), the twelfth before is validation (1).

    Raises:
        Refusal: fewer than 12 faces.
    """
    if count < 12:
        raise Refusal(f"{count} faces are too few: use at least 12, because one in twelve goes to validation")
    return np.repeat(np.arange(3, dtype=np.uint8), [count - 2 * (count // 12), count // 12, count // 12])


def block(seed: int, start: int, stop: int) -> np.ndarray:
    """Draws the faces from `start` to `stop - 1` at 64x64 pixels: uint8 [N, 3, 64, 64]."""
    return np.stack([pictures.square(face) for face in drawn(seed, start, stop)])


def drawn(seed: int, start: int, stop: int, how: Callable[[Set[str], Sequence[float]], Image] = draw) -> list[Image]:
    """Draws the faces from `start` to `stop - 1`, or their masks if `how` is `draw_mask`, at 178x218 pixels."""
    random = draws(seed, start, stop)
    has = columns(random)
    return [
        how({name for name in DRAWN if has[name][face]}, random[face, len(COLUMNS) :].tolist())
        for face in range(stop - start)
    ]


def prepare(_root: Path, cache: Path, seed: int, count: int) -> Path:
    """Draws all faces into one cache folder for `faces` and `faces19`. See `mvae.data.faces.celeba.prepare`."""
    folder = cache / f"faces-{digest(_root, seed, count)[:16]}-pictures"
    pictures.make(
        folder,
        count,
        lambda start, stop: functools.partial(block, seed, start, stop),
        beside={PARTITIONS: partitions(count), VALUES: attributes(seed, count)},
        what="faces",
    )
    return folder


def digest(_root: Path, seed: int, count: int) -> str:
    """Returns a hex sha256 of `seed`, `count` and the versions of the code, which determine the faces.

    Pillow draws the faces, so another release of Pillow may give other pixels under the same digest.
    """
    return hashlib.sha256(f"{VERSION} {pictures.VERSION} {seed} {count}".encode()).hexdigest()


def describe(name: str, *, separate: bool, seed: int = SEED, count: int = COUNT) -> Source:
    """Describes a data set of `count` drawn faces. If `separate`, each attribute is a modality of its own."""
    training = int((partitions(count) == 0).sum())
    return Source(
        name=name,
        modalities=modalities(separate),
        defaults=defaults(separate),
        split_rule="the last twelfth tests, the one before it validates",
        version=VERSION,
        check=lambda _root: None,
        digest=functools.partial(digest, seed=seed, count=count),
        examples=lambda _root: training,
        prepare=functools.partial(prepare, seed=seed, count=count),
        convert=functools.partial(convert, separate=separate),
    )


FACES = describe("faces", separate=False)
FACES19 = describe("faces19", separate=True)
