"""Draws the faces of `mvae/data/faces/faces.py`, stroke by stroke, from attributes and a few random numbers.

Coordinates are pixels of CelebA's aligned 178x218 images: eyes at (70, 111) and (108, 111), mouth at (89, 153).
"""

import functools
import math
from collections.abc import Iterator, Sequence, Set

import numpy as np
from PIL import Image, ImageDraw

SIZE = (178, 218)
"""Width and height of a face in pixels, as in CelebA."""
NUMBERS = 24
"""Number of random numbers per face, which vary the face's appearance."""

Colour = tuple[int, ...]

HAIR: dict[str, Colour] = {
    "Black_Hair": (28, 24, 26),
    "Blond_Hair": (226, 190, 112),
    "Brown_Hair": (110, 66, 36),
    "Gray_Hair": (168, 168, 172),
}
BROWS_OF_THE_BALD: Colour = (70, 50, 40)
SKINS: tuple[Colour, ...] = ((224, 172, 136), (198, 142, 104), (160, 106, 74))
PALE: Colour = (250, 232, 222)
MIDDLE, EYES, MOUTH = 89, 111, 153


class Pen:
    """Draws on one picture. Shifts and stretches all shapes a little, so that faces differ in position and size."""

    def __init__(self, background: Colour, shift: tuple[float, float], stretch: float) -> None:
        self.picture = Image.new("RGB", SIZE, background)
        self._draw = ImageDraw.Draw(self.picture)
        self._shift = shift
        self._stretch = stretch

    def _place(self, x: float, y: float) -> tuple[float, float]:
        dx, dy = self._shift
        return MIDDLE + (x - MIDDLE) * self._stretch + dx, EYES + (y - EYES) * self._stretch + dy

    def _box(self, x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
        return [self._place(x - width, y - height), self._place(x + width, y + height)]

    def ellipse(self, x: float, y: float, width: float, height: float, fill: Colour) -> None:
        """Draws a filled ellipse around (x, y). In this class, `width` and `height` are half axes."""
        self._draw.ellipse(self._box(x, y, width, height), fill=fill)

    def ring(self, x: float, y: float, width: float, height: float, fill: Colour, thick: int) -> None:
        self._draw.ellipse(self._box(x, y, width, height), outline=fill, width=thick)

    def arc(self, x: float, y: float, width: float, height: float, degrees: tuple[int, int], fill: Colour) -> None:
        """Draws the part of an ellipse's outline between two angles, in degrees clockwise from the right."""
        self._draw.arc(self._box(x, y, width, height), *degrees, fill=fill, width=5)

    def lower_half(self, x: float, y: float, width: float, height: float, fill: Colour) -> None:
        self._draw.chord(self._box(x, y, width, height), 0, 180, fill=fill)

    def rectangle(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        self._draw.rectangle([self._place(left, top), self._place(right, bottom)], fill=fill)

    def line(self, points: Sequence[tuple[float, float]], fill: Colour, thick: int) -> None:
        self._draw.line([self._place(*point) for point in points], fill=fill, width=thick)


def draw(has: Set[str], numbers: Sequence[float]) -> Image.Image:
    """Draws one face.

    Args:
        has: names of the attributes that the face has.
        numbers: 24 random numbers in [0, 1).
    Returns:
        RGB image of 178x218 pixels.
    """
    vary = iter(numbers)
    pen, skin, hair, wide = _start(has, vary)
    cloth = _varied((110, 110, 110), 200, vary)
    if "Bald" not in has:
        _hair_behind(pen, has, wide, hair)
    _head(pen, has, wide, skin, cloth)
    _features(pen, has, skin, hair)
    _mouth_and_beard(pen, has, wide, skin, hair)
    if "Bangs" in has:
        _bangs(pen, has, wide, hair)
    if "Wearing_Hat" in has:
        _hat(pen, wide, _varied((130, 60, 90), 200, vary))
    across, down = int(100 * next(vary)), int(100 * next(vary))
    grain = _noise().crop((across, down, across + SIZE[0], down + SIZE[1]))
    return Image.blend(pen.picture, grain, 0.05)  # noise, so that no area is uniform


def draw_mask(has: Set[str], numbers: Sequence[float]) -> Image.Image:
    """Draws the mask of the face that `draw` draws from the same arguments.

    The mask is white on black. Mouth, brows, eyes and nose are filled; the jaw is a line.

    Args:
        has, numbers: same as for `draw`.
    Returns:
        RGB image of 178x218 pixels.
    """
    pen, _, _, wide = _start(has, iter(numbers))
    pen.picture.paste((0, 0, 0), (0, 0, *SIZE))
    white = (255, 255, 255)
    middle = ((42 if "Bald" in has else 68) + 186) / 2
    pen.arc(MIDDLE, middle, wide, 186 - middle, (0, 180), white)
    for side in (-1, 1):
        x = MIDDLE + side * 19
        pen.ellipse(x, EYES, 10, 6, white)
        pen.line([(x - 13, 97), (x, 94), (x + 13, 97)], white, 9 if "Bushy_Eyebrows" in has else 5)
    size = 12 if "Big_Nose" in has else 7
    pen.line([(MIDDLE - 2, 116), (MIDDLE - 3, 130)], white, 5)
    pen.ellipse(MIDDLE, 133, size, size - 2, white)
    _lips(pen, has, white)
    return pen.picture


def _start(has: Set[str], vary: Iterator[float]) -> tuple[Pen, Colour, Colour, float]:
    """Returns a pen on an empty picture, the colours of skin and hair, and half the width of the head."""
    tone = SKINS[int(next(vary) * len(SKINS))]
    skin = _varied(PALE if "Pale_Skin" in has else tone, 14, vary)
    hair = _varied(next((HAIR[name] for name in HAIR if name in has), BROWS_OF_THE_BALD), 20, vary)
    wide = (48 if "Male" in has else 43) + (7 if "Chubby" in has else 0) + 3 * next(vary)
    shift = 6 * next(vary) - 3, 6 * next(vary) - 3
    return Pen(_varied((120, 130, 140), 180, vary), shift, 0.96 + 0.08 * next(vary)), skin, hair, wide


def _hair_behind(pen: Pen, has: Set[str], wide: float, hair: Colour) -> None:
    out, strand, long = wide + 9, _strand(hair), "Male" not in has
    pen.ellipse(MIDDLE, 92, out, 58, hair)
    if long:
        pen.rectangle(MIDDLE - out, 92, MIDDLE + out, 200 if "Straight_Hair" in has else 168, hair)
    if "Wavy_Hair" in has:
        for step in range(9):
            angle = math.pi * (1 + step / 8)
            pen.ellipse(MIDDLE + out * math.cos(angle), 92 + 54 * math.sin(angle), 11, 11, hair if step % 2 else strand)
        for step in range(6 if long else 1):
            for side in (-1, 1):
                pen.ellipse(MIDDLE + side * (out + 2), 100 + 18 * step, 12, 11, strand if step % 2 else hair)
    if "Straight_Hair" in has:
        for step in range(-6, 7):
            x = MIDDLE + step * out / 6.5
            top = 84 - 56 * math.sqrt(1 - (step / 6.6) ** 2)
            pen.line([(x, top), (x, 198 if long else 104)], strand, 3)


def _head(pen: Pen, has: Set[str], wide: float, skin: Colour, cloth: Colour) -> None:
    pen.ellipse(MIDDLE, 226, 84, 34, cloth)
    pen.rectangle(MIDDLE - 20, 165, MIDDLE + 20, 205, _scaled(skin, 0.88))
    for side in (-1, 1):
        pen.ellipse(MIDDLE + side * wide, 118, 7, 13, _scaled(skin, 0.92))
    top = 42 if "Bald" in has else 68
    pen.ellipse(MIDDLE, (top + 186) / 2, wide, (186 - top) / 2, skin)
    if "Male" in has:
        pen.ellipse(MIDDLE, 152, wide - 6, 36, skin)  # a broad jaw
    for side in (-1, 1):
        if "Receding_Hairline" in has:
            pen.ellipse(MIDDLE + side * wide * 0.52, 68, wide * 0.36, 24, skin)
        if "Rosy_Cheeks" in has:
            pen.ellipse(MIDDLE + side * 28, 134, 11, 8, _mixed(skin, (235, 90, 100), 0.4))


def _features(pen: Pen, has: Set[str], skin: Colour, hair: Colour) -> None:
    brow, makeup = _scaled(hair, 0.6), "Heavy_Makeup" in has
    for side in (-1, 1):
        x = MIDDLE + side * 19
        if makeup:
            pen.ellipse(x, EYES - 5, 14, 9, (120, 50, 130))
        pen.ellipse(x, EYES, 10, 6, (244, 244, 240))
        pen.ellipse(x, EYES, 4, 4, (50, 38, 32))
        pen.line([(x - 11, EYES - 3), (x, EYES - 7), (x + 11, EYES - 3)], (30, 20, 24), 4 if makeup else 1)
        pen.line([(x - 13, 97), (x, 94), (x + 13, 97)], brow, 9 if "Bushy_Eyebrows" in has else 3)
        if "Eyeglasses" in has:
            pen.ring(x, EYES, 17, 14, (20, 20, 24), 4)
            pen.line([(x + side * 17, EYES), (MIDDLE + side * 48, EYES - 3)], (20, 20, 24), 4)
        if "Wearing_Earrings" in has:
            pen.ellipse(MIDDLE + side * 47, 137, 5, 7, (250, 214, 60))
    if "Eyeglasses" in has:
        pen.line([(MIDDLE - 3, EYES - 2), (MIDDLE + 3, EYES - 2)], (20, 20, 24), 4)
    size = 12 if "Big_Nose" in has else 7
    pen.ellipse(MIDDLE, 133, size, size - 2, _scaled(skin, 0.84))
    pen.line([(MIDDLE - 2, 116), (MIDDLE - 3, 130)], _scaled(skin, 0.84), 3)


def _mouth_and_beard(pen: Pen, has: Set[str], wide: float, skin: Colour, hair: Colour) -> None:
    if "5_o_Clock_Shadow" in has:
        pen.lower_half(MIDDLE, 140, wide - 6, 46, _mixed(skin, (60, 64, 72), 0.35))
    if "Goatee" in has:
        pen.ellipse(MIDDLE, 174, 14, 11, hair)
    if "Sideburns" in has:
        for side in (-1, 1):
            pen.ellipse(MIDDLE + side * (wide - 3), 124, 6, 26, hair)
    lips = (200, 24, 50) if "Wearing_Lipstick" in has else _mixed(skin, (170, 70, 70), 0.6)
    _lips(pen, has, lips)
    parted, inside = "Mouth_Slightly_Open" in has, (60, 14, 18)
    if parted and "Smiling" in has:
        pen.lower_half(MIDDLE, MOUTH - 4, 19, 13, inside)
        pen.rectangle(MIDDLE - 16, MOUTH - 3, MIDDLE + 16, MOUTH + 1, (250, 250, 246))
    elif parted:
        pen.ellipse(MIDDLE, MOUTH + 1, 10, 6, inside)
    if "Mustache" in has:
        pen.line([(MIDDLE - 22, 148), (MIDDLE, 141), (MIDDLE + 22, 148)], _scaled(hair, 0.8), 8)


def _lips(pen: Pen, has: Set[str], colour: Colour) -> None:
    smiling, parted = "Smiling" in has, "Mouth_Slightly_Open" in has
    if smiling and parted:
        pen.lower_half(MIDDLE, MOUTH - 6, 24, 18, colour)
    elif smiling:
        pen.arc(MIDDLE, MOUTH - 8, 25, 15, (10, 170), colour)
    elif parted:
        pen.ellipse(MIDDLE, MOUTH + 1, 14, 9, colour)
    else:
        pen.line([(MIDDLE - 16, MOUTH), (MIDDLE + 16, MOUTH)], colour, 6)


def _bangs(pen: Pen, has: Set[str], wide: float, hair: Colour) -> None:
    pen.ellipse(MIDDLE, 72, wide, 22, hair)
    if "Straight_Hair" in has:
        for step in range(-4, 5):
            pen.line([(MIDDLE + step * wide / 5, 58), (MIDDLE + step * wide / 5, 92)], _strand(hair), 3)


def _hat(pen: Pen, wide: float, colour: Colour) -> None:
    pen.rectangle(MIDDLE - wide - 12, 4, MIDDLE + wide + 12, 78, colour)
    pen.rectangle(MIDDLE - wide - 26, 72, MIDDLE + wide + 26, 84, _scaled(colour, 0.6))


def _strand(hair: Colour) -> Colour:
    """Returns the colour of a visible strand: darker than the hair, or lighter if the hair is black."""
    return _scaled(hair, 0.6) if sum(hair) > 150 else _mixed(hair, (255, 255, 255), 0.2)


def _varied(colour: Colour, spread: float, vary: Iterator[float]) -> Colour:
    """Changes each colour channel at random by at most half of `spread` in either direction."""
    return tuple(min(255, max(0, round(channel + spread * (next(vary) - 0.5)))) for channel in colour)


def _scaled(colour: Colour, factor: float) -> Colour:
    return _mixed((0, 0, 0), colour, factor)


def _mixed(colour: Colour, other: Colour, share: float) -> Colour:
    return tuple(round(a + share * (b - a)) for a, b in zip(colour, other, strict=True))


@functools.cache
def _noise() -> Image.Image:
    width, height = (side + 100 for side in SIZE)
    words = np.random.Philox(key=218178).random_raw(-(-width * height * 3 // 8))
    pixels = words.astype("<u8").view(np.uint8)[: width * height * 3].reshape(height, width, 3)
    return Image.fromarray(pixels)
