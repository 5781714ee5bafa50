"""Converts image files to 8-bit RGB. All conversion is in this file, so that all images follow the same rules:

    16-bit grey values      scaled from 0..65535 to 0..255
    transparent parts       laid over white
    EXIF orientation        turned upright
    CMYK, palettes, grey    converted to red, green, blue
    several frames          only the first is used

Images with 32-bit grey values are refused, because no grey value is defined as white. Completely transparent images are
refused, because they show nothing.
"""

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


class BadImage(Exception):
    """Raised for an unusable image file. The message has no subject, so that callers can put the file's name first."""


def read(file: Path | BinaryIO, formats: tuple[str, ...] | None = None) -> Image.Image:
    """Reads the image in a file: upright, mode RGB.

    Args:
        file: a path, or an open file.
        formats: Pillow's names of the allowed formats. If None, every format is allowed.
    Raises:
        BadImage: the file is not an image of these formats, is damaged, or cannot be converted.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=formats) as image:
                return rgb(_upright(image))
    except UnidentifiedImageError as error:
        raise BadImage(f"is not a {formats[0]} image" if formats else "is not an image, or is damaged") from error
    except (OSError, EOFError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadImage(f"is damaged ({' '.join(str(error).split()) or type(error).__name__})") from error


def _upright(image: Image.Image) -> Image.Image:
    """Turns an image upright, as its EXIF data say. Leaves an image with damaged EXIF data unchanged."""
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged bytes make Pillow raise struct.error, TypeError, SyntaxError and others
        return image


def rgb(image: Image.Image) -> Image.Image:
    """Converts an image of any mode to 8-bit RGB.

    Raises:
        BadImage: the image has 32-bit grey values, is completely transparent, or cannot be converted.
    """
    mode = image.mode
    if mode.startswith("I;16"):
        image = _eight_bits(image)
    elif mode in ("I", "F"):
        raise BadImage("has 32-bit grey values, for which white is not defined; save it with 8 or 16 bits")
    try:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            if image.getchannel("A").getextrema() == (0, 0):
                raise BadImage("is completely transparent; save it without transparency")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")
    except ValueError as error:
        raise BadImage(f"has colours that cannot be converted (mode {mode}); save it as 8-bit RGB") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Converts 16-bit grey values to 8 bits. Adds an alpha channel if one grey value marks transparent pixels."""
    deep = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8))
    clear = image.info.get("transparency")
    if clear is not None:
        grey.putalpha(Image.fromarray(np.where(deep == clear, 0, 255).astype(np.uint8)))
    return grey
