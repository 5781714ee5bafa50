"""Recognises the published raw files of the MNIST family by their digests.

A known file in the wrong place is refused, for example FashionMNIST's file in MNIST's folder, or a training file under
the name of a test file. An unknown file is accepted as the user's own data, and `described` reports how the file
differs from the published file.

Digests are hex sha256 of the uncompressed files, so compression does not matter.
"""

from collections.abc import Mapping
from pathlib import Path

from mvae.refusal import Refusal

DIGESTS = {
    "MNIST": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "FashionMNIST": {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}
"""Digest of each published file, by folder and file name."""

COUNTS = {
    "MNIST": (
        (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
    ),
    "FashionMNIST": ((6000,) * 10, (1000,) * 10),
}
"""By folder: number of examples per class in the training file, and in the test file."""

TOKENS = {"MNIST": "mnist", "FashionMNIST": "fashion_mnist"}
"""By folder: name of the data set that reads the folder."""

_OWNERS = {digest: (folder, name) for folder, files in DIGESTS.items() for name, digest in files.items()}


def refuse_misplaced(raw: Path, folder: str, digests: Mapping[str, str]) -> None:
    """Checks that no published file is in the wrong place, and that training and test images differ.

    Args:
        raw: the folder of the files.
        folder: torchvision's name of the data set whose files belong in `raw`.
        digests: digest of each file, by file name.
    Raises:
        Refusal: a file is in the wrong place, or the test images are the training images. The message names the file
            and its content, and says what to do.
    """
    for name, digest in digests.items():
        owner, own_name = _OWNERS.get(digest, (folder, name))
        if owner != folder:
            raise Refusal(
                f"{raw / name} is {owner}'s {own_name}: put {folder}'s file there, or move {owner}'s files to"
                f" {owner}/raw and use --dataset {TOKENS[owner]}"
            )
        if own_name != name:
            raise Refusal(f"{raw / name} is {owner}'s {own_name} under another name: put {owner}'s {name} there")
    train, test = (name for name in digests if "images" in name)
    if digests[train] == digests[test]:
        raise Refusal(f"{raw / test} holds the images of {train}: put the test images there")


def described(raw: Path, folder: str, others: list[str], train: tuple[int, ...], test: tuple[int, ...]) -> str:
    """Returns one line that says how the raw files in a folder differ from the published files.

    Args:
        others: names of the files that differ.
        train, test: number of examples per class.
    """
    published = COUNTS[folder]
    line = f"{len(others)} of 4 files in {raw} differ from the published {folder} ({', '.join(others)}): "
    if (train, test) == published:
        return line + "as many examples per class as published, but other content"
    line += f"{sum(train):,} training and {sum(test):,} test examples"
    if (sum(train), sum(test)) != tuple(map(sum, published)):
        return line + f" (published: {sum(published[0]):,} and {sum(published[1]):,})"
    same = next((f", the same as {other}'s" for other, counts in COUNTS.items() if counts == (train, test)), "")
    return f"{line} as published, but other numbers per class{same}"
