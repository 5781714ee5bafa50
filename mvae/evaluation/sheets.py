"""Sheets of images: rows with words beside them, a title above, saved as PNG.

Pillow draws the words with its built-in font, in milliseconds: trial processes load no plotting library.
"""

import io
from dataclasses import dataclass
from functools import cache
from textwrap import wrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mvae.storage.place import Place

GAP = 1
"""Pixels between two images, before they are enlarged."""

FONT, LINE, PADDING = 13, 17, 8
"""Pixels: size of the words, from one line of them to the next, and between them and the images."""

LABEL = 24
"""Characters of a line beside a row."""


@dataclass(frozen=True)
class Sheet:
    """Images laid out in rows, and what they are."""

    images: Tensor
    """[n, C, H, W] in [0, 1], row by row."""
    columns: int
    """Images of a row."""
    title: str = ""
    rows: tuple[str, ...] = ()
    """Label of each row; empty if the title says it."""

    def __post_init__(self) -> None:
        assert not self.rows or len(self.rows) == -(-len(self.images) // self.columns)

    @property
    def pixels(self) -> Tensor:
        """The images in their places, without words: [C, H', W']."""
        return grid(self.images, self.columns)


def grid(images: Tensor, columns: int, gap: int = GAP) -> Tensor:
    """Images [n, C, H, W] laid out in rows of `columns`, with `gap` pixels of 0.5 between: [C, H', W'] in [0, 1]."""
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    sheet = images.new_full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 0.5)
    for i in range(n):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[:, top : top + height, left : left + width] = images[i]
    return sheet.clamp(0, 1)


def save_png(sheet: Sheet, path: Place, scale: int | None = None) -> None:
    """Writes a sheet with its words as PNG.

    Args:
        scale: pixels on a side that each pixel of an image takes; None: at least 2, and enough for an image to be 48
            pixels high.
    """
    enough = max(2, -(-48 // sheet.images.shape[-2]))
    content = io.BytesIO()
    labelled(sheet, scale or enough).save(content, format="PNG")
    path.write_bytes(content.getvalue())


def labelled(sheet: Sheet, scale: int) -> Image.Image:
    """The enlarged images, the words of each row left of it, and the title above."""
    pixels = (sheet.pixels.permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)
    pixels = np.repeat(np.repeat(pixels, scale, axis=0), scale, axis=1)
    body = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    tall = sheet.images.shape[-2] * scale
    most = max(1, tall // LINE)
    rows = [wrap(words, LABEL, max_lines=most, placeholder=" ...") or [""] for words in sheet.rows]
    left = max((_width(line) for lines in rows for line in lines), default=0)
    left += 2 * PADDING if left else 0
    title = _title(sheet.title, left + body.width)
    top = LINE * len(title) + (PADDING + PADDING // 2 if title else 0)
    picture = Image.new(body.mode, (left + body.width, top + body.height), 255 if body.mode == "L" else (255,) * 3)
    picture.paste(body, (left, top))
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(title):
        _write(draw, line, PADDING if left else 0, PADDING // 2 + (number + 0.5) * LINE)
    for number, lines in enumerate(rows):
        middle = top + number * (tall + GAP * scale) + tall / 2
        for place, line in enumerate(lines):
            _write(draw, line, left - PADDING - _width(line), middle + (place - (len(lines) - 1) / 2) * LINE)
    return picture


def _write(draw: ImageDraw.ImageDraw, line: str, left: float, middle: float) -> None:
    """Draws a line of words whose small letters have their middle at a height."""
    draw.text((left, middle + FONT * 0.35), line, fill=0 if draw.mode == "L" else (0, 0, 0), font=_font(), anchor="ls")


def _title(words: str, across: int) -> list[str]:
    """The title in lines that are not wider than the picture."""
    characters = max(len(words), LABEL)
    while characters > LABEL and any(_width(line) > across - 2 * PADDING for line in wrap(words, characters)):
        characters -= 1
    return wrap(words, characters)


def _width(line: str) -> int:
    return int(np.ceil(_font().getlength(line)))


@cache
def _font() -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(FONT)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
