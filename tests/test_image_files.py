"""Pictures are read with correct depth, transparency, rotation, inks and palettes. A refusal names the file."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from benchmarks.celeba_layout import write_faces
from mvae import data
from mvae.data.faces import celeba_files, image_files, landmarks, pictures, vision
from mvae.data.faces.celeba_files import IMAGES
from mvae.refusal import Refusal

RED, WHITE = (255, 0, 0), (255, 255, 255)


@pytest.fixture(autouse=True)
def _no_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landmarks, "landmarks", lambda image: None)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def seen(image: Image.Image, kind: str = "PNG", **options: object) -> np.ndarray:
    """Pixels read from a file, uint8 [H, W, 3]."""
    read = image_files.read(saved(image, kind, **options))
    assert read.mode == "RGB"
    return np.asarray(read)


def ramp() -> np.ndarray:
    """16-bit grey values from black to white, [64, 64]."""
    return np.linspace(0, 65535, 64 * 64).round().astype(np.uint16).reshape(64, 64)


def cut_out(alpha: tuple[int, int], mode: str = "RGBA") -> Image.Image:
    """A red picture whose left and right halves have different alpha."""
    image = Image.new("RGBA", (64, 64), (*RED, alpha[0]))
    image.paste((*RED, alpha[1]), (32, 0, 64, 64))
    return image.convert(mode)


def test_a_16_bit_ramp_stays_a_ramp(tmp_path: Path) -> None:
    Image.fromarray(ramp()).save(tmp_path / "ramp.png")
    stored = vision.images_block((tmp_path / "ramp.png",))[0, :3]
    np.testing.assert_allclose(stored, np.broadcast_to(ramp() / 257, (3, 64, 64)), atol=0.51)
    assert stored.mean() == pytest.approx(127.5, abs=0.5)


def test_an_error_names_the_image_that_a_plug_in_cannot_crop_to_a_square(tmp_path: Path) -> None:
    Image.fromarray(ramp().astype(np.int32)).save(tmp_path / "deep.tif")
    with Image.open(tmp_path / "deep.tif") as image, pytest.raises(Refusal, match=r"deep\.tif has 32-bit grey values"):
        pictures.square(image)


def test_a_16_bit_ramp_in_each_colour_stays_a_ramp() -> None:
    rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in ramp())

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", 64, 64, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    read = np.asarray(image_files.read(io.BytesIO(png)))
    np.testing.assert_allclose(read, np.repeat(ramp()[..., None] / 257, 3, axis=2), atol=1)


def test_transparent_pixels_become_white_and_not_their_hidden_colour(tmp_path: Path) -> None:
    cut_out((0, 255)).save(tmp_path / "cut-out.png")
    stored = vision.images_block((tmp_path / "cut-out.png",))[0, :3]
    assert (stored[:, :, :32] == 255).all()
    assert (stored[:, :, 32:] == np.array(RED, np.uint8)[:, None, None]).all()


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    read = seen(cut_out((51, 255)))
    np.testing.assert_array_equal(read[0, 0], (255, 204, 204))
    np.testing.assert_array_equal(read[0, 63], RED)


def test_a_transparent_grey_value_palette_entry_or_colour_becomes_white() -> None:
    halves = Image.new("L", (64, 64), 10)
    halves.paste(200, (32, 0, 64, 64))
    palette = halves.convert("P")
    entry = int(np.asarray(palette)[0, 0])
    deep = Image.fromarray(np.asarray(halves).astype(np.uint16) * 257)
    for image, clear in ((halves, 10), (palette, entry), (halves.convert("RGB"), (10, 10, 10)), (deep, 2570)):
        read = seen(image, transparency=clear)
        assert (read[:, :32] == 255).all() and (read[:, 32:] == 200).all(), image.mode
    read = seen(cut_out((0, 255), "LA"))
    assert (read[:, :32] == 255).all() and (read[:, 32:] < 100).all()


def test_opaque_8_bit_pictures_are_stored_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 70, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    opaque = image.copy()
    opaque.putalpha(255)
    np.testing.assert_array_equal(seen(image), pixels)
    np.testing.assert_array_equal(seen(opaque), pixels)
    for mode in ("L", "P", "1"):
        other = image.convert(mode)
        np.testing.assert_array_equal(seen(other), np.asarray(other.convert("RGB")))


def test_cmyk_inks_become_the_colours_that_they_print() -> None:
    inks = {(0, 255, 255, 0): RED, (0, 0, 0, 0): WHITE, (0, 0, 0, 255): (0, 0, 0), (255, 0, 255, 0): (0, 255, 0)}
    for ink, colour in inks.items():
        np.testing.assert_allclose(seen(Image.new("CMYK", (64, 64), ink), "JPEG", quality=95)[9, 9], colour, atol=3)


def test_a_celeba_jpeg_is_turned_upright(tmp_path: Path) -> None:
    write_faces(tmp_path, 24)
    path = tmp_path / "celeba" / IMAGES / "000001.jpg"
    with Image.open(path) as image:
        upright = image.convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    upright.rotate(180).save(path, quality=100, subsampling=0, exif=exif)
    read = celeba_files.find(tmp_path).read_image("000001.jpg")
    assert np.abs(read.astype(int) - pictures.square(upright)).mean() < 2


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_data_do_not_rotate_a_picture() -> None:
    left = Image.new("RGB", (64, 32), RED)
    left.paste(WHITE, (32, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0  # a quarter turn, and a resolution
    whole = saved(left, "JPEG", quality=100, subsampling=0, exif=exif).getvalue()
    assert image_files.read(io.BytesIO(whole)).size == (32, 64)
    start, rng = whole.index(b"Exif"), np.random.default_rng(0)
    end = start - 2 + int.from_bytes(whole[start - 2 : start], "big")
    sizes = set()
    for _ in range(2000):
        damaged = bytearray(whole)
        for place in rng.integers(start + 6, end, 3):
            damaged[place] = rng.integers(256)
        sizes.add(image_files.read(io.BytesIO(bytes(damaged))).size)
    assert sizes <= {(32, 64), (64, 32)}


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_is_rotated_as_its_exif_data_say(turn: int) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = turn
    file = saved(image, "PNG", exif=exif)
    with Image.open(file) as opened:
        expected = ImageOps.exif_transpose(opened)
    np.testing.assert_array_equal(np.asarray(image_files.read(file)), np.asarray(expected))


@pytest.mark.parametrize(
    ("image", "kind", "line"),
    [
        (Image.new("I", (64, 64), 70_000), "TIFF", "has 32-bit grey values, for which white is not defined"),
        (Image.new("F", (64, 64), 0.5), "TIFF", "has 32-bit grey values, for which white is not defined; save"),
        (cut_out((0, 0)), "PNG", "is completely transparent; save it without transparency"),
    ],
    ids=["32 bits", "floats", "transparent"],
)
def test_a_refusal_names_the_picture_that_cannot_be_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: Image.Image, kind: str, line: str
) -> None:
    monkeypatch.setattr(landmarks, "check_installed", lambda *modules: None)
    monkeypatch.setattr(pictures, "cores", lambda: 1)
    root = tmp_path / "images"
    root.mkdir()
    for number in range(12):
        Image.new("RGB", (64, 64)).save(root / f"{number}.png")
    (root / "odd one.png").write_bytes(saved(image, kind).getvalue())
    with pytest.raises(Refusal, match=r"remove it from the folder$") as refused:
        data.load("vision_images", root, tmp_path / "cache")
    assert str(refused.value).startswith(f"{root / 'odd one.png'} {line}") and "\n" not in str(refused.value)
