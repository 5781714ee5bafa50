"""Plug-ins that cannot be loaded, and invalid data sets and arms, are refused in one line."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mvae import data, models
from mvae.data import Defaults, Kind, Modality
from mvae.data.checks import check_arrays, check_source
from mvae.models.arm import IDENTITY, check_arm
from mvae.refusal import Refusal
from mvae.trial import Trial
from pipelines.weak_supervision import Options, sweep
from sweeps.cli.options import parse, read
from sweeps.main import BAD_INPUT, main
from tests.plugin_files import IMAGES, MEAN, changed, load, root, written

__all__ = ["root"]

AN_ARM = """
from dataclasses import replace
import mvae.models
from mvae.models import arm
mvae.models.add(replace(arm("nn"), {}))
"""


@pytest.mark.usefixtures("no_cluster")
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = 1\nif x\n", ", line 2: SyntaxError: expected ':'"),
        ("\nimport nowhere\n", ", line 2: ModuleNotFoundError: No module named 'nowhere'"),
        ("def f():\n    return y\n\nf()\n", ", line 2: NameError: name 'y' is not defined"),
        ("raise SystemExit(3)\n", ", line 1: exits the process: only add data sets and arms in a plug-in, and run"),
        (
            "x = 1\n",
            ": adds no data set, arm or measure: "
            "call mvae.data.add(Source(...)), mvae.models.add(Arm(...)) or mvae.measure.add(...)",
        ),
        ("import mvae.data\nmvae.data.add({})\n", ", line 2: mvae.data.add takes a Source, not dict"),
        (
            "import mvae.models\nmvae.models.add(1)\n",
            ", line 2: mvae.models.add takes an Arm, not int",
        ),
        (
            "import mvae.data\nmvae.data.add(mvae.data.source('digits'))\n",
            ", line 2: data set 'digits' already exists: choose another name",
        ),
        (AN_ARM.format("title='mine'"), ", line 5: arm 'nn' already exists: choose another token"),
        (AN_ARM.format("token='my arm'"), ": invalid arm token 'my arm': use only letters, digits, '_', '.' and '-'"),
        ("\0", ": SyntaxError: source code string cannot contain null bytes"),
    ],
    ids=lambda value: value.split(":")[0][-30:],
)
def test_an_unusable_plug_in_gives_a_one_line_error_and_leaves_nothing_behind(
    text: str, line: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    known = dict(data.DATASETS), dict(models.ARMS), set(sys.modules)
    path = written(tmp_path, text)
    with pytest.raises(SystemExit) as end:
        parse(Options, ["--plugins", str(path)])
    assert end.value.code == BAD_INPUT
    (said,) = capfd.readouterr().err.splitlines()
    assert f"{path}{line}" in said
    assert known[:2] == (dict(data.DATASETS), models.ARMS)
    assert not [name for name in sys.modules.keys() - known[2] if name.startswith("mvae_plugin")]


def test_a_missing_plug_in_gives_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=rf"^--plugins nowhere.py: file {Path.cwd()}/nowhere.py does not exist; separate"):
        read(Options, ["--plugins", "nowhere.py"])


def test_a_plug_in_data_set_is_unknown_without_its_plug_in(capfd: pytest.CaptureFixture[str]) -> None:
    options = read(Options, ["--dataset", "my_images"])
    assert main(lambda: sweep(options), options) == BAD_INPUT
    assert "unknown data set 'my_images': choose one of digits," in capfd.readouterr().err


@pytest.mark.usefixtures("no_cluster")
@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ('file["images"]', 'file["pictures"]', ", line 33: KeyError: 'pictures is not a file in the archive'"),
        ('file["images"]', 'file["images"] + np.zeros(3)', ", line 33: ValueError: operands could not be broadcast"),
        (
            ".astype(np.uint8)[:, None]",
            "[:, None]",
            "of data set my_images, train, image: return an array of uint8 (images from 0 to 255), not",
        ),
        ("[:, None]", "", "train, image: an example has shape (8, 8), not (1, 8, 8)"),
        ('file["labels"]', '(file["labels"] + 1)', "label: value 10 is too large: return values from 0 to 9"),
        ('"test": 300', '"tests": 300', "returned the splits train, validation, tests: return train, validation, test"),
        (
            'lambda _root: SIZES["train"]',
            "lambda _root: 1300",
            "1,200 training examples, but `examples` returns 1,300",
        ),
        (
            ".hexdigest()",
            ".digest()",
            "data set my_images: digest returned bytes: return a str, for example hexdigest()",
        ),
        (
            "return root / ",
            "return root / 'x' / ",
            "x/my_images.npz is missing: give its folder with --data-root",
        ),
        ('"my_images.npz"', '"other.npz"', "/other.npz is missing: give its folder with --data-root"),
    ],
    ids=lambda value: value[:20],
)
def test_a_mistake_in_a_data_set_gives_a_one_line_error_before_anything_starts(
    old: str, new: str, line: str, root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = changed(tmp_path, IMAGES, (old, new))
    folders = ("--data-root", str(root), "--storage", str(tmp_path / "storage"), "--cache", str(tmp_path / "cache"))
    options = read(Options, ["--plugins", str(path), "--dataset", "my_images", *folders])
    assert main(lambda: sweep(options), options) == BAD_INPUT
    (said,) = capfd.readouterr().err.splitlines()
    assert line in said
    assert not (tmp_path / "storage").exists()


IMAGE = Modality("image", Kind.IMAGE, (1, 8, 8))
LABEL = Modality("label", Kind.LABEL, (), classes=10)
SINGLE = Modality("round", Kind.ATTRIBUTE, (), classes=2)
SQUARE = Modality("image", Kind.IMAGE, (3, 64, 64))
DCGAN = Defaults(8, 1, "dcgan", ("dcgan",))


def left_half(image: torch.Tensor) -> torch.Tensor:
    """A view with another width than its image."""
    return image[..., : image.shape[-1] // 2]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"name": "my images"}, "invalid data set name 'my images': use letters, digits, '_', '.' and '-'"),
        ({"modalities": ()}, "digits has the modalities none: give an image or a vector first, then at least one more"),
        ({"modalities": (IMAGE,)}, "has the modalities image: give an image or a vector first, then at least one more"),
        (
            {"modalities": (LABEL, IMAGE)},
            "has the modalities label, image: give an image or a vector first, then at least one more",
        ),
        ({"modalities": (IMAGE, LABEL, LABEL)}, "two modalities have the same name; rename one"),
        ({"modalities": (IMAGE, SINGLE, LABEL)}, "put modalities of kind attribute after all others"),
        (
            {"modalities": (IMAGE, replace(LABEL, classes=1))},
            "label: classes must be from 2 to 2,147,483,648, not 1",
        ),
        ({"modalities": (IMAGE, replace(LABEL, shape=(1,)))}, "shape (1,) does not fit kind label: give ()"),
        ({"modalities": (IMAGE, replace(SINGLE, classes=3))}, "an attribute needs classes = 2, not 3"),
        ({"defaults": Defaults(8, 1, "dcgan", ("mlp", "dcgan"))}, "'dcgan' does not fit images of 8 by 8: use mlp"),
        (
            {"modalities": (SQUARE, replace(SQUARE, name="second", shape=(3, 32, 32))), "defaults": DCGAN},
            "digits, second: image network 'dcgan' does not fit images of 32 by 32: use mlp",
        ),
        (
            {
                "modalities": (SQUARE, replace(SQUARE, name="half", shape=(3, 32, 32), view=left_half)),
                "defaults": DCGAN,
            },
            "digits, half: image network 'dcgan' does not fit images of 32 by 32: use mlp",
        ),
        (
            {"modalities": (IMAGE, replace(IMAGE, name="second", shape=(0, 8, 8)))},
            "shape (0, 8, 8) does not fit kind image: give (channels, height, width), each at least 1",
        ),
        (
            {"modalities": (replace(IMAGE, view=left_half), LABEL)},
            "image: the first modality cannot be a view of another; remove `view`",
        ),
        (
            {"modalities": (IMAGE, replace(LABEL, view=left_half))},
            "label: a view makes images, so its kind cannot be label: use Kind.IMAGE",
        ),
        (
            {"modalities": (IMAGE, Modality("traits", Kind.ATTRIBUTES, (3,), attributes=("round", "red")))},
            "traits: 2 attribute names do not fit shape (3,): give one name per attribute",
        ),
        (
            {"modalities": (replace(IMAGE, shape=(1, 9, 9)), LABEL), "grey": "digits"},
            "an image has 81 grey values, but bits are drawn 16 at a time: leave out `grey`",
        ),
        (
            {"defaults": Defaults(8, 1, "mlp", ())},
            "the default image network 'mlp' is missing from image_networks: add it",
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_an_invalid_data_set_is_refused(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(Refusal) as refusal:
        check_source(replace(data.source("digits"), **fields))
    assert line in str(refusal.value)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"token": "my arm"}, "invalid arm token 'my arm': use only letters, digits"),
        ({"reads": models.arm("nn").reads | {"dropout"}}, "arm nn reads dropout, which is not a field of a trial"),
        (
            {"reads": IDENTITY},
            "arm nn must read batch_size: start its `reads` with IDENTITY | OPTIMISED, like every",
        ),
        (
            {"measures": frozenset({"beauty"})},
            "measure beauty: choose from accuracy, attributes, coherence, fid, likelihood, readout, real, transl",
        ),
        ({"version": 0}, "arm nn has version 0: set `version` to 1 or more"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_an_invalid_arm_is_refused(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(Refusal) as refusal:
        check_arm(replace(models.arm("nn"), **fields))
    assert line in str(refusal.value)


def test_a_view_of_another_shape_is_refused_when_the_data_are_converted() -> None:
    found = replace(data.source("digits"), modalities=(IMAGE, replace(IMAGE, name="half", view=left_half)))
    check_source(found)
    images = np.zeros((5, 1, 8, 8), np.uint8)
    with pytest.raises(Refusal, match=r"digits, half: its view returns images of shape \(1, 8, 4\), not \(1, 8, 8\)"):
        check_arrays(found, {"train": (images,), "validation": (images,), "test": (images,)}, 5)


@pytest.mark.usefixtures("no_cluster")
def test_a_second_image_without_a_fitting_network_is_refused_before_anything_starts(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = changed(
        tmp_path,
        IMAGES,
        ('Modality("image", Kind.IMAGE, (1, 8, 8))', 'Modality("image", Kind.IMAGE, (1, 64, 64))'),
        ('Modality("label", Kind.LABEL, (), classes=10)', 'Modality("second", Kind.IMAGE, (1, 32, 32))'),
        ('image_network="mlp", image_networks=("mlp",)', 'image_network="dcgan", image_networks=("dcgan", "mlp")'),
    )
    folders = ("--data-root", str(root), "--storage", str(tmp_path / "storage"), "--cache", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as end:
        parse(Options, ["--plugins", str(path), "--dataset", "my_images", *folders])
    assert end.value.code == BAD_INPUT
    (said,) = capfd.readouterr().err.splitlines()
    assert "my_images, second: image network 'dcgan' does not fit images of 32 by 32: use mlp" in said
    assert not (tmp_path / "storage").exists()


def test_the_packages_own_data_sets_and_arms_pass_the_plug_in_checks() -> None:
    for known in data.DATASETS.values():
        check_source(known)
    for own in models.ARMS.values():
        check_arm(own)


def test_reading_a_field_that_the_arm_does_not_declare_is_an_error(tmp_path: Path) -> None:
    load(changed(tmp_path, MEAN, ("reads=MVAE_ARM.reads,", 'reads=MVAE_ARM.reads - {"latents"},')))
    trial = Trial.create(dataset="digits", model="mvae_mean")
    with pytest.raises(AttributeError, match=r"^arm mvae_mean reads trial.latents, which is not in its `reads`"):
        models.arm("mvae_mean").build(trial, data.source("digits").modalities)
