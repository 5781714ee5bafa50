"""Defines `polymnist`, `polymnist_free` and `polymnist_digits`: five pictures of one digit, whose class is hidden.

polymnist          MNIST's digits on the five pictures in <data root>/polymnist_backgrounds/, in order of their names
polymnist_free     MNIST's digits on five pictures that ship with scikit-image and scikit-learn. The backgrounds
                   differ from the published ones, so tables show no published numbers for this data set.
polymnist_digits   scikit-learn's 8x8 digits, enlarged three times, on coarse, dark patches of the same five pictures.
                   For tests and the demo. Each training digit occurs in four tuples.

MNIST's training file gives 60,000 tuples: 54,000 for training and the last 6,000 for validation, as in MultiVae's
study. MNIST's test file gives 10,000 tuples. No model sees the class. Only the classifiers that judge generated
images are trained on the class.
"""

import functools
import hashlib
from pathlib import Path

import numpy as np

from mvae.data.dataset import Arrays, Defaults, Kind, MissingFiles, Modality, Source
from mvae.data.mnist import digits as embedded
from mvae.data.mnist import mnist
from mvae.data.polymnist.composing import SIDE, composed
from mvae.refusal import Refusal

VERSION, DIGITS_VERSION = 1, 2
MODALITIES = 5
FOLDER = "polymnist_backgrounds"
ENDINGS = (".jpg", ".jpeg", ".png")
SHIPPED = (
    ("skimage", "coffee.png"),
    ("skimage", "astronaut.png"),
    ("skimage", "hubble_deep_field.jpg"),
    ("sklearn", "flower.jpg"),
    ("sklearn", "china.jpg"),
)
"""Package and file name of each background picture of `polymnist_free`."""

LARGER = 3
"""Factor by which `polymnist_digits` enlarges width and height of its digits."""
COARSER, PATCH = 4, 12
"""`polymnist_digits` keeps every fourth pixel of a background, and enlarges each kept pixel to 12x12 pixels."""
DARKER = 3
"""Divisor that darkens the backgrounds of `polymnist_digits`, so that every inverted digit is visible."""
ROUNDS = 4
"""Number of tuples per training digit in `polymnist_digits`. The tuples differ in their digit images and crops."""

HIDDEN = (Modality("digit", Kind.LABEL, (), classes=10),)


def picture_files(root: Path) -> list[Path]:
    """Returns the paths of the five background pictures in a data root, sorted by name.

    Raises:
        MissingFiles: the folder is missing, or does not hold five pictures.
    """
    folder = root / FOLDER
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in ENDINGS)
    if len(found) != MODALITIES:
        raise MissingFiles(
            f"{folder} holds {len(found)} pictures: put {MODALITIES} there ({', '.join(ENDINGS)}), one per modality,"
            " or use --dataset polymnist_free, which needs no pictures there"
        )
    return found


def shipped_files() -> list[Path]:
    """Returns the paths of the five background pictures in scikit-image and scikit-learn.

    Raises:
        MissingFiles: a picture is missing from the installed packages.
    """
    import skimage
    import sklearn

    places = {
        "skimage": Path(skimage.__file__).parent / "data",
        "sklearn": Path(sklearn.__file__).parent / "datasets" / "images",
    }
    found = [places[package] / name for package, name in SHIPPED]
    if missing := [path for path in found if not path.is_file()]:
        raise MissingFiles(f"{missing[0]} is missing: reinstall scikit-image and scikit-learn")
    return found


def pictures(files: list[Path]) -> list[np.ndarray]:
    """Reads pictures in colour. Each becomes uint8 [height, width, 3].

    Raises:
        Refusal: a file is not a picture, or the picture is too small.
    """
    from PIL import Image, UnidentifiedImageError

    found = []
    for path in files:
        try:
            with Image.open(path) as image:
                found.append(np.asarray(image.convert("RGB")))
        except (UnidentifiedImageError, OSError) as error:
            raise Refusal(f"{path} is not a picture ({error}): put a complete PNG or JPEG file there") from error
        if min(found[-1].shape[:2]) < SIDE:
            raise Refusal(f"{path} is smaller than {SIDE}x{SIDE} pixels: put a larger picture there")
    return found


def _background_digest(files: list[Path]) -> str:
    """Returns a digest of the decoded pixels, because two decoders may return different pixels for the same file."""
    found = [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures(files)]
    return hashlib.sha256("".join(found).encode()).hexdigest()


def _check(root: Path, free: bool) -> None:
    mnist.find(root, "MNIST")
    if not free:
        picture_files(root)


def _digest(root: Path, free: bool) -> str:
    own = _background_digest(shipped_files() if free else picture_files(root))
    return hashlib.sha256(f"{mnist.content_digest(root, 'MNIST')} {own}".encode()).hexdigest()


def _examples(root: Path) -> int:
    held = mnist.training_examples(root, "MNIST")
    whole = held + held // 5  # MNIST itself keeps five sixths
    return whole - whole // 10


def _convert(root: Path, free: bool) -> Arrays:
    backgrounds = pictures(shipped_files() if free else picture_files(root))
    halves = mnist.convert(root, "MNIST", binary=False)
    train = [np.concatenate([halves["train"][i], halves["validation"][i]]) for i in (0, 1)]
    made = composed(train[0][:, 0], train[1], backgrounds, "train")
    cut = len(train[1]) - len(train[1]) // 10
    test = composed(halves["test"][0][:, 0], halves["test"][1], backgrounds, "test")
    return {"train": tuple(v[:cut] for v in made), "validation": tuple(v[cut:] for v in made), "test": test}


def _convert_digits(_root: Path) -> Arrays:
    coarse = [picture[::COARSER, ::COARSER] // DARKER for picture in pictures(shipped_files())]
    backgrounds = [picture.repeat(PATCH, 0).repeat(PATCH, 1) for picture in coarse]
    made = {}
    for split, (images, labels) in embedded.convert(_root).items():
        digits, times = _enlarged(images[:, 0]), ROUNDS if split == "train" else 1
        made[split] = composed(np.tile(digits, (times, 1, 1)), np.tile(labels, times), backgrounds, split)
    return made


def _enlarged(images: np.ndarray) -> np.ndarray:
    """Enlarges digits, uint8 [n, 8, 8], three times by linear interpolation, and adds a margin: uint8 [n, 28, 28]."""
    wide = np.pad(images.repeat(LARGER, 1).repeat(LARGER, 2), ((0, 0), (3, 3), (3, 3))).astype(np.uint16)
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    sums = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    smooth: np.ndarray = (sums // LARGER**2).astype(np.uint8)
    return smooth


def _modalities() -> tuple[Modality, ...]:
    return tuple(
        Modality(f"m{m}", Kind.IMAGE, (3, SIDE, SIDE), likelihood="laplace", scale=0.75) for m in range(MODALITIES)
    )


def _source(name: str, *, free: bool, epochs: int) -> Source:
    return Source(
        name=name,
        modalities=_modalities(),
        hidden=HIDDEN,
        defaults=Defaults(
            latents=512,
            epochs=epochs,
            image_network="mlp",
            image_networks=("mlp", "conv"),
            batch_size=256,
            pairing="proportional",
        ),
        split_rule="the last tenth of the training file validates",
        version=VERSION,
        check=functools.partial(_check, free=free),
        digest=functools.partial(_digest, free=free),
        examples=_examples,
        convert=functools.partial(_convert, free=free),
        download=functools.partial(mnist.download, folder="MNIST"),
    )


POLYMNIST = _source("polymnist", free=False, epochs=300)
POLYMNIST_FREE = _source("polymnist_free", free=True, epochs=40)
POLYMNIST_DIGITS = Source(
    name="polymnist_digits",
    modalities=_modalities(),
    hidden=HIDDEN,
    defaults=Defaults(
        latents=32,
        epochs=12,
        image_network="mlp",
        image_networks=("mlp", "conv"),
        batch_size=64,
        learning_rate=2e-3,
        pairing="proportional",
    ),
    split_rule="that of digits",
    version=DIGITS_VERSION,
    check=lambda _root: None,
    digest=lambda _root: f"{embedded.CONTENT} {_background_digest(shipped_files())}",
    examples=lambda _root: ROUNDS * embedded.SIZES["train"],
    convert=_convert_digits,
)
