"""The one place that makes 8-bit RGB of a picture file, so that every picture keeps its meaning.

    16-bit grey values      scaled from 0..65535 to 0..255
    transparent parts       laid over white
    EXIF orientation        turned upright
    CMYK, palettes, grey    converted to red, green, blue
    several frames          the first

A picture that none of these rules fits is refused: values of 32 bits have no stated white, and a picture that is
transparent throughout shows nothing.
"""

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


class BadImage(Exception):
    """A file whose picture cannot be used. The message continues the file's name: "is damaged (...)"."""


def read(file: Path | BinaryIO, formats: tuple[str, ...] | None = None) -> Image.Image:
    """The picture in a file: upright, mode RGB.

    Args:
        file: a path, or an open file.
        formats: Pillow's names of the formats that it may have; None: any.
    Raises:
        BadImage: it is no picture of these formats, is damaged, or cannot be converted.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=formats) as image:
                return rgb(_upright(image))
    except UnidentifiedImageError as error:
        raise BadImage(f"is not a {formats[0]} image" if formats else "is no image, or a damaged one") from error
    except (OSError, EOFError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadImage(f"is damaged ({' '.join(str(error).split()) or type(error).__name__})") from error


def _upright(image: Image.Image) -> Image.Image:
    """A picture turned as its EXIF data say; as it is if they are damaged."""
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises what the damaged bytes lead to: struct.error, TypeError, SyntaxError
        return image


def rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode as 8-bit RGB.

    Raises:
        BadImage: there is no rule for it.
    """
    mode = image.mode
    if mode.startswith("I;16"):
        image = _eight_bits(image)
    elif mode in ("I", "F"):
        raise BadImage("has grey values of 32 bits, of which nothing says how much is white; save it with 8 or 16")
    try:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            if image.getchannel("A").getextrema() == (0, 0):
                raise BadImage("is transparent throughout, so that nothing of it shows; save it without transparency")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")
    except ValueError as error:
        raise BadImage(f"has colours that cannot be converted (mode {mode}); save it as 8-bit RGB") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Converts 16-bit grey values to 8 bits, with an alpha channel if one value means transparent."""
    deep = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8))
    clear = image.info.get("transparency")
    if clear is not None:
        grey.putalpha(Image.fromarray(np.where(deep == clear, 0, 255).astype(np.uint8)))
    return grey
