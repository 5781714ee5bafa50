"""CelebA's own files, in torchvision's layout: where they are, what the lists say, one image at a time.

    <data root>/celeba/img_align_celeba/000001.jpg ...   or img_align_celeba.zip, whose members are read in place
                       list_attr_celeba.txt              count; 40 names; then a line an image: file name, 40 x 1 or -1
                       list_eval_partition.txt           a line an image: file name, 0 train, 1 validation, 2 test

The two lists may each lie in a zip of their name (.txt.zip or .zip). The authors let nobody else pass the files on, so
there is no download.
"""

import functools
import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mvae.data import pictures
from mvae.data.dataset import SPLITS, MissingFiles
from mvae.files import file_version
from mvae.refusal import Refusal

if TYPE_CHECKING:
    from PIL import Image

# N images, n images of a block

FOLDER = "celeba"
IMAGES = "img_align_celeba"
ATTRIBUTE_LIST = "list_attr_celeba.txt"
PARTITION_LIST = "list_eval_partition.txt"
LAYOUT = f"{FOLDER}/ with {IMAGES}/ (or {IMAGES}.zip), {ATTRIBUTE_LIST} and {PARTITION_LIST}"
HOME = "fetch them by hand from the authors' page (CelebA, CUHK Multimedia Laboratory)"

COLUMNS = (
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
)
"""CelebA's 40 attributes in the order of its list."""


@dataclass(frozen=True)
class Files:
    """Where everything is; each may be a zip."""

    images: Path
    """Folder, or zip."""
    attributes: Path
    partitions: Path

    def sizes(self) -> dict[str, int]:
        """Bytes of every image file (unzipped) by its name; a zip's inner folders do not count.

        Raises:
            Refusal: it cannot be read.
        """
        if self.images.suffix == ".zip":
            return {name: info.file_size for name, info in _members(self.images, file_version(self.images))[1].items()}
        try:
            with os.scandir(self.images) as entries:
                return {entry.name: entry.stat().st_size for entry in entries}
        except OSError as error:
            raise Refusal(f"{self.images} cannot be read: {error.strerror}") from error

    def read_image(self, name: str, made: Callable[["Image.Image"], np.ndarray] = pictures.square) -> np.ndarray:
        """One image, as `pictures.square` makes it, or another.

        Raises:
            Refusal: it is missing, cut short or no JPEG. Bytes that are wrong in the middle go unnoticed in a folder
                (the decoder fills in), and are noticed in a zip, by its checksum.
        """
        from PIL import Image, UnidentifiedImageError

        content = io.BytesIO(self._image_bytes(name))
        try:
            with Image.open(content, formats=("JPEG",)) as image:
                return made(image)
        except UnidentifiedImageError as error:
            raise Refusal(f"{self.images / name} is not a JPEG image: fetch it again") from error
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise _damaged(self.images / name, error) from error

    def _image_bytes(self, name: str) -> bytes:
        where = self.images / name
        try:
            if self.images.suffix != ".zip":
                return where.read_bytes()
            archive, members = _members(self.images, file_version(self.images))
            return archive.read(members[name])
        except (FileNotFoundError, KeyError) as error:
            raise Refusal(f"{where} is missing, and {PARTITION_LIST} names it: fetch the images again") from error
        except (EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            raise _damaged(where, error) from error
        except OSError as error:
            raise Refusal(f"{where} cannot be read: {error.strerror}") from error


def read_block(files: Files, names: tuple[str, ...]) -> np.ndarray:
    """A block's pictures, uint8 [n, 3, 64, 64]. Errors as in `Files.read_image`."""
    block = np.empty((len(names), *pictures.SHAPE), np.uint8)
    for place, name in enumerate(names):
        block[place] = files.read_image(name)
    return block


def find(root: Path) -> Files:
    """The three parts of the layout, a plain one before its zip.

    Raises:
        MissingFiles: one of them is not there.
    """
    folder = root / FOLDER
    paths = []
    for name in (IMAGES, ATTRIBUTE_LIST, PARTITION_LIST):
        forms = dict.fromkeys((name, f"{name}.zip", name.replace(".txt", ".zip") if ".txt" in name else name))
        found = [folder / form for form in forms if (folder / form).exists()]
        if not found:
            raise MissingFiles(f"{folder} has no {name} (nor its zip): the data root must hold {LAYOUT}; {HOME}")
        paths.append(found[0])
    return Files(*paths)


def check(root: Path) -> None:
    """Raise MissingFiles unless images and both lists are there."""
    find(root)


def content_digest(root: Path) -> str:
    """Hex sha256 over both lists' contents and over each listed image's name and size; equal for folder and zip.

    The images' own bytes are not read, as 200,000 files take minutes: an image that is exchanged for one of exactly the
    same size goes unnoticed.

    Raises:
        Refusal: a damaged list, or an image that the partition list names is not there.
    """
    files = find(root)
    names, _ = read_partitions(files.partitions)
    sizes = files.sizes()
    if missing := [name for name in names if name not in sizes]:
        raise Refusal(
            f"{files.images / missing[0]} is missing, as {len(missing):,} of the {len(names):,} images that "
            f"{PARTITION_LIST} names: fetch the images again"
        )
    digest = hashlib.sha256()
    for path in (files.attributes, files.partitions):
        digest.update(hashlib.sha256(_content(path)).digest())
    digest.update("".join(f"{name} {sizes[name]}\n" for name in names).encode())
    return digest.hexdigest()


def training_examples(root: Path) -> int:
    """How many images the partition list gives to training. Refusal where it is damaged."""
    return int((read_partitions(find(root).partitions)[1] == 0).sum())


def read_partitions(path: Path) -> tuple[list[str], np.ndarray]:
    """The images' names and the splits that they are of (0, 1, 2), uint8 [N].

    Raises:
        Refusal: it is not such a list, or a split is without an image.
    """
    words = _content(path).decode("utf-8", "replace").split()
    names, values = words[::2], words[1::2]
    number = {str(value): value for value in range(len(SPLITS))}
    wrong = next((line for line, value in enumerate(values, 1) if value not in number), None)
    if wrong is not None or len(names) != len(values):
        raise Refusal(f"{path}, line {wrong or len(names)} is not a file name and 0, 1 or 2: fetch it again")
    if len(set(names)) != len(names):
        raise Refusal(f"{path} names an image twice: fetch it again")
    partitions = np.array([number[value] for value in values], np.uint8)
    for value, split in enumerate(SPLITS):
        if not (partitions == value).any():
            raise Refusal(f"{path} names no {split} image (with a {value}): fetch it again")
    return names, partitions


def read_attributes(path: Path, chosen: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """The images' names and the chosen attributes, uint8 [N, len(chosen)]: 1 where CelebA says 1, 0 where it says -1.

    Raises:
        Refusal: it is not such a list, lacks a column, or holds fewer or more lines than it says.
    """
    lines = _content(path).decode("utf-8", "replace").rstrip().splitlines()
    if len(lines) < 2 or not lines[0].strip().isdecimal():
        raise Refusal(f"{path} does not begin with a count and the attributes' names: fetch it again")
    columns = lines[1].split()
    if unknown := [column for column in columns if column not in COLUMNS]:
        raise Refusal(f"{path} has a column {unknown[0]}, which is none of CelebA's 40 attributes: fetch it again")
    if absent := [attribute for attribute in chosen if attribute not in columns]:
        raise Refusal(f"{path} has no column {absent[0]}: CelebA's 40 attributes are expected; fetch it again")
    count = int(lines[0])
    if count != len(lines) - 2:
        raise Refusal(f"{path} says {count:,} images and lists {len(lines) - 2:,}: fetch it again")
    places = [1 + columns.index(attribute) for attribute in chosen]
    names, values = [], np.empty((count, len(chosen)), np.uint8)
    for row, line in enumerate(lines[2:]):
        words = line.split()
        if len(words) != len(columns) + 1 or not {"1", "-1"}.issuperset(words[1:]):
            raise Refusal(f"{path}, line {row + 3} is not a file name and {len(columns)} times 1 or -1: fetch it again")
        names.append(words[0])
        values[row] = [words[place] == "1" for place in places]
    return names, values


def read_lists(files: Files, chosen: tuple[str, ...]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Both lists, which must name the same images in the same order.

    Returns:
        Names, partitions uint8 [N], chosen attributes uint8 [N, len(chosen)].
    Raises:
        Refusal: a damaged list, or lists that do not fit each other.
    """
    names, partitions = read_partitions(files.partitions)
    described, values = read_attributes(files.attributes, chosen)
    if len(described) != len(names):
        raise Refusal(
            f"{files.attributes} holds {len(described):,} images and {files.partitions.name} {len(names):,}: "
            "fetch both again"
        )
    for number, (here, there) in enumerate(zip(described, names, strict=True), 1):
        if here != there:
            raise Refusal(
                f"image {number:,} is {here} in {files.attributes} and {there} in {files.partitions.name}: "
                "fetch both again"
            )
    return names, partitions, values


def _damaged(where: Path, error: Exception) -> Refusal:
    return Refusal(f"{where} is damaged ({' '.join(str(error).split()) or type(error).__name__}): fetch it again")


def _content(path: Path) -> bytes:
    """A list's bytes, unzipped where it is in a zip."""
    try:
        if path.suffix != ".zip":
            return path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            [name] = [name for name in archive.namelist() if not name.startswith("__MACOSX/")]
            return archive.read(name)
    except OSError as error:
        raise Refusal(f"{path} cannot be read: {error.strerror}") from error
    except (EOFError, RuntimeError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        raise Refusal(f"{path} is not a whole zip with one list in it ({error}): fetch it again") from error


@functools.cache
def _members(path: Path, _version: tuple[int, int]) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """An image zip, opened once a process (its directory takes seconds to read), and its files by their last name."""
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise Refusal(f"{path} cannot be read: {error.strerror}") from error
    except zipfile.BadZipFile as error:
        raise Refusal(f"{path} is not a whole zip file ({error}): fetch it again") from error
    return archive, {info.filename.rpartition("/")[2]: info for info in archive.infolist() if not info.is_dir()}
