"""Defines `mnist`, `binary_mnist` and `fashion_mnist`: 28x28 grey images of ten classes, in torchvision's raw layout.

    <data root>/MNIST/raw/train-images-idx3-ubyte          (60,000 images; also with .gz)
    <data root>/MNIST/raw/train-labels-idx1-ubyte
    <data root>/MNIST/raw/t10k-images-idx3-ubyte           (10,000 images)
    <data root>/MNIST/raw/t10k-labels-idx1-ubyte
    <data root>/FashionMNIST/raw/...                       (the same four names)

The paper uses 50,000 examples for training, 10,000 for validation and 10,000 for testing (supplement, section 1). Here
the last sixth of the training file is the validation split.

An idx file has a big-endian header, then the values as bytes. The header is two zero bytes, the type (8 = uint8), the
number of dimensions, then one uint32 per dimension.
"""

import contextlib
import functools
import gzip
import hashlib
import io
import logging
import math
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mvae.data import downloads
from mvae.data.dataset import Arrays, Defaults, Kind, MissingFiles, Modality, Source
from mvae.data.mnist import known_files
from mvae.data.mnist.binarisation import binarise
from mvae.refusal import Refusal
from mvae.storage.files import atomic_path, file_version

log = logging.getLogger(__name__)

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
SHAPE = (1, 28, 28)
CLASSES = 10
BINARISATION_SEED = 28


def raw_folder(root: Path, folder: str) -> Path:
    """Returns the path of a data set's raw files in torchvision's layout.

    Args:
        root: the data root.
        folder: torchvision's name of the data set.
    """
    return root / folder / "raw"


def find(root: Path, folder: str) -> dict[str, Path]:
    """Returns the four raw files by their names without `.gz`. An uncompressed file takes precedence over its gzip.

    Raises:
        MissingFiles: a file is missing.
    """
    raw = raw_folder(root, folder)
    found = {name: path for name in FILES for path in (raw / f"{name}.gz", raw / name) if path.is_file()}
    if missing := [name for name in FILES if name not in found]:
        raise MissingFiles(
            f"{raw} has no {missing[0]} (or .gz): the data root must hold {folder}/raw/ with {', '.join(FILES)}"
        )
    return found


def content_digest(root: Path, folder: str) -> str:
    """Returns a hex sha256 of the four files' uncompressed contents, so compression does not matter.

    Raises:
        Refusal: a file is damaged, or is refused by `known_files.refuse_misplaced`.
    """
    digests = _digests(find(root, folder))
    known_files.refuse_misplaced(raw_folder(root, folder), folder, digests)
    return hashlib.sha256("".join(digests.values()).encode()).hexdigest()


def _digests(found: dict[str, Path]) -> dict[str, str]:
    return {name: _file_digest(path, file_version(path)) for name, path in found.items()}


@functools.cache
def _file_digest(path: Path, _version: tuple[int, int]) -> str:
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def training_examples(root: Path, folder: str) -> int:
    """Returns the number of training examples. Reads only the header of the training images' file."""
    path = find(root, folder)[FILES[0]]
    with _opened(path) as file:
        count = _read_header(file, path)[0]
    return count - _validation_examples(count, path)


def read_idx(path: Path) -> np.ndarray:
    """Reads an idx file, plain or gzip, into a uint8 array. The header gives the array's shape.

    Raises:
        Refusal: the file is not an idx file of bytes, or has too few or too many bytes.
    """
    with _opened(path) as file:
        shape = _read_header(file, path)
        data = file.read()
    if len(data) != math.prod(shape):
        raise Refusal(
            f"{path} is damaged: its header says {math.prod(shape):,} bytes, but {len(data):,} follow;"
            " fetch this file again"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def convert(root: Path, folder: str, binary: bool) -> Arrays:
    """Reads all raw files and returns the splits. If `binary`, draws the bits of all images once (binarisation.py).

    Raises:
        Refusal: a file is damaged, images have the wrong size, or labels do not match the images.
    """
    found = find(root, folder)
    train, test = (_read_pair(found[images], found[labels]) for images, labels in (FILES[:2], FILES[2:]))
    if binary:
        bits = np.random.Philox(key=BINARISATION_SEED)
        train, test = ((binarise(images, bits), labels) for images, labels in (train, test))
    cut = len(train[0]) - _validation_examples(len(train[0]), found[FILES[0]])
    kept, held_out = tuple(values[:cut] for values in train), tuple(values[cut:] for values in train)
    return {"train": kept, "validation": held_out, "test": test}


def facts(root: Path, _words: int | None, folder: str) -> tuple[str, ...]:
    """Returns one line that says how the raw files differ from the published files, or no line if they do not.

    Raises:
        Refusal: a file is damaged.
    """
    found = find(root, folder)
    others = [name for name, digest in _digests(found).items() if digest != known_files.DIGESTS[folder][name]]
    if not others:
        return ()
    counts = [tuple(np.bincount(_labels(found[name]), minlength=CLASSES).tolist()) for name in (FILES[1], FILES[3])]
    return (known_files.described(raw_folder(root, folder), folder, others, *counts),)


def download(root: Path, folder: str) -> None:
    """Downloads the raw files from torchvision's addresses to `<root>/<folder>/raw`.

    Each file appears complete or not at all.

    Raises:
        MissingFiles: torchvision is not installed, the download failed, or `root` is not writable.
    """
    log.info("downloading %s to %s", folder, root)
    try:
        from torchvision import datasets  # imported here because the import takes three seconds

        known = getattr(datasets, folder)
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as temporary:
            for name, md5 in known.resources:
                downloads.fetch([f"{mirror}{name}" for mirror in known.mirrors], Path(temporary, name), md5)
            for name in FILES:
                with (
                    gzip.open(Path(temporary, f"{name}.gz"), "rb") as packed,
                    atomic_path(raw_folder(root, folder) / name) as whole,
                    whole.open("wb") as file,
                ):
                    shutil.copyfileobj(packed, file)
    except (ImportError, OSError, EOFError, zlib.error) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise MissingFiles(
            f"{raw_folder(root, folder)} has no {folder}, and downloading it failed ({reason}): "
            f"give --data-root a folder that holds {folder}/raw/{FILES[0]} and the other three files"
        ) from error


def _read_pair(images_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    images, labels = read_idx(images_path), _labels(labels_path)
    if images.ndim != 3 or images.shape[1:] != SHAPE[1:]:
        raise Refusal(f"{images_path} holds values of shape {images.shape}: replace it with a file of 28x28 images")
    if labels.shape != (len(images),):
        raise Refusal(f"{labels_path} holds {len(labels):,} labels for {len(images):,} images: fetch both files again")
    return images.reshape(-1, *SHAPE), labels


def _labels(path: Path) -> np.ndarray:
    labels = read_idx(path)
    if labels.ndim != 1:
        raise Refusal(f"{path} holds values of shape {labels.shape}: replace it with a file of one label per image")
    if labels.max(initial=0) >= CLASSES:
        raise Refusal(f"{path} holds the label {labels.max()}: use labels from 0 to {CLASSES - 1}")
    return labels


def _validation_examples(count: int, path: Path) -> int:
    if count < 6:
        raise Refusal(f"{path} holds {count} images: use at least 6, because the last sixth is the validation split")
    return count // 6


def _read_header(file: io.BufferedIOBase, path: Path) -> tuple[int, ...]:
    head = file.read(4)
    dimensions = head[3] if len(head) == 4 and head[:3] == b"\0\0\x08" else 0
    sizes = file.read(4 * dimensions)
    if not dimensions or len(sizes) != 4 * dimensions:
        raise Refusal(f"{path} is not an idx file of bytes: fetch it again")
    return struct.unpack(f">{dimensions}I", sizes)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """Opens a raw file, decompressing a gzip, and turns read errors into a Refusal."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Refusal(f"{path} is not a complete gzip file ({error}): fetch it again") from error
    except OSError as error:
        raise Refusal(f"{path} cannot be read: {error.strerror}") from error


def _source(
    name: str, folder: str, *, epochs: int, image_network: str = "mlp", binary: bool = False, grey: str = ""
) -> Source:
    return Source(
        name=name,
        modalities=(Modality("image", Kind.IMAGE, SHAPE), Modality("label", Kind.LABEL, (), classes=CLASSES)),
        defaults=Defaults(latents=64, epochs=epochs, image_network=image_network, image_networks=("mlp", "dcgan")),
        split_rule="the last sixth of the training file validates",
        version=1,
        check=functools.partial(find, folder=folder),
        digest=functools.partial(content_digest, folder=folder),
        examples=functools.partial(training_examples, folder=folder),
        convert=functools.partial(convert, folder=folder, binary=binary),
        download=functools.partial(download, folder=folder),
        facts=functools.partial(facts, folder=folder),
        grey=grey,
    )


MNIST = _source("mnist", "MNIST", epochs=500)
BINARY_MNIST = _source("binary_mnist", "MNIST", epochs=500, binary=True, grey="mnist")
FASHION_MNIST = _source("fashion_mnist", "FashionMNIST", epochs=100, image_network="dcgan")
