"""`faces` and `faces19`: small drawn faces with CelebA's attributes.

For tests, and for runs without CelebA. A face is drawn with 178x218 pixels (mvae/data/faces/drawing.py), eyes and mouth
about where CelebA's aligned images have them, and goes the way of CelebA's images to 64x64. All 18 attributes that the
paper uses are really drawn, and nine more (DRAWN); CelebA's other columns are -1 throughout. Each of the 18 holds for 8
% to 92 % of the faces. They fit together: a face is bald or has exactly one hair colour; a bald one has neither bangs,
receding hairline nor straight or wavy hair; under a hat neither bangs nor hairline are claimed; a mustache is a man's
and heavy makeup a woman's.

Face i depends on the seed, on i and on Pillow's drawing alone. The digest stands for version, seed and count.
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
"""Of what is drawn; raised by hand when faces change."""
SEED = 178218
COUNT = 12_000
DRAWS = len(COLUMNS) + NUMBERS
"""Random numbers of a face: one a column, then those that vary its looks."""

DRAWN = (
    *ATTRIBUTES,
    *("5_o_Clock_Shadow", "Big_Nose", "Chubby", "Goatee", "No_Beard", "Rosy_Cheeks", "Sideburns", "Wearing_Earrings"),
    "Wearing_Lipstick",
)
"""The columns that can be seen in a face."""


def draws(seed: int, start: int, stop: int) -> np.ndarray:
    """Random numbers of faces start .. stop - 1, float64 [N, 64] in [0, 1), of a raw stream that never changes."""
    words = [np.random.Philox(key=[seed, face]).random_raw(DRAWS) for face in range(start, stop)]
    return np.asarray((np.array(words).reshape(-1, DRAWS) >> np.uint64(11)) * 2.0**-53)


def columns(draws: np.ndarray) -> dict[str, np.ndarray]:
    """Which of CelebA's 40 attributes each face has: boolean [N] by name.

    Args:
        draws: [N, 64], as `draws` makes them.
    """
    chance = dict(zip(COLUMNS, draws.T, strict=False))
    has = {name: np.zeros(len(draws), bool) for name in COLUMNS}
    male = has["Male"] = chance["Male"] < 0.45
    bald = has["Bald"] = chance["Bald"] < np.where(male, 0.24, 0.02)
    hat = has["Wearing_Hat"] = chance["Wearing_Hat"] < 0.16
    shades = dict(zip(HAIR, itertools.pairwise((0, 0.30, 0.52, 0.84, 1)), strict=True))
    for name, (low, high) in shades.items():
        has[name] = ~bald & (low <= chance["Black_Hair"]) & (chance["Black_Hair"] < high)
    has["Straight_Hair"] = ~bald & (chance["Straight_Hair"] < 0.38)
    has["Wavy_Hair"] = ~bald & (chance["Straight_Hair"] >= 0.62)
    receding = has["Receding_Hairline"] = ~bald & ~hat & (chance["Receding_Hairline"] < np.where(male, 0.32, 0.14))
    has["Bangs"] = ~bald & ~hat & ~receding & (chance["Bangs"] < 0.34)
    has["Eyeglasses"] = chance["Eyeglasses"] < 0.22
    smiling = has["Smiling"] = chance["Smiling"] < 0.5
    has["Mouth_Slightly_Open"] = chance["Mouth_Slightly_Open"] < np.where(smiling, 0.6, 0.3)
    has["Mustache"] = male & (chance["Mustache"] < 0.32)
    has["Goatee"] = male & (chance["Goatee"] < 0.2)
    has["5_o_Clock_Shadow"] = male & (chance["5_o_Clock_Shadow"] < 0.2)
    has["Sideburns"] = male & ~bald & (chance["Sideburns"] < 0.25)
    bearded = has["Mustache"] | has["Goatee"] | has["5_o_Clock_Shadow"] | has["Sideburns"]
    has["No_Beard"] = ~bearded
    has["Bushy_Eyebrows"] = chance["Bushy_Eyebrows"] < np.where(male, 0.4, 0.14)
    makeup = has["Heavy_Makeup"] = ~male & (chance["Heavy_Makeup"] < 0.5)
    has["Wearing_Lipstick"] = makeup | (~male & (chance["Wearing_Lipstick"] < 0.3))
    has["Rosy_Cheeks"] = makeup & (chance["Rosy_Cheeks"] < 0.5)
    has["Pale_Skin"] = chance["Pale_Skin"] < 0.16
    has["Wearing_Earrings"] = chance["Wearing_Earrings"] < np.where(male, 0.05, 0.4)
    has["Chubby"] = chance["Chubby"] < 0.15
    has["Big_Nose"] = chance["Big_Nose"] < 0.25
    return has


def attributes(seed: int, count: int) -> np.ndarray:
    """The paper's 18 attributes of the first `count` faces, uint8 [N, 18], 0 or 1."""
    has = columns(draws(seed, 0, count))
    return np.stack([has[name] for name in ATTRIBUTES], axis=1).astype(np.uint8)


def partitions(count: int) -> np.ndarray:
    """Which split each face is of, uint8 [N]: the last twelfth tests (2), the one before it validates (1).

    Raises:
        Refusal: fewer than 12 faces.
    """
    if count < 12:
        raise Refusal(f"{count} faces are too few: at least 12 are needed, because a twelfth validates")
    return np.repeat(np.arange(3, dtype=np.uint8), [count - 2 * (count // 12), count // 12, count // 12])


def block(seed: int, start: int, stop: int) -> np.ndarray:
    """Faces start .. stop - 1 as the data sets have them, uint8 [N, 3, 64, 64]."""
    return np.stack([pictures.square(face) for face in drawn(seed, start, stop)])


def drawn(seed: int, start: int, stop: int, how: Callable[[Set[str], Sequence[float]], Image] = draw) -> list[Image]:
    """Faces start .. stop - 1, drawn, 178x218; or their masks, by `drawing.draw_mask`."""
    random = draws(seed, start, stop)
    has = columns(random)
    return [
        how({name for name in DRAWN if has[name][face]}, random[face, len(COLUMNS) :].tolist())
        for face in range(stop - start)
    ]


def prepare(_root: Path, cache: Path, seed: int, count: int) -> Path:
    """Draw all faces into a folder of the cache that both data sets share; as `mvae.data.faces.celeba.prepare`."""
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
    """Hex sha256 of version, seed and count, which stand for the faces.

    Pillow draws them: another release of it may give other pixels under the same digest.
    """
    return hashlib.sha256(f"{VERSION} {pictures.VERSION} {seed} {count}".encode()).hexdigest()


def describe(name: str, *, separate: bool, seed: int = SEED, count: int = COUNT) -> Source:
    """A data set of so many faces; `separate` makes a modality of each attribute."""
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
