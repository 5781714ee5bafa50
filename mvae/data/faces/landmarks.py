"""Computes edges and landmark masks of pictures of faces (supplement, section 10).

Edges are Canny edges from scikit-image. The mask is drawn, white on black, from the 68 points that dlib's shape
predictor finds. Mouth, brows, eyes and nose are filled; the jaw is a line.

Both libraries belong to the optional extra `vision` and are imported only when used. The predictor's file comes with
the package face_recognition_models. This package is never imported, because its import needs a module that
setuptools removed.
"""

import functools
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from mvae.data.faces import pictures
from mvae.data.faces.image_files import rgb
from mvae.refusal import Refusal

# P points, H height, W width

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey value (ITU-R BT.601)."""

JAW, BROWS, NOSE, EYES, MOUTH = (
    range(17),
    (range(17, 22), range(22, 27)),
    range(27, 36),
    (range(36, 42), range(42, 48)),
    range(48, 60),
)
"""Indices of each feature among the 68 points. The last 8 points, the inside of the lips, are not used."""

NEEDED = {"skimage": "scikit-image", "dlib": "dlib-bin", "face_recognition_models": "face-recognition-models"}
"""Modules of the extra `vision`, and the packages that contain them."""


LONGEST = 800
"""Largest width or height, in pixels, of a photograph in which dlib searches for a face."""


def check_installed(*modules: str) -> None:
    """Checks that modules of the extra `vision` are installed.

    Raises:
        Refusal: a module is missing; the message says what to install.
    """
    absent = [NEEDED[module] for module in modules if find_spec(module) is None]
    if absent:
        raise Refusal(f"edges and masks need {', '.join(absent)} (not installed): run pip install -e '.[vision]'")


def edges(image: np.ndarray) -> np.ndarray:
    """Returns the Canny edges of an image, uint8 [3, H, W], as uint8 [1, H, W]: 255 on edges, else 0.

    First smooths the image with a Gaussian whose standard deviation is 2 pixels of the 64x64 image (section 10).
    """
    from skimage.feature import canny

    grey = np.tensordot(np.array(LUMA), image / 255.0, axes=1)
    return np.asarray(canny(grey, sigma=2.0))[None] * np.uint8(255)  # type: ignore[no-untyped-call]


def landmarks(image: Image.Image) -> np.ndarray | None:
    """Returns the 68 points of the largest face, float64 [68, 2], x and y in pixels; None if no face is found.

    Images larger than LONGEST pixels are scaled down first. At full size, dlib would need much memory without finding
    more faces.
    """
    scale = max(1.0, max(image.size) / LONGEST)
    if scale > 1:
        image = image.resize((round(image.width / scale), round(image.height / scale)))
    pixels = np.asarray(rgb(image))
    detector, predictor = _dlib()
    found = detector(pixels, 0) or detector(pixels, 1)  # retry at twice the size to find small faces
    if not found:
        return None
    shape = predictor(pixels, max(found, key=lambda box: box.area()))
    return scale * np.array([(point.x, point.y) for point in shape.parts()], float)


def mask(points: np.ndarray | None, size: tuple[int, int]) -> np.ndarray:
    """Draws the mask that fits an image after `pictures.square` has reduced it to 64x64: uint8 [1, 64, 64], 0 or 255.

    Args:
        points: landmarks [68, 2], in pixels of the original image. If None, the mask is empty.
        size: width and height of the original image.
    """
    sheet = Image.new("L", (pictures.SIDE, pictures.SIDE))
    if points is not None:
        draw = ImageDraw.Draw(sheet)
        placed = pictures.placed(points, size)
        for part in (*BROWS, NOSE, *EYES, MOUTH):
            draw.polygon(hull(placed[list(part)]).flatten().tolist(), fill=255)
        draw.line(placed[list(JAW)].flatten().tolist(), fill=255, width=1)
    return np.asarray(sheet)[None]


def hull(points: np.ndarray) -> np.ndarray:
    """Returns the corners of the convex hull of points [P, 2], in order around the hull."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        return np.asarray(points[ConvexHull(points).vertices])
    except QhullError:  # all points are on one line
        return points


def described(image: Image.Image, drawn: Image.Image | None = None) -> np.ndarray:
    """Returns an image's 64x64 picture, edges and mask in one array: uint8 [5, 64, 64].

    Args:
        drawn: a drawn mask, of the same size as the image. If None, the mask is made from the detected landmarks.
    """
    picture = pictures.square(image)
    if drawn is None:
        return np.concatenate([picture, edges(picture), mask(landmarks(image), image.size)])
    return np.concatenate([picture, edges(picture), (pictures.square(drawn)[:1] >= 128) * np.uint8(255)])


@functools.cache
def _dlib() -> tuple[Callable[[np.ndarray, int], Any], Callable[[np.ndarray, Any], Any]]:
    import dlib

    spec = find_spec("face_recognition_models")
    assert spec is not None and spec.submodule_search_locations, "check_installed must be called first"
    file = Path(next(iter(spec.submodule_search_locations))) / "models" / "shape_predictor_68_face_landmarks.dat"
    return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(file))
