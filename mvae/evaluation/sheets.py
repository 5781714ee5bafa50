"""Draws sheets of images, with a title and a label for each row, and saves the sheets as PNG.

Pillow draws the text with its built-in font in milliseconds, so trial processes need not import a plotting library.
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
"""Pixels between two images, before enlarging."""

FONT, LINE, PADDING = 13, 17, 8
"""Font size, line height, and space between text and images, in pixels."""

LABEL = 24
"""Maximum number of characters per line of a row's label."""


@dataclass(frozen=True)
class Sheet:
    """Images laid out in rows, with a title and row labels."""

    images: Tensor
    """[n, C, H, W] in [0, 1], row by row."""
    columns: int
    """Images per row."""
    title: str = ""
    rows: tuple[str, ...] = ()
    """Label of each row; empty if rows need no labels."""

    def __post_init__(self) -> None:
        assert not self.rows or len(self.rows) == -(-len(self.images) // self.columns)

    @property
    def pixels(self) -> Tensor:
        """The laid-out images without text: [C, H', W']."""
        return grid(self.images, self.columns)


def grid(images: Tensor, columns: int, gap: int = GAP) -> Tensor:
    """Lays out images [n, C, H, W] in rows of `columns`, with `gap` grey pixels between them: [C, H', W'] in [0, 1]."""
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    sheet = images.new_full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 0.5)
    for i in range(n):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[:, top : top + height, left : left + width] = images[i]
    return sheet.clamp(0, 1)


def save_png(sheet: Sheet, path: Place, scale: int | None = None) -> None:
    """Writes a sheet with its title and labels as PNG.

    Args:
        scale: factor by which images are enlarged. If None, the factor is the smallest that is at least 2
            and makes images at least 48 pixels high.
    """
    content = io.BytesIO()
    labelled(sheet, scale or max(2, -(-48 // sheet.images.shape[-2]))).save(content, format="PNG")
    path.write_bytes(content.getvalue())


def labelled(sheet: Sheet, scale: int) -> Image.Image:
    """Returns the enlarged images, with each row's label to its left and the title above."""
    pixels = (sheet.pixels.permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)
    pixels = np.repeat(np.repeat(pixels, scale, axis=0), scale, axis=1)
    body = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    row_height = sheet.images.shape[-2] * scale
    max_lines = max(1, row_height // LINE)
    rows = [wrap(label, LABEL, max_lines=max_lines, placeholder=" ...") or [""] for label in sheet.rows]
    left = max((_width(line) for lines in rows for line in lines), default=0)
    left += 2 * PADDING if left else 0
    title = _wrapped_title(sheet.title, left + body.width)
    top = LINE * len(title) + (PADDING + PADDING // 2 if title else 0)
    picture = Image.new(body.mode, (left + body.width, top + body.height), 255 if body.mode == "L" else (255,) * 3)
    picture.paste(body, (left, top))
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(title):
        _write(draw, line, PADDING if left else 0, PADDING // 2 + (number + 0.5) * LINE)
    for number, lines in enumerate(rows):
        middle = top + number * (row_height + GAP * scale) + row_height / 2
        for place, line in enumerate(lines):
            _write(draw, line, left - PADDING - _width(line), middle + (place - (len(lines) - 1) / 2) * LINE)
    return picture


def _write(draw: ImageDraw.ImageDraw, line: str, left: float, middle: float) -> None:
    baseline = middle + FONT * 0.35  # centres lower-case letters at `middle`
    draw.text((left, baseline), line, fill=0 if draw.mode == "L" else (0, 0, 0), font=_font(), anchor="ls")


def _wrapped_title(title: str, max_width: int) -> list[str]:
    characters = max(len(title), LABEL)
    while characters > LABEL and any(_width(line) > max_width - 2 * PADDING for line in wrap(title, characters)):
        characters -= 1
    return wrap(title, characters)


def _width(line: str) -> int:
    return int(np.ceil(_font().getlength(line)))


@cache
def _font() -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(FONT)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
