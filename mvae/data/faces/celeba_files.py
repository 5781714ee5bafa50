"""Finds CelebA's files, in torchvision's layout, and reads its images.

    <data root>/celeba/img_align_celeba/000001.jpg ...   or img_align_celeba.zip, which is read without unpacking
                       list_attr_celeba.txt              attributes   (both lists: mvae/data/faces/celeba_lists.py)
                       list_eval_partition.txt           splits

Other packings are accepted too: images in an inner folder, PNG images, lists as .csv, and each list in its own zip.
There is no download, because the authors do not allow others to distribute the files.
"""

import functools
import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL.Image import Image

from mvae.data import contents
from mvae.data.dataset import MissingFiles
from mvae.data.faces import image_files, pictures
from mvae.data.faces.celeba_lists import ATTRIBUTE_LIST, PARTITION_LIST, canonical, content, read_partitions
from mvae.data.faces.image_files import BadImage
from mvae.refusal import Refusal

# N images, n images of a block

FOLDER = "celeba"
IMAGES = "img_align_celeba"
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
"""Required format of an image, by the ending of its name."""
PUBLISHED = 162_770, 19_867, 19_962
"""Number of images in CelebA's three splits."""
ALIGNED = 178, 218
"""Width and height of CelebA's aligned images, in pixels."""


@dataclass(frozen=True)
class Files:
    """Paths of CelebA's images, list of attributes and list of splits. Each may be a zip."""

    images: Path
    attributes: Path
    partitions: Path

    @property
    def zipped(self) -> bool:
        return self.images.suffix == ".zip"

    def located(self, names: Sequence[str]) -> list[str]:
        """Returns each image's path, relative to the image folder or to the root of the zip. Searches inner folders.

        An image may be PNG or JPEG, regardless of the ending of its name in the list.

        Raises:
            Refusal: the folder cannot be read, an image is missing, or two images have the same name.
        """
        found: dict[str, list[str]] = {}
        for place in self._places():
            stem, ending = os.path.splitext(place.rpartition("/")[2])
            if ending.lower() in FORMATS:
                found.setdefault(stem, []).append(place)
        located: list[str] = []
        missing: list[str] = []
        for name in names:
            places = found.get(os.path.splitext(name)[0], [])
            if len(places) > 1:
                raise Refusal(
                    f"{self.images} holds {name} twice, as {places[0]} and {places[1]}: keep only one folder of images"
                )
            (located if places else missing).append(places[0] if places else name)
        if missing:
            raise Refusal(
                f"{len(missing):,} of the {len(names):,} images in {PARTITION_LIST} are missing (the first is"
                f" {self.images / missing[0]}): fetch the images again"
            )
        return located

    def by_split(self, names: Sequence[str], partitions: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
        """Returns the images' paths sorted by split, and the position in `names` of each sorted image: int64 [N]."""
        places, order = self.located(names), np.argsort(partitions, kind="stable")
        return tuple(places[number] for number in order), order

    def _places(self) -> list[str]:
        if self.zipped:
            members = _archive(self.images, contents.stamp(self.images)).infolist()
            return [each.filename for each in members if not (each.is_dir() or each.filename.startswith("__MACOSX/"))]

        def refuse(error: OSError) -> None:
            raise Refusal(f"{error.filename} cannot be read: {error.strerror}") from error

        places: list[str] = []
        for folder, _, names in os.walk(self.images, onerror=refuse):
            inner = os.path.relpath(folder, self.images)
            places += names if inner == "." else [f"{inner}/{name}" for name in names]
        return places

    def stamps(self, places: Sequence[str]) -> dict[str, contents.Stamp]:
        """Returns size, times and inode of each image's file, by path. For an image in a zip, returns the zip's."""
        if self.zipped:
            return dict.fromkeys(places, contents.stamp(self.images))
        try:
            return {place: contents.stamp(self.images / place) for place in places}
        except OSError as error:
            raise Refusal(f"{error.filename} cannot be read: {error.strerror}") from error

    def size(self, place: str) -> int:
        """Returns the uncompressed size of an image's file, in bytes."""
        if self.zipped:
            return _archive(self.images, contents.stamp(self.images)).getinfo(place).file_size
        return (self.images / place).stat().st_size

    def image_bytes(self, place: str) -> bytes:
        """Returns the uncompressed content of an image's file.

        Raises:
            Refusal: the file is missing or cannot be read, or its checksum in the zip is wrong.
        """
        where = self.images / place
        try:
            if not self.zipped:
                return where.read_bytes()
            return _archive(self.images, contents.stamp(self.images)).read(place)
        except (FileNotFoundError, KeyError) as error:
            raise Refusal(f"{where} is missing, but {PARTITION_LIST} lists it: fetch the images again") from error
        except (EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise Refusal(f"{where} is damaged ({said}): fetch it again") from error
        except OSError as error:
            raise Refusal(f"{where} cannot be read: {error.strerror}") from error

    def read_image(self, place: str, made: Callable[[Image], np.ndarray] = pictures.square) -> np.ndarray:
        """Reads an image and returns `made(image)`.

        Raises:
            Refusal: the image is missing, truncated or of another format. Wrong bytes in the middle of an image are
                detected only in a zip, because zips have checksums.
        """
        wanted = FORMATS.get(Path(place).suffix.lower(), "JPEG")
        try:
            return made(image_files.read(io.BytesIO(self.image_bytes(place)), (wanted,)))
        except BadImage as error:
            raise Refusal(f"{self.images / place} {error}: fetch it again") from error


def read_block(
    files: Files, places: tuple[str, ...], made: Callable[[Image], np.ndarray] = pictures.square
) -> np.ndarray:
    """Reads a block of images and applies `made` to each: uint8 [n, C, 64, 64]. Raises the errors of `read_image`."""
    return np.stack([files.read_image(place, made) for place in places])


def find(root: Path) -> Files:
    """Finds CelebA's images and two lists. If one exists both unpacked and as a zip, the unpacked one is used.

    Raises:
        MissingFiles: the images or a list are missing.
    """
    folder = root / FOLDER
    paths = []
    for name in (IMAGES, ATTRIBUTE_LIST, PARTITION_LIST):
        endings = (
            ("", ".zip", "_png", "_png.zip") if name == IMAGES else (".txt", ".txt.zip", ".zip", ".csv", ".csv.zip")
        )
        forms = (folder / f"{name.removesuffix('.txt')}{ending}" for ending in endings)
        found = [path for path in forms if path.exists()]
        if not found:
            raise MissingFiles(
                f"{folder} has no {name} (or its zip): the data root must hold {FOLDER}/ with {IMAGES}/"
                f" (or {IMAGES}.zip), {ATTRIBUTE_LIST} and {PARTITION_LIST};"
                " download them yourself from the authors' page (CelebA, CUHK Multimedia Laboratory)"
            )
        paths.append(found[0])
    return Files(*paths)


def content_digest(root: Path, cache: Path | None = None) -> str:
    """Returns a hex sha256 of the lists' entries and of each listed image's name and content.

    The digest is the same for all accepted packings.

    Args:
        cache: folder that remembers the digests of unchanged files (mvae/data/contents.py). If None, reads all files.
    Raises:
        Refusal: a list is damaged, or an image in the list of splits is missing.
    """
    files = find(root)
    names, partitions = read_partitions(files.partitions)
    stamps = files.stamps(files.located(names))
    list_stamp = {files.attributes.name: contents.stamp(files.attributes)}
    (list_digest,) = contents.digests(
        files.attributes, list_stamp, lambda _: canonical(files.attributes), cache, "CelebA's attributes"
    )
    digests = contents.digests(files.images, stamps, files.image_bytes, cache, "reading CelebA's images")
    digest = hashlib.sha256(list_digest.encode())
    for name, part, of_image in zip(names, partitions.tolist(), digests, strict=True):
        digest.update(f"{name} {part} {of_image}\n".encode())
    return digest.hexdigest()


def names_and_sizes_digest(root: Path) -> str:
    """Returns the digest that earlier releases computed: a hex sha256.

    The digest covers the bytes of both lists, and the name and size of each listed image.

    Raises:
        Refusal: same as `content_digest`.
    """
    files = find(root)
    names, _ = read_partitions(files.partitions)
    digest = hashlib.sha256()
    for path in (files.attributes, files.partitions):
        digest.update(hashlib.sha256(content(path)).digest())
    sizes = ((name, files.size(place)) for name, place in zip(names, files.located(names), strict=True))
    digest.update("".join(f"{name} {size}\n" for name, size in sizes).encode())
    return digest.hexdigest()


def training_examples(root: Path) -> int:
    """Returns the number of training images in the list of splits. Raises Refusal if the list is damaged."""
    return int((read_partitions(find(root).partitions)[1] == 0).sum())


def facts(root: Path, _words: int | None = None) -> tuple[str, ...]:
    """Returns one line that says how the files differ from the published CelebA, or no line if they do not differ.

    Compares the number of images in each split, and the size of the first image.

    Raises:
        Refusal: a list or the first image is damaged.
    """
    files = find(root)
    names, partitions = read_partitions(files.partitions)
    counts = tuple(np.bincount(partitions, minlength=len(PUBLISHED)).tolist())
    found, published = (", ".join(f"{count:,}" for count in each) for each in (counts, PUBLISHED))
    differs = [f"{found} images for training, validation and test (published: {published})"] * (counts != PUBLISHED)
    (place,) = files.located(names[:1])
    width, height = files.read_image(place, lambda image: np.array(image.size)).tolist()
    if (width, height) != ALIGNED:
        differs.append(f"{place} has {width}x{height} pixels (published, aligned: {ALIGNED[0]}x{ALIGNED[1]})")
    return (f"{files.images.parent} holds {'; '.join(differs)}",) if differs else ()


@functools.lru_cache(maxsize=4)
def _archive(path: Path, _stamp: contents.Stamp) -> zipfile.ZipFile:
    """Opens an image zip once per process, because reading its directory takes seconds."""
    try:
        return zipfile.ZipFile(path)
    except OSError as error:
        raise Refusal(f"{path} cannot be read: {error.strerror}") from error
    except zipfile.BadZipFile as error:
        raise Refusal(f"{path} is not a complete zip file ({error}): fetch it again") from error
