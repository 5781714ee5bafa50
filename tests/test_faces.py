"""Drawn faces: equal for equal seeds, written in CelebA's layout, with attributes visible in the pixels."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.celeba_layout import write_faces
from mvae import data
from mvae.data.dataset import Kind
from mvae.data.faces import faces
from mvae.data.faces.celeba import ATTRIBUTES, CELEBA
from mvae.data.faces.celeba_files import IMAGES
from mvae.data.faces.celeba_lists import ATTRIBUTE_LIST, COLUMNS, PARTITION_LIST
from mvae.data.faces.faces import DRAWN, FACES, FACES19, SEED, block, columns, describe, drawn, draws
from mvae.refusal import Refusal
from tests.crashes import files_below
from tests.tiny_mnist import everything

MANY = 2000
FITTED = MANY * 3 // 4
VERSION_1 = "60d4c279cd8d156d424a401a6604de8ec9fc3bbca8532e4660bbe34a91f9416c"
"""Digest of the columns of 64 faces."""
HAIR = ("Bald", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers data sets of 60 faces under the names of the data sets of 12,000."""
    for name, separate in (("faces", False), ("faces19", True)):
        monkeypatch.setitem(data.DATASETS, name, describe(name, separate=separate, count=60))
    monkeypatch.setitem(data.DATASETS, "celeba", CELEBA)


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """2,000 faces, uint8 [N, 3, 64, 64]."""
    return block(SEED, 0, MANY)


@pytest.fixture
def has() -> dict[str, np.ndarray]:
    """All columns of 12,000 faces."""
    return columns(draws(SEED, 0, faces.COUNT))


def test_attributes_of_a_face_are_consistent(has: dict[str, np.ndarray]) -> None:
    assert (np.sum([has[name] for name in HAIR], axis=0) == 1).all(), "each face is bald or has exactly one hair colour"
    for name in ("Bangs", "Receding_Hairline", "Straight_Hair", "Wavy_Hair", "Sideburns"):
        assert not (has[name] & has["Bald"]).any()
    for one, other in (("Bangs", "Receding_Hairline"), ("Straight_Hair", "Wavy_Hair"), ("Mustache", "No_Beard")):
        assert not (has[one] & has[other]).any()
    assert not ((has["Bangs"] | has["Receding_Hairline"]) & has["Wearing_Hat"]).any()
    assert not (has["Mustache"] & ~has["Male"]).any()
    assert not (has["Heavy_Makeup"] & has["Male"]).any()


def test_each_drawn_attribute_holds_for_8_to_92_percent_and_others_for_none(has: dict[str, np.ndarray]) -> None:
    assert tuple(has) == COLUMNS
    for name in COLUMNS:
        if name in DRAWN:
            assert 0.08 <= has[name].mean() <= 0.92, name
        else:
            assert not has[name].any(), name
    assert set(ATTRIBUTES) <= set(DRAWN)


def test_a_face_depends_only_on_seed_and_number(pixels: np.ndarray) -> None:
    np.testing.assert_array_equal(block(SEED, 900, 905), pixels[900:905])
    assert all((block(SEED + 1, 0, 3)[place] != pixels[place]).any() for place in range(3))
    assert len({face.tobytes() for face in pixels}) == MANY


@pytest.fixture(scope="session")
def scores(pixels: np.ndarray) -> np.ndarray:
    """Scores [N, 18] of all faces from ridge regression on 32x32 pixels, fitted to three quarters of the faces."""
    small = pixels.reshape(MANY, 3, 32, 2, 32, 2).mean(axis=(3, 5)).reshape(MANY, -1) / 255
    truth = faces.attributes(SEED, MANY).astype(float)
    inputs = small - small[:FITTED].mean(axis=0)
    gram = inputs[:FITTED] @ inputs[:FITTED].T + 3 * np.eye(FITTED)
    fitted = inputs[:FITTED].T @ np.linalg.solve(gram, truth[:FITTED] - truth[:FITTED].mean(axis=0))
    return np.asarray(inputs @ fitted)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_every_attribute_can_be_predicted_from_the_pixels(attribute: str, scores: np.ndarray) -> None:
    place = ATTRIBUTES.index(attribute)
    truth, score = faces.attributes(SEED, MANY)[:, place].astype(bool), scores[:, place]
    # Halfway between the group means, because scores of a rare attribute seldom reach 0.5.
    threshold = (score[:FITTED][truth[:FITTED]].mean() + score[:FITTED][~truth[:FITTED]].mean()) / 2
    truth, right = truth[FITTED:], (score > threshold)[FITTED:] == truth[FITTED:]
    assert (right[truth].mean() + right[~truth].mean()) / 2 > 0.85
    assert right.mean() > max(truth.mean(), 1 - truth.mean()) + 0.05


def test_pale_skin_blond_hair_and_an_open_mouth_are_drawn_in_the_right_places(
    pixels: np.ndarray, has: dict[str, np.ndarray]
) -> None:
    def group(name: str, condition: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        holds = has[name][:MANY]
        among = np.ones(MANY, bool) if condition is None else condition
        return pixels[among & holds].astype(float), pixels[among & ~holds].astype(float)

    # Pixels of 64x64 pictures. A place in 178x218 is multiplied by 0.36, and 7 rows are cut off at the top.
    pale, tanned = group("Pale_Skin", ~has["Rosy_Cheeks"][:MANY])
    assert pale[:, :, 38, 32].mean() > tanned[:, :, 38, 32].mean() + 50  # between nose and eyes
    blond, other = group("Blond_Hair", ~has["Bald"][:MANY] & ~has["Wearing_Hat"][:MANY])
    assert blond[:, 0, 9, 32].mean() > other[:, 0, 9, 32].mean() + 50  # top of the head, red
    open_mouth, closed = group("Mouth_Slightly_Open", ~has["Smiling"][:MANY])
    assert open_mouth[:, 0, 48, 32].mean() < closed[:, 0, 48, 32].mean() - 30


def test_faces_are_written_in_celebas_layout(tmp_path: Path) -> None:
    write_faces(tmp_path, 36)
    folder = tmp_path / "celeba"
    count, names, *rows = (folder / ATTRIBUTE_LIST).read_text(encoding="utf-8").splitlines()
    assert count == "36" and names.split() == list(COLUMNS)
    signs = np.array([row.split()[1:] for row in rows])
    has = columns(draws(SEED, 0, 36))
    np.testing.assert_array_equal(signs, np.where(np.stack(list(has.values()), axis=1), "1", "-1"))
    files = [row.split()[0] for row in rows]
    assert (
        files
        == [f"{number:06}.jpg" for number in range(1, 37)]
        == sorted(path.name for path in (folder / IMAGES).iterdir())
    )
    parts = [line.split() for line in (folder / PARTITION_LIST).read_text(encoding="utf-8").splitlines()]
    assert [name for name, _ in parts] == files
    assert "".join(part for _, part in parts) == "0" * 30 + "1" * 3 + "2" * 3
    for name, face in zip(files, drawn(SEED, 0, 36), strict=True):
        with Image.open(folder / IMAGES / name) as image:
            assert image.format == "JPEG" and image.mode == "RGB" and image.size == (178, 218)
            assert np.abs(np.asarray(image).astype(float) - np.asarray(face)).mean() < 6


def test_writing_twice_gives_the_same_bytes_and_keeps_a_finished_folder(tmp_path: Path) -> None:
    for root in ("one", "two"):
        write_faces(tmp_path / root, 24)
    names = files_below(tmp_path / "one")
    assert names == files_below(tmp_path / "two") and len(names) == 24 + 3
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    before = {name: (tmp_path / "one" / name).stat().st_mtime_ns for name in names}
    write_faces(tmp_path / "one", 24)
    assert {name: (tmp_path / "one" / name).stat().st_mtime_ns for name in names} == before


def test_an_interrupted_write_leaves_no_folder_and_the_next_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saved = Image.Image.save, 0

    def interrupted(self: Image.Image, *arguments: object, **options: object) -> None:
        nonlocal saved
        saved += 1
        if saved == 10:
            raise KeyboardInterrupt
        save(self, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_faces(tmp_path / "broken", 24)
    assert not (tmp_path / "broken" / "celeba").exists()
    for root in ("broken", "unbroken"):
        write_faces(tmp_path / root, 24)
    assert files_below(tmp_path / "broken") == files_below(tmp_path / "unbroken")


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    write_faces(tmp_path, 24)
    before = files_below(tmp_path)
    for count, seed in ((25, SEED), (24, SEED + 1)):
        with pytest.raises(Refusal, match=r"celeba exists, but without these .* faces: choose a folder without"):
            write_faces(tmp_path, count, seed)
    assert files_below(tmp_path) == before
    assert json.loads((tmp_path / "celeba" / "faces.json").read_text(encoding="utf-8"))["count"] == 24


def test_too_few_faces_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"^11 faces are too few: use at least 12"):
        write_faces(tmp_path, 11)
    assert not (tmp_path / "celeba").exists()


def test_one_core_writes_150_faces_per_second(tmp_path: Path) -> None:
    start = time.process_time()
    write_faces(tmp_path, 300)
    assert 300 / (time.process_time() - start) > 150


def test_both_faces_data_sets_need_no_raw_files_and_differ_only_in_the_form_of_attributes(tmp_path: Path) -> None:
    one, each = (data.load(name, tmp_path / "nothing", tmp_path / "cache") for name in ("faces", "faces19"))
    assert not (tmp_path / "nothing").exists()
    assert [modality.name for modality in one.modalities] == ["image", "attributes"]
    assert [modality.name for modality in each.modalities] == ["image", *ATTRIBUTES]
    assert {modality.kind for modality in each.modalities[1:]} == {Kind.ATTRIBUTE}
    for split, size in (("train", 50), ("validation", 5), ("test", 5)):
        (images, values), (same_images, *separate) = getattr(one, split).values, getattr(each, split).values
        assert len(images) == size
        assert torch.equal(images, same_images)
        assert torch.equal(values, torch.stack(separate, dim=1))
    whole = torch.cat([getattr(one, split).values[1] for split in data.SPLITS])
    np.testing.assert_array_equal(whole.numpy(), faces.attributes(SEED, 60))
    assert len(list((tmp_path / "cache").glob("*-pictures"))) == 1


def test_the_data_set_equals_the_written_faces_loaded_as_celeba_except_for_jpeg_loss(tmp_path: Path) -> None:
    write_faces(tmp_path / "root", 60)
    written, direct = (data.load(name, tmp_path / "root", tmp_path / "cache") for name in ("celeba", "faces"))
    for ours, theirs in zip(everything(direct), everything(written), strict=True):
        difference = (ours.float() - theirs.float()).abs()
        assert difference.mean() < 3 if ours.ndim == 4 else not difference.any()


def test_the_fingerprint_depends_on_seed_and_count(tmp_path: Path) -> None:
    marks = {
        describe("faces", separate=False, seed=seed, count=count).digest(tmp_path)
        for seed, count in ((SEED, 60), (SEED + 1, 60), (SEED, 61))
    }
    assert len(marks) == 3


def test_the_default_is_10_000_training_faces_and_the_papers_settings(tmp_path: Path) -> None:
    for source in (FACES, FACES19):
        assert source.examples(tmp_path) == 10_000
        assert (source.defaults.latents, source.defaults.learning_rate) == (100, 1e-4)
    assert (FACES.defaults.k, FACES19.defaults.k) == (0, 1)
    np.testing.assert_array_equal(np.bincount(faces.partitions(faces.COUNT)), [10_000, 1_000, 1_000])


def test_the_drawn_attributes_are_unchanged_since_version_1() -> None:
    values = np.stack(list(columns(draws(SEED, 0, 64)).values()))
    assert faces.VERSION == 1
    assert hashlib.sha256(values.tobytes()).hexdigest() == VERSION_1, "stored values changed: raise version"
