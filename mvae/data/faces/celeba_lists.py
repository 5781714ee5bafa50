"""Reads CelebA's two lists: the attributes of each image, and its split.

    list_attr_celeba.txt         count; 40 names; then one line per image: file name, 40 values of 1 or -1
    list_eval_partition.txt      one line per image: file name, then 0 (train), 1 (validation) or 2 (test)

The lists may also be CSV files, as on Kaggle: a header (image_id, then names), then one line per image. Each list may
be in a zip. A byte order mark and all kinds of line ends are accepted.
"""

import codecs
import zipfile
import zlib
from pathlib import Path

import numpy as np

from mvae.data.dataset import SPLITS
from mvae.refusal import Refusal

# N images

ATTRIBUTE_LIST = "list_attr_celeba.txt"
PARTITION_LIST = "list_eval_partition.txt"

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

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""Byte order marks, and the encoding of each."""


def read_partitions(path: Path) -> tuple[list[str], np.ndarray]:
    """Returns the images' names and their splits (0, 1, 2), uint8 [N].

    Raises:
        Refusal: the file is not a list of splits, or a split has no images.
    """
    rows, is_csv = _rows(path)
    headed = is_csv and not rows[0][1].isdecimal()
    splits = {str(value): value for value in range(len(SPLITS))}
    names, parts = [], []
    for line, row in enumerate(rows, 1):
        if not row or (headed and line == 1):
            continue
        if len(row) != 2 or row[1] not in splits:
            raise Refusal(f"{path}, line {line} must hold a file name and 0, 1 or 2: fetch this file again")
        names.append(row[0])
        parts.append(splits[row[1]])
    if len(set(names)) != len(names):
        raise Refusal(f"{path} lists an image twice: fetch this file again")
    partitions = np.array(parts, np.uint8)
    for value, split in enumerate(SPLITS):
        if not (partitions == value).any():
            raise Refusal(f"{path} lists no {split} image (marked {value}): fetch this file again")
    return names, partitions


def read_attributes(path: Path, chosen: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """Returns the images' names and the chosen attributes, uint8 [N, len(chosen)]: 1 for CelebA's 1, 0 for its -1.

    Raises:
        Refusal: the file is not a list of attributes or lacks a column, or its count of images is wrong.
    """
    columns, rows, before = _table(path)
    if unknown := [column for column in columns if column not in COLUMNS]:
        raise Refusal(
            f"{path} has a column {unknown[0]}, which is not one of CelebA's 40 attributes: fetch this file again"
        )
    if absent := [attribute for attribute in chosen if attribute not in columns]:
        raise Refusal(f"{path} has no column {absent[0]}: CelebA's 40 attributes are expected; fetch this file again")
    places = [1 + columns.index(attribute) for attribute in chosen]
    names, values = [], np.empty((len(rows), len(chosen)), np.uint8)
    for place, words in enumerate(rows):
        if len(words) != len(columns) + 1 or not {"1", "-1"}.issuperset(words[1:]):
            raise Refusal(
                f"{path}, line {before + place + 1} must hold a file name and {len(columns)} values of 1 or -1:"
                " fetch this file again"
            )
        names.append(words[0])
        values[place] = [words[column] == "1" for column in places]
    return names, values


def read_lists(attributes: Path, partitions: Path, chosen: tuple[str, ...]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Reads the lists of attributes and splits, which must contain the same images in the same order.

    Returns:
        Names, splits uint8 [N], chosen attributes uint8 [N, len(chosen)].
    Raises:
        Refusal: a list is damaged, or the lists do not match.
    """
    names, splits = read_partitions(partitions)
    described, values = read_attributes(attributes, chosen)
    if len(described) != len(names):
        raise Refusal(
            f"{attributes} lists {len(described):,} images, but {partitions.name} lists {len(names):,}:"
            " fetch both files again"
        )
    for number, (here, there) in enumerate(zip(described, names, strict=True), 1):
        if here != there:
            raise Refusal(
                f"image {number:,} is {here} in {attributes}, but {there} in {partitions.name}: fetch both files again"
            )
    return names, splits, values


def canonical(path: Path) -> bytes:
    """Returns the content of an attribute list in a form that is the same for text, CSV and zipped files.

    The first line holds the column names. Each further line describes one image. Single spaces separate the words.

    Raises:
        Refusal: the file is not a list of attributes.
    """
    columns, rows, _ = _table(path)
    return "\n".join(" ".join(words) for words in (columns, *rows)).encode()


def content(path: Path) -> bytes:
    """Returns a list's bytes, unzipped if it is in a zip.

    Raises:
        Refusal: the file cannot be read, or is not a zip that contains exactly one list.
    """
    try:
        if path.suffix != ".zip":
            return path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            [name] = [name for name in archive.namelist() if not name.startswith("__MACOSX/")]
            return archive.read(name)
    except OSError as error:
        raise Refusal(f"{path} cannot be read: {error.strerror}") from error
    except (EOFError, RuntimeError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        raise Refusal(f"{path} is not a complete zip file with one list ({error}): fetch this file again") from error


def _table(path: Path) -> tuple[list[str], list[list[str]], int]:
    """Returns the column names of an attribute list, the words of each image's line, and the number of header lines."""
    rows, is_csv = _rows(path)
    if is_csv:
        return rows[0][1:], rows[1:], 1
    if len(rows) < 2 or len(rows[0]) != 1 or not rows[0][0].isdecimal():
        raise Refusal(f"{path} must begin with a count and the names of the attributes: fetch this file again")
    if (count := int(rows[0][0])) != len(rows) - 2:
        raise Refusal(
            f"{path} begins with a count of {count:,} images, but lists {len(rows) - 2:,}: fetch this file again"
        )
    return rows[1], rows[2:], 2


def _rows(path: Path) -> tuple[list[list[str]], bool]:
    """Returns the words of each line, and whether the file is CSV. Ignores blank lines at the end."""
    raw = content(path)
    encoding = next((encoding for mark, encoding in _MARKS.items() if raw.startswith(mark)), "utf-8")
    lines = raw.decode(encoding, "replace").rstrip().splitlines()
    if lines and "," in lines[0]:
        return [[word.strip(' "') for word in line.split(",")] for line in lines], True
    return [line.split() for line in lines], False
