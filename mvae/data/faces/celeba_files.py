"""CelebA's own files, in torchvision's layout: where they are, and one image at a time.

    <data root>/celeba/img_align_celeba/000001.jpg ...   or img_align_celeba.zip, whose members are read in place
                       list_attr_celeba.txt              attributes   (both lists: mvae/data/faces/celeba_lists.py)
                       list_eval_partition.txt           splits

Other ways in which these files are packed are read too: images in an inner folder, PNG images, lists as .csv, and lists
each in a zip of its name. The authors let nobody else pass the files on, so there is no download.
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
"""Ending of an image's name to the format that it must have."""
PUBLISHED = 162_770, 19_867, 19_962
"""Images of CelebA's three splits."""
ALIGNED = 178, 218
"""Width and height of CelebA's aligned images."""


@dataclass(frozen=True)
class Files:
    """Where everything is; each may be a zip."""

    images: Path
    attributes: Path
    partitions: Path

    @property
    def zipped(self) -> bool:
        return self.images.suffix == ".zip"

    def located(self, names: Sequence[str]) -> list[str]:
        """Where each image is, relative to the folder or in the zip: at any depth, and PNG or JPEG whatever its ending.

        Raises:
            Refusal: the folder cannot be read, an image is missing, or two images have one name.
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
                    f"{self.images} holds {name} twice, as {places[0]} and as {places[1]}: leave one folder of images"
                )
            (located if places else missing).append(places[0] if places else name)
        if missing:
            raise Refusal(
                f"{self.images / missing[0]} is missing, as {len(missing):,} of the {len(names):,} images that "
                f"{PARTITION_LIST} names: fetch the images again"
            )
        return located

    def _places(self) -> list[str]:
        """Every file, at any depth, relative to the folder or in the zip."""
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
        """Stamp of each image's file by its place; in a zip, the stamp of the zip."""
        if self.zipped:
            return dict.fromkeys(places, contents.stamp(self.images))
        try:
            return {place: contents.stamp(self.images / place) for place in places}
        except OSError as error:
            raise Refusal(f"{error.filename} cannot be read: {error.strerror}") from error

    def size(self, place: str) -> int:
        """Bytes of an image's file, unzipped."""
        if self.zipped:
            return _archive(self.images, contents.stamp(self.images)).getinfo(place).file_size
        return (self.images / place).stat().st_size

    def image_bytes(self, place: str) -> bytes:
        """An image's file, unzipped.

        Raises:
            Refusal: it is missing or cannot be read, or a checksum in the zip does not match.
        """
        where = self.images / place
        try:
            if not self.zipped:
                return where.read_bytes()
            return _archive(self.images, contents.stamp(self.images)).read(place)
        except (FileNotFoundError, KeyError) as error:
            raise Refusal(f"{where} is missing, and {PARTITION_LIST} names it: fetch the images again") from error
        except (EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise Refusal(f"{where} is damaged ({said}): fetch it again") from error
        except OSError as error:
            raise Refusal(f"{where} cannot be read: {error.strerror}") from error

    def read_image(self, place: str, made: Callable[[Image], np.ndarray] = pictures.square) -> np.ndarray:
        """One image, as `pictures.square` makes it, or another.

        Raises:
            Refusal: it is missing, cut short or of another format. Bytes that are wrong in the middle go unnoticed
                in a folder (the decoder fills in), and are noticed in a zip, by its checksum.
        """
        wanted = FORMATS.get(Path(place).suffix.lower(), "JPEG")
        try:
            return made(image_files.read(io.BytesIO(self.image_bytes(place)), (wanted,)))
        except BadImage as error:
            raise Refusal(f"{self.images / place} {error}: fetch it again") from error


def read_block(
    files: Files, places: tuple[str, ...], made: Callable[[Image], np.ndarray] = pictures.square
) -> np.ndarray:
    """A block's images, uint8 [n, C, 64, 64], as `made` makes them. Errors as in `Files.read_image`."""
    return np.stack([files.read_image(place, made) for place in places])


def find(root: Path) -> Files:
    """The three parts of the layout, a plain one before its zip.

    Raises:
        MissingFiles: one of them is not there.
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
                f"{folder} has no {name} (nor its zip): the data root must hold {FOLDER}/ with {IMAGES}/"
                f" (or {IMAGES}.zip), {ATTRIBUTE_LIST} and {PARTITION_LIST};"
                " fetch them by hand from the authors' page (CelebA, CUHK Multimedia Laboratory)"
            )
        paths.append(found[0])
    return Files(*paths)


def content_digest(root: Path, cache: Path | None = None) -> str:
    """Hex sha256 over what both lists say and over each listed image's name and content, however they are packed.

    Args:
        cache: remembers the digests of files that have not changed (mvae/data/contents.py); without it, all are read.
    Raises:
        Refusal: a damaged list, or an image that the partition list names is not there.
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
    """Hex sha256 over both lists' bytes and each listed image's name and size: the digest of releases before this one.

    Raises:
        Refusal: as `content_digest`.
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
    """How many images the partition list gives to training. Refusal where it is damaged."""
    return int((read_partitions(find(root).partitions)[1] == 0).sum())


def facts(root: Path, _words: int | None = None) -> tuple[str, ...]:
    """How the files differ from the published CelebA, in one line; none if number and size of images agree.

    Raises:
        Refusal: a damaged list or first image.
    """
    files = find(root)
    names, partitions = read_partitions(files.partitions)
    counts = tuple(np.bincount(partitions, minlength=len(PUBLISHED)).tolist())
    there, published = (", ".join(f"{count:,}" for count in each) for each in (counts, PUBLISHED))
    differs = [f"{there} images to train, validate and test (published: {published})"] * (counts != PUBLISHED)
    (place,) = files.located(names[:1])
    width, height = files.read_image(place, lambda image: np.array(image.size)).tolist()
    if (width, height) != ALIGNED:
        differs.append(f"{place} has {width}x{height} pixels (published, aligned: {ALIGNED[0]}x{ALIGNED[1]})")
    return (f"{files.images.parent} holds {'; '.join(differs)}",) if differs else ()


@functools.lru_cache(maxsize=4)
def _archive(path: Path, _stamp: contents.Stamp) -> zipfile.ZipFile:
    """An image zip, opened once a process, because reading its directory takes seconds."""
    try:
        return zipfile.ZipFile(path)
    except OSError as error:
        raise Refusal(f"{path} cannot be read: {error.strerror}") from error
    except zipfile.BadZipFile as error:
        raise Refusal(f"{path} is not a whole zip file ({error}): fetch it again") from error
