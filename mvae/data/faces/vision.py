"""Defines `vision`, `vision_images`, `vision_faces` and `vision_faces_small`: six views of a face (section 10).

The views correspond to Figures 7 to 10:

    image       64x64 pixels (mvae/data/faces/pictures.py)               stored
    grayscale   luma of the image                                        computed per batch
    edges       Canny, sigma 2                                           stored
    mask        facial landmarks, white on black                         stored
    obscured    the image with its right half black                      computed per batch
    watermark   the image with the letters MVAE over its middle          computed per batch

`vision` uses CelebA. `vision_images` uses any folder of images. `vision_faces` uses the drawn faces of
mvae/data/faces/faces.py and draws their masks too. `vision_faces_small`, for the demo, uses fewer drawn faces.

Finding the face in a photograph takes a tenth of a second, so edges and masks are computed once, on all cores, in
blocks. A killed conversion keeps its finished blocks. An image without a detected face gets an empty mask. The log
shows the number of empty masks.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mvae.data import contents
from mvae.data.dataset import Arrays, Defaults, Kind, MissingFiles, Modality, Source
from mvae.data.faces import celeba_files, celeba_lists, faces, image_files, landmarks, pictures
from mvae.data.faces.celeba import CELEBA, PARTITIONS
from mvae.data.faces.drawing import draw_mask
from mvae.data.faces.pictures import SIDE
from mvae.refusal import Refusal

if TYPE_CHECKING:
    from torch import Tensor

# B batch, N images, n images of a block

log = logging.getLogger(__name__)

VERSION = 1
"""Version of edges, masks and views. Increase this number by hand when any of them changes."""
CHANNELS = 5
"""Number of channels stored together: red, green, blue, edges, mask."""
BLOCK = 500
"""Number of images per block: one minute on one core for photographs, 2 seconds for drawn faces."""
ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""Endings of files that are read as images."""

_LETTERS = (
    ("#   #", "## ##", "# # #", "#   #", "#   #", "#   #", "#   #"),
    ("#   #", "#   #", "#   #", "#   #", "#   #", " # # ", "  #  "),
    (" ### ", "#   #", "#   #", "#####", "#   #", "#   #", "#   #"),
    ("#####", "#    ", "#    ", "#### ", "#    ", "#    ", "#####"),
)


@functools.cache
def watermark() -> Tensor:
    """Returns which pixels belong to the watermark, the letters MVAE in dots of 2x2 pixels: boolean [64, 64]."""
    import torch

    rows = ["  ".join(letter[row] for letter in _LETTERS) for row in range(7)]
    dots = torch.tensor([[dot == "#" for dot in row] for row in rows]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    mark = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    top, left = (SIDE - dots.shape[0]) // 2, (SIDE - dots.shape[1]) // 2
    mark[top : top + dots.shape[0], left : left + dots.shape[1]] = dots
    return mark


@functools.cache
def hidden_half() -> Tensor:
    """Returns which pixels belong to the obscured right half: boolean [64, 64]."""
    import torch

    return torch.arange(SIDE).expand(SIDE, SIDE) >= SIDE // 2


def grayscale(image: Tensor) -> Tensor:
    """Returns the luma [B, 1, H, W] of images [B, 3, H, W] in [0, 1] (ITU-R BT.601)."""
    return (image * image.new_tensor(landmarks.LUMA)[:, None, None]).sum(1, keepdim=True)


def obscured(image: Tensor) -> Tensor:
    """Returns images [B, 3, 64, 64] with their right half black."""
    return image.masked_fill(hidden_half().to(image.device), 0.0)


def watermarked(image: Tensor) -> Tensor:
    """Returns images [B, 3, 64, 64] in [0, 1] with the watermark on top, white with an opacity of 0.6."""
    mark = watermark().to(image.device, image.dtype) * 0.6
    return image * (1 - mark) + mark


MODALITIES = (
    Modality("image", Kind.IMAGE, (3, SIDE, SIDE)),
    Modality("grayscale", Kind.IMAGE, (1, SIDE, SIDE), view=grayscale),
    Modality("edges", Kind.IMAGE, (1, SIDE, SIDE)),
    Modality("mask", Kind.IMAGE, (1, SIDE, SIDE)),
    Modality("obscured", Kind.IMAGE, (3, SIDE, SIDE), view=obscured),
    Modality("watermark", Kind.IMAGE, (3, SIDE, SIDE), view=watermarked),
)
"""The six modalities, in order. Three are stored, and three are computed per batch."""


DEFAULTS = Defaults(
    latents=250,
    epochs=100,
    image_network="dcgan",
    image_networks=("dcgan", "mlp"),
    batch_size=50,
    learning_rate=1e-4,
    annealing_share=0.2,
    k=1,
    pairing="proportional",
)
"""Section 1 of the supplement: 250 latents, batches of 50, Adam with 1e-4, 100 epochs, annealing over 20 epochs."""


def convert(folder: Path) -> Arrays:
    """Returns the splits from a prepared folder, memory-mapped. Logs the number of empty masks."""
    partitions = np.load(folder / PARTITIONS)
    stored = pictures.mapped(folder, len(partitions), CHANNELS)
    blocks = np.array_split(stored, max(1, len(stored) // BLOCK))
    empty = sum(int((~block[:, 4].any((1, 2))).sum()) for block in blocks)
    log.info("no face found in %s of %s images: their masks are empty", f"{empty:,}", f"{len(stored):,}")
    return pictures.cut(partitions, stored[:, :3], stored[:, 3:4], stored[:, 4:5])


def _prepared(cache: Path, name: str, digest: str, part: pictures.Part, partitions: np.ndarray, what: str) -> Path:
    """Makes the pictures in a folder named after the raw content and the versions of the code, and returns the folder.

    Args:
        digest: digest of the raw content.
        part, what: same as for `pictures.make`.
    """
    digits = hashlib.sha256(f"{digest} {pictures.VERSION} {VERSION}".encode()).hexdigest()[:16]
    folder = cache / f"{name}-{digits}-pictures"
    pictures.make(
        folder, len(partitions), part, beside={PARTITIONS: partitions}, what=what, channels=CHANNELS, block=BLOCK
    )
    return folder


# CelebA


def prepare_celeba(root: Path, cache: Path) -> Path:
    """Makes pictures, edges and masks of all images of CelebA. See `mvae.data.faces.celeba.prepare`."""
    landmarks.check_installed(*landmarks.NEEDED)
    files = celeba_files.find(root)
    names, partitions = celeba_lists.read_partitions(files.partitions)
    ordered, order = files.by_split(names, partitions)
    return _prepared(
        cache,
        "vision",
        celeba_files.content_digest(root, cache),
        lambda start, stop: functools.partial(celeba_files.read_block, files, ordered[start:stop], landmarks.described),
        partitions[order],
        "CelebA's edges and masks",
    )


VISION = replace(
    CELEBA,
    name="vision",
    modalities=MODALITIES,
    defaults=DEFAULTS,
    version=VERSION,
    prepare=prepare_celeba,
    convert=convert,
)


# A folder of images


def images_of(root: Path) -> list[Path]:
    """Returns all image files in a folder, at any depth, in the order of a digest of their names.

    This order decides which images belong to which split.

    Raises:
        MissingFiles: `root` is not a folder, or holds fewer than 12 images.
    """
    if not root.is_dir():
        raise MissingFiles(f"{root} is not a folder: give a folder of images with --images")
    found = [path for path in root.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file()]
    if len(found) < 12:
        raise MissingFiles(
            f"{root} holds {len(found)} images ({', '.join(sorted(ENDINGS))}): give --images a folder of at least 12,"
            " because one in twelve goes to validation"
        )
    return sorted(found, key=lambda path: hashlib.sha256(_bytes(path.relative_to(root).as_posix())).hexdigest())


def images_digest(root: Path, cache: Path | None = None) -> str:
    """Returns a hex sha256 of each image's name and content.

    Args:
        cache: folder that remembers the digests of unchanged files (mvae/data/contents.py). If None, reads all files.
    Raises:
        MissingFiles: same as `images_of`.
        Refusal: a file cannot be read.
    """
    try:
        stamps = {path.relative_to(root).as_posix(): contents.stamp(path) for path in images_of(root)}
        digests = contents.digests(root, stamps, lambda name: (root / name).read_bytes(), cache, "reading images")
    except OSError as error:
        raise Refusal(f"{error.filename} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256()
    for name, of_image in zip(stamps, digests, strict=True):
        digest.update(_bytes(f"{name} {of_image}\n"))
    return digest.hexdigest()


def names_and_sizes_digest(root: Path) -> str:
    """Returns the digest that earlier releases computed: a hex sha256 of each image's name and size."""
    digest = hashlib.sha256()
    for path in images_of(root):
        digest.update(_bytes(f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n"))
    return digest.hexdigest()


def _bytes(name: str) -> bytes:
    """Returns a file's name as bytes, even if the name is not valid UTF-8."""
    return name.encode("utf-8", "surrogateescape")


UPRIGHT = 1
"""Version of the code that reads image files. Version 1 turns images upright, and scales large images down for dlib."""


def images_block(paths: tuple[Path, ...]) -> np.ndarray:
    """Returns picture, edges and mask of each image file in a block: uint8 [n, 5, 64, 64].

    Raises:
        Refusal: a file is not an image, is damaged or cannot be converted; the message names the file.
    """
    rows = []
    for path in paths:
        try:
            rows.append(landmarks.described(image_files.read(path)))
        except image_files.BadImage as error:
            raise Refusal(f"{path} {error}: remove it from the folder") from error
    return np.stack(rows)


def prepare_images(root: Path, cache: Path) -> Path:
    """Makes pictures, edges and masks of a folder of images. See `mvae.data.faces.celeba.prepare`."""
    landmarks.check_installed(*landmarks.NEEDED)
    paths = tuple(images_of(root))
    return _prepared(
        cache,
        "vision_images",
        f"{images_digest(root, cache)} {UPRIGHT}",
        lambda start, stop: functools.partial(images_block, paths[start:stop]),
        faces.partitions(len(paths)),
        "images, their edges and masks",
    )


VISION_IMAGES = Source(
    name="vision_images",
    modalities=MODALITIES,
    defaults=DEFAULTS,
    split_rule="in the order of a digest of the names, the last twelfth tests, the one before it validates",
    version=VERSION + UPRIGHT,
    check=images_of,
    digest=images_digest,
    remembered_digest=images_digest,
    former_digest=names_and_sizes_digest,
    examples=lambda root: int((faces.partitions(len(images_of(root))) == 0).sum()),
    prepare=prepare_images,
    convert=convert,
)


# Drawn faces


def faces_block(seed: int, start: int, stop: int) -> np.ndarray:
    """Draws the faces from `start` to `stop - 1`, with their edges and masks: uint8 [n, 5, 64, 64]."""
    masks = faces.drawn(seed, start, stop, draw_mask)
    return np.stack(list(map(landmarks.described, faces.drawn(seed, start, stop), masks)))


def prepare_faces(_root: Path, cache: Path, count: int) -> Path:
    """Makes drawn faces, edges and masks. See `mvae.data.faces.celeba.prepare`."""
    landmarks.check_installed("skimage")
    return _prepared(
        cache,
        "vision_faces",
        faces.digest(_root, faces.SEED, count),
        lambda start, stop: functools.partial(faces_block, faces.SEED, start, stop),
        faces.partitions(count),
        "faces, their edges and masks",
    )


def describe_faces(name: str, *, count: int) -> Source:
    """Describes a data set of `count` drawn faces, each in six views."""
    return replace(
        faces.describe(name, separate=False, count=count),
        modalities=MODALITIES,
        defaults=DEFAULTS,
        version=VERSION,
        prepare=functools.partial(prepare_faces, count=count),
        convert=convert,
    )


VISION_FACES = describe_faces("vision_faces", count=6_000)
VISION_FACES_SMALL = describe_faces("vision_faces_small", count=1_800)
