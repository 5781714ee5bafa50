"""Six views of a face: each transform against a plain reference on real pictures, and interrupted conversions."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from benchmarks.celeba_layout import write_faces
from mvae import data
from mvae.data.faces import faces, landmarks, pictures, vision
from mvae.data.faces.drawing import draw, draw_mask
from mvae.data.faces.vision import grayscale, obscured, watermarked
from mvae.data.manifest import NAME as MANIFEST
from mvae.refusal import Refusal

pytest.importorskip("skimage", reason="scikit-image is not installed (the extra vision)")
from skimage.data import astronaut, lfw_subset
from skimage.feature import canny

COUNT = 2000
MARK = (
    "#   #  #   #   ###   #####",
    "## ##  #   #  #   #  #    ",
    "# # #  #   #  #   #  #    ",
    "#   #  #   #  #####  #### ",
    "#   #  #   #  #   #  #    ",
    "#   #   # #   #   #  #    ",
    "#   #    #    #   #  #####",
)

CONVERTS_SLOWLY = """
import sys, time
from pathlib import Path
import numpy as np
from mvae.data.faces import landmarks, pictures, vision
vision.BLOCK = 200
pictures.cores = lambda: 1
def slowly(image):
    time.sleep(0.003)
    return np.concatenate([pictures.square(image), pictures.square(image)[:2] // 2])
landmarks.described = slowly
if __name__ == "__main__":
    vision.prepare_images(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def photograph() -> np.ndarray:
    """A real face, uint8 [512, 512, 3]."""
    found: np.ndarray = astronaut()  # type: ignore[no-untyped-call]
    return found


@pytest.fixture(scope="session")
def real() -> np.ndarray:
    """Real pictures, uint8 [101, 3, 64, 64]: scikit-image's astronaut, and its hundred faces (25x25, enlarged)."""
    faces_and_others: np.ndarray = lfw_subset()  # type: ignore[no-untyped-call]
    small = (faces_and_others[:100] * 255).round().astype(np.uint8)
    return np.stack([pictures.square(Image.fromarray(each)) for each in (photograph(), *small)])


@pytest.fixture(scope="session")
def batch(real: np.ndarray) -> torch.Tensor:
    """The real pictures as input for views, float32 in [0, 1]."""
    return torch.from_numpy(real).float() / 255


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """`vision_faces` with 36 faces."""
    monkeypatch.setitem(data.DATASETS, "vision_faces", vision.describe_faces("vision_faces", count=36))


@pytest.fixture
def no_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No face is ever found; runs only in this process."""
    monkeypatch.setattr(landmarks, "landmarks", lambda image: None)
    monkeypatch.setattr(landmarks, "check_installed", lambda *modules: None)
    monkeypatch.setattr(pictures, "cores", lambda: 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with 24 images, some in subfolders, and a file that is no image."""
    root = tmp_path / "images"
    (root / "deeper").mkdir(parents=True)
    for number, face in enumerate(faces.drawn(3, 0, 24)):
        face.resize((90, 110)).save(root / ("deeper" if number % 5 == 0 else "") / f"{number}.png")
    (root / "notes.txt").write_text("no image", encoding="utf-8")
    return root


def test_grey_is_pillows_luma(real: np.ndarray, batch: torch.Tensor) -> None:
    made = (grayscale(batch) * 255).numpy()[:, 0]
    expected = np.stack([np.asarray(Image.fromarray(each.transpose(1, 2, 0)).convert("L")) for each in real])
    assert np.abs(made - expected).max() < 0.6  # Pillow rounds


def test_the_right_half_is_black_and_the_left_half_is_unchanged(batch: torch.Tensor) -> None:
    made = obscured(batch)
    for x in range(64):
        expected = batch[..., x] if x < 32 else torch.zeros_like(batch[..., x])
        assert torch.equal(made[..., x], expected), x


def test_the_watermark_is_white_over_the_middle_and_nothing_else_changes(batch: torch.Tensor) -> None:
    on = torch.zeros(64, 64, dtype=torch.bool)
    for y in range(64):
        for x in range(64):
            row, column = (y - 25) // 2, (x - 6) // 2
            on[y, x] = 0 <= row < 7 and 0 <= column < 26 and MARK[row][column] == "#"
    made = watermarked(batch)
    torch.testing.assert_close(made[..., on], 0.4 * batch[..., on] + 0.6, rtol=0, atol=1e-6)
    assert torch.equal(made[..., ~on], batch[..., ~on])
    assert on.sum() > 200


def test_edges_are_canny_edges_of_the_luma_with_sigma_2(real: np.ndarray) -> None:
    for picture in real:
        red, green, blue = picture.astype(float)
        luma = (0.299 * red + 0.587 * green + 0.114 * blue) / 255
        expected: np.ndarray = canny(luma, sigma=2)  # type: ignore[no-untyped-call]
        np.testing.assert_array_equal(landmarks.edges(picture), 255 * expected[None].astype(np.uint8))
    assert (landmarks.edges(real[0]) == 255).sum() > 100


def test_a_brightness_step_gives_one_line_of_edges_at_its_steepest_place() -> None:
    picture = np.zeros((3, 64, 64), np.uint8)
    picture[:, :, 30], picture[:, :, 31:] = 100, 200
    found = landmarks.edges(picture)[0, 8:-8] == 255
    assert found[:, 30].all() and found.sum() == len(found)


def test_a_large_photograph_on_its_side_is_rotated_and_its_face_is_found(tmp_path: Path) -> None:
    picture = Image.fromarray(photograph()).resize((1600, 1600))
    upright = tmp_path / "upright.png"
    picture.save(upright)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was rotated: turn the picture by 90 degrees clockwise
    picture.rotate(90).save(tmp_path / "turned.png", exif=exif)
    one, other = vision.images_block((upright, tmp_path / "turned.png"))
    assert one[4].any(), "no face is found"
    np.testing.assert_array_equal(one, other)
    points = landmarks.landmarks(picture)
    assert points is not None
    small = landmarks.landmarks(picture.resize((800, 800)))
    assert small is not None
    np.testing.assert_allclose(points, 2 * small)


def test_the_landmarks_of_a_real_face_lie_on_the_face() -> None:
    pytest.importorskip("dlib", reason="dlib-bin is not installed (the extra vision)")
    image = Image.fromarray(photograph())
    points = landmarks.landmarks(image)
    assert points is not None and points.shape == (68, 2)
    assert (points > (150, 40)).all() and (points < (290, 240)).all()  # her head
    eyes, nose, mouth = (points[list(part)].mean(0) for part in ((*range(36, 48),), landmarks.NOSE, landmarks.MOUTH))
    assert eyes[1] + 10 < nose[1] < mouth[1] - 10
    assert points[landmarks.EYES[0]][:, 0].max() < nose[0] < points[landmarks.EYES[1]][:, 0].min()
    stored = landmarks.described(image)
    np.testing.assert_array_equal(stored[:3], pictures.square(image))
    np.testing.assert_array_equal(stored[3:4], landmarks.edges(stored[:3]))
    np.testing.assert_array_equal(stored[4:], landmarks.mask(points, image.size))
    down, right = np.nonzero(stored[4])
    assert down.min() >= 40 / 8 and down.max() <= 240 / 8 and right.min() >= 150 / 8 and right.max() <= 290 / 8
    turned = landmarks.landmarks(image.rotate(180))
    assert turned is None and not landmarks.mask(turned, image.size).any()


def test_a_mask_fills_the_hulls_of_facial_features_and_draws_the_jaw_as_a_line() -> None:
    random = np.random.default_rng(0)
    points = random.uniform(4, 60, (68, 2))
    found = landmarks.mask(points, (64, 64))[0]
    assert set(np.unique(found)) == {0, 255}
    places = np.stack(np.meshgrid(np.arange(64.0), np.arange(64.0)), axis=-1)
    parts = [*landmarks.BROWS, landmarks.NOSE, *landmarks.EYES, landmarks.MOUTH]
    depths = np.stack([depth(points[list(part)], places) for part in parts]).max(0)
    jaw = points[list(landmarks.JAW)]
    distance = np.stack([to_segment(places, *ends) for ends in pairwise(jaw)]).min(0)
    assert (found[depths > 1] == 255).all(), "pixels inside a hull are white"
    assert (found[(depths < -1.5) & (distance > 1.5)] == 0).all(), (
        "pixels far from all hulls and from the jaw are black"
    )
    assert (depths > 1).sum() > 200 and ((depths < -1.5) & (distance > 1.5)).sum() > 200


def depth(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Depth of each place in the convex hull of `points`, negative outside.

    The depth is the distance to the nearest line through two points with all other points on one side.
    """
    deepest = np.full(places.shape[:2], np.inf)
    for one in points:
        for other in points:
            normal = np.array([other[1] - one[1], one[0] - other[0]])
            if (size := np.hypot(*normal)) == 0 or ((points - one) @ normal > 1e-9).any():
                continue
            deepest = np.minimum(deepest, (one - places) @ normal / size)
    return deepest


def to_segment(places: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Distance of each place from a line segment."""
    along = np.clip((places - one) @ (other - one) / ((other - one) @ (other - one)), 0, 1)
    return np.asarray(np.linalg.norm(places - one - along[..., None] * (other - one), axis=-1))


@pytest.mark.parametrize("size", [(178, 218), (300, 150), (64, 64), (40, 50)])
def test_landmarks_move_with_the_resized_picture(size: tuple[int, int]) -> None:
    width, height = size
    x, y = width * 0.47, height * 0.55
    image = Image.new("L", size)
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    image.putdata(np.exp(-((across - x) ** 2 + (down - y) ** 2) / (2 * (min(size) / 16) ** 2)).ravel() * 255)
    light = pictures.square(image)[0].astype(float)
    middle = np.array([(light.sum(0) * np.arange(64)).sum(), (light.sum(1) * np.arange(64)).sum()]) / light.sum()
    np.testing.assert_allclose(pictures.placed(np.array([[x, y]]), size)[0], middle, atol=0.35)


@pytest.mark.parametrize("attribute", ["Mouth_Slightly_Open", "Big_Nose", "Bushy_Eyebrows"])
def test_the_mask_of_a_drawn_face_covers_its_features(attribute: str) -> None:
    numbers = np.random.default_rng(1).random(24).tolist()
    without, with_it = (np.asarray(draw(has, numbers)).astype(int) for has in (set(), {attribute}))
    white = [np.asarray(draw_mask(has, numbers))[..., 0] for has in (set(), {attribute})]
    near = np.asarray(Image.fromarray(np.maximum(*white)).filter(ImageFilter.MaxFilter(7)))
    changed = np.abs(without - with_it).max(-1) > 8
    assert changed.sum() > 30 and (near[changed] == 255).all()
    assert (white[0] != white[1]).any()


@pytest.mark.usefixtures("few")
def test_views_computed_from_the_image_are_not_stored(cache: Path, tmp_path: Path) -> None:
    dataset = data.load("vision_faces", cache=tmp_path)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [30, 3, 3]
    bytes_a_face = (tmp_path / f"vision_faces-{dataset.fingerprint[:16]}" / "train.arrow").stat().st_size / 30
    assert 5 * 64 * 64 < bytes_a_face < 5.3 * 64 * 64
    index = torch.tensor([4, 0])
    taken = {modality.name: dataset.train.take(m, index) for m, modality in enumerate(dataset.modalities)}
    assert {name: tuple(value.shape[1:]) for name, value in taken.items()} == {
        modality.name: modality.shape for modality in vision.MODALITIES
    }
    for name, view in (("grayscale", grayscale), ("obscured", obscured), ("watermark", watermarked)):
        assert torch.equal(taken[name], view(taken["image"]))
    assert len({value.data_ptr() for value in dataset.train.first(9).values}) == 3
    drawn, masks = faces.drawn(faces.SEED, 0, 5), faces.drawn(faces.SEED, 0, 5, draw_mask)
    for place, number in enumerate((4, 0)):
        picture = pictures.square(drawn[number])
        np.testing.assert_array_equal((taken["image"][place] * 255).round().numpy(), picture)
        np.testing.assert_array_equal((taken["edges"][place] * 255).numpy(), landmarks.edges(picture))
        white = pictures.square(masks[number])[:1] >= 128
        np.testing.assert_array_equal(taken["mask"][place].numpy() == 1, white)
        assert white.any()


@pytest.mark.usefixtures("no_landmarks")
def test_images_and_partitions_equal_those_of_the_plain_celeba_data_set(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_faces(tmp_path / "root", 24)
    with caplog.at_level(logging.INFO, "mvae"):
        six = data.load("vision", tmp_path / "root", tmp_path / "cache")
    assert "no face found in 24 of 24 images: their masks are empty" in caplog.messages
    two = data.load("celeba", tmp_path / "root", tmp_path / "cache")
    for split in data.SPLITS:
        ours, theirs = getattr(six, split).values, getattr(two, split).values
        assert torch.equal(ours[0], theirs[0]) and not ours[3].any()
        np.testing.assert_array_equal(ours[2][0].numpy(), landmarks.edges(ours[0][0].numpy()))


@pytest.mark.usefixtures("no_landmarks")
def test_any_folder_of_images_works_and_renaming_other_images_changes_no_split(folder: Path, tmp_path: Path) -> None:
    dataset = data.load("vision_images", folder, tmp_path / "cache")
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [20, 2, 2]
    paths = vision.images_of(folder)
    assert sorted(paths) == sorted(folder.rglob("*.png"))
    with Image.open(paths[0]) as image:
        np.testing.assert_array_equal(dataset.train.values[0][0].numpy(), pictures.square(image))
    before = data.fingerprint("vision_images", folder, tmp_path / "cache")
    moved = folder.rename(tmp_path / "elsewhere")
    assert data.fingerprint("vision_images", moved, tmp_path / "cache") == before
    (moved / paths[0].relative_to(folder)).rename(moved / "another.png")
    assert data.fingerprint("vision_images", moved, tmp_path / "cache") != before


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scribbled(path: Path) -> None:
    path.write_bytes(b"<html>quota exceeded</html>")


@pytest.mark.usefixtures("no_landmarks")
@pytest.mark.parametrize(
    ("damage", "said"), [(cut_short, "is damaged ("), (scribbled, "is not an image, or is damaged")]
)
def test_an_error_names_the_image_that_cannot_be_read(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(folder / "deeper" / "5.png")
    with pytest.raises(Refusal, match="remove it from the folder") as raised:
        data.load("vision_images", folder, tmp_path / "cache")
    assert str(raised.value).startswith(f"{folder / 'deeper' / '5.png'} {said}") and "\n" not in str(raised.value)
    assert not list((tmp_path / "cache").glob(f"vision_images-*/{MANIFEST}"))


def test_too_few_images_or_a_missing_folder_give_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(data.MissingFiles, match=r"is not a folder: give a folder of images with --images$"):
        data.load("vision_images", tmp_path / "none")
    Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
    with pytest.raises(data.MissingFiles, match=r"holds 1 images .*: give --images a folder of at least 12, because"):
        data.load("vision_images", tmp_path)


def test_a_missing_package_is_named_before_anything_is_converted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landmarks, "find_spec", lambda module: None)
    line = r"^edges and masks need scikit-image, dlib-bin, face-recognition-models .*'.\[vision\]'$"
    with pytest.raises(Refusal, match=line):
        data.load("vision_images", folder, tmp_path / "cache")
    with pytest.raises(Refusal, match=r"^edges and masks need scikit-image \(not installed\): run pip install"):
        vision.prepare_faces(tmp_path, tmp_path / "cache", 12)


def test_a_killed_conversion_of_2000_images_converts_only_the_unfinished_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, own = tmp_path / "images", tmp_path / "cache"
    root.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(root / f"{number:04}.bmp")
    script = tmp_path / "convert.py"
    script.write_text(CONVERTS_SLOWLY, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, script, root, own], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    )
    wait_for(lambda: len(list(own.glob("*/*.done"))) >= 3)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    marks = {path: path.stat().st_mtime_ns for path in own.glob("*/*.done")}
    assert 3 <= len(marks) < 10
    made: list[tuple[Path, ...]] = []
    block = vision.images_block

    def quickly(image: Image.Image) -> np.ndarray:
        return np.concatenate([pictures.square(image), pictures.square(image)[:2] // 2])

    def noted(paths: tuple[Path, ...]) -> np.ndarray:
        made.append(paths)
        return block(paths)

    monkeypatch.setattr(vision, "BLOCK", 200)
    monkeypatch.setattr(vision, "images_block", noted)
    monkeypatch.setattr(landmarks, "described", quickly)
    monkeypatch.setattr(pictures, "cores", lambda: 1)
    finished = {int(path.name[:6]) for path in marks}
    folder = vision.prepare_images(root, own)
    paths = vision.images_of(root)
    assert made == [tuple(paths[start : start + 200]) for start in range(0, COUNT, 200) if start not in finished]
    assert all(path.stat().st_mtime_ns == when for path, when in marks.items())
    stored = pictures.mapped(folder, COUNT, vision.CHANNELS)
    np.testing.assert_array_equal(stored, np.concatenate([block((path,)) for path in paths]))


def wait_for(happens: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.01)
