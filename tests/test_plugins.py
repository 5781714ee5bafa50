"""Data sets, arms and tables from outside the package: the examples of docs/extend, and all that can be wrong with such
a file."""

from __future__ import annotations

import csv
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from docs.examples import my_table
from mvae import data, models, plugins
from mvae.data import Defaults, Kind, Modality
from mvae.data.checks import check_arrays, check_source
from mvae.measure import ACCURACY
from mvae.models.arm import IDENTITY, check_arm
from mvae.refusal import Refusal
from mvae.trial import Trial
from pipelines.weak_supervision import Options, sweep
from sweeps.cli.options import parse, read
from sweeps.main import BAD_INPUT, main
from sweeps.planning.plan import plan
from sweeps.store.store import Store
from sweeps.tracking.views import Catalogue
from sweeps.trials.run import Job, run
from tests.crashes import on_disk
from tests.sweeping import ONE_AT_A_TIME, ROOT, kill, mlflow_differs, place

EXAMPLES = ROOT / "docs" / "examples"
IMAGES, MEAN, TABLE = (EXAMPLES / name for name in ("my_images.py", "mvae_mean.py", "my_table.py"))
PAGES = {IMAGES: "data-set.md", MEAN: "arm.md", TABLE: "table.md"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with the raw file of the example."""
    return write_images(tmp_path / "raw")


def write_images(folder: Path) -> Path:
    """As docs/extend/data-set.md makes it."""
    folder.mkdir()
    digits = load_digits()
    np.savez(folder / "my_images.npz", images=digits.images * 15, labels=digits.target)
    return folder


def load(*paths: Path) -> None:
    plugins.load(plugins.read(paths))


def written(folder: Path, text: str, name: str = "own.py") -> Path:
    """A plug-in of the test's."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def changed(folder: Path, example: Path, *replacements: tuple[str, str]) -> Path:
    """An example with some of its text replaced."""
    text = example.read_text(encoding="utf-8")
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    return written(folder, text, example.name)


# The examples


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_an_example_is_one_file_of_less_than_60_lines_outside_the_package(path: Path) -> None:
    assert path.parent.name not in ("mvae", "sweeps", "pipelines")
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_page_on_an_example_shows_the_file_that_the_tests_run(path: Path) -> None:
    page = (ROOT / "docs" / "extend" / PAGES[path]).read_text(encoding="utf-8")
    assert f"```python\n{path.read_text(encoding='utf-8')}```\n" in page


def test_the_examples_data_set_holds_what_its_raw_file_holds(root: Path, tmp_path: Path) -> None:
    load(IMAGES)
    found = data.load("my_images", root, tmp_path / "cache")
    splits = (found.train, found.validation, found.test)
    assert [len(split) for split in splits] == [1200, 297, 300]
    raw = np.load(root / "my_images.npz")
    images = np.concatenate([split.values[0].numpy()[:, 0] for split in splits])
    labels = np.concatenate([split.values[1].numpy() for split in splits])
    ours = sorted((label, image.tobytes()) for label, image in zip(labels, images, strict=True))
    theirs = zip(raw["labels"].astype(np.uint8), raw["images"].astype(np.uint8), strict=True)
    assert ours == sorted((label, image.tobytes()) for label, image in theirs)


def test_the_examples_arm_averages_the_experts_that_a_term_conditions_on() -> None:
    load(MEAN)
    trial = Trial.create(dataset="digits", model="mvae_mean", epochs=1)
    model = models.arm("mvae_mean").build(trial, data.source("digits").modalities)
    mean, log_var = torch.randn(3, 2, 5), torch.randn(3, 2, 5)
    members = torch.tensor([[True, True], [True, False], [False, False]]).expand(3, 3, 2)
    q = model.posterior(mean, log_var, members)  # type: ignore[operator]
    for term, chosen in enumerate([[0, 1], [0]]):
        torch.testing.assert_close(q.mean[:, term], mean[:, chosen].mean(1))
        torch.testing.assert_close(q.log_var[:, term], log_var[:, chosen].mean(1))
    assert torch.equal(q.mean[:, 2], torch.zeros(3, 5)) and torch.equal(q.log_var[:, 2], torch.zeros(3, 5))


def test_the_inverted_product_weights_means_by_variance_with_and_without_the_prior() -> None:
    load(EXAMPLES / "mvae_inverted.py")
    modalities = data.source("digits").modalities
    mean, log_var = torch.randn(3, 2, 5), torch.randn(3, 2, 5)
    members = torch.tensor([[True, True], [True, False], [False, False]]).expand(3, 3, 2)
    for token, prior in (("mvae_inverted", 1.0), ("mvae_inverted_q", 0.0)):
        trial = Trial.create(dataset="digits", model=token, epochs=1)
        q = models.arm(token).build(trial, modalities).posterior(mean, log_var, members)  # type: ignore[operator]
        for term, chosen in enumerate([[0, 1], [0]]):
            variances = log_var[:, chosen].exp()
            weighted = (mean[:, chosen] * variances).sum(1) / (variances.sum(1) + prior)
            torch.testing.assert_close(q.mean[:, term], weighted)
            torch.testing.assert_close(q.log_var[:, term], -torch.log((1 / variances).sum(1) + prior))
        assert torch.equal(q.mean[:, 2], torch.zeros(3, 5)) and torch.equal(q.log_var[:, 2], torch.zeros(3, 5))


# A trial process


def test_a_trial_process_needs_no_file_of_a_plug_in(root: Path, tmp_path: Path) -> None:
    load(changed(tmp_path, IMAGES), changed(tmp_path, MEAN))
    store, cache = Store.open(tmp_path / "storage", "main", create=True), tmp_path / "cache"
    trial = Trial.create(dataset="my_images", model="mvae_mean", epochs=1)
    job = Job(trial.key(data.fingerprint("my_images", root)), trial, (ACCURACY,), store, root, cache)
    sent, digests = pickle.dumps(job), {plugin.path.name: plugin.digest for plugin in plugins.loaded()}

    plugins.forget()
    for path in (IMAGES, MEAN):
        (tmp_path / path.name).unlink()
    run(pickle.loads(sent), lambda _: None)
    (result,) = store.results
    assert result.provenance["plugins"] == result.provenance["attempts"][0]["plugins"] == digests


# Keys and data


def test_a_plug_in_that_is_loaded_twice_is_one() -> None:
    load(IMAGES, IMAGES)
    load(IMAGES)
    assert [plugin.path for plugin in plugins.loaded()] == [IMAGES]


def test_a_trial_names_the_plug_ins_that_it_comes_from_and_no_others() -> None:
    load(IMAGES, MEAN)
    images, mean = plugins.loaded()

    def made_by(dataset: str, model: str) -> set[str]:
        return set(plugins.made_by(Trial.create(dataset=dataset, model=model)).values())

    assert made_by("digits", "nn") == set()
    assert made_by("my_images", "nn") == {images.digest}
    assert made_by("digits", "mvae_mean") == {mean.digest}
    assert made_by("my_images", "mvae_mean") == {images.digest, mean.digest}


def test_an_arms_version_is_in_its_keys_from_2_on(tmp_path: Path) -> None:
    def key(*replacements: tuple[str, str]) -> str:
        plugins.forget()
        load(changed(tmp_path, MEAN, *replacements))
        return Trial.create(dataset="digits", model="mvae_mean").key("data")

    first = key()
    assert key(("        version=1,", "        ")) == first
    assert key(("version=1", "version=2")) != first


def test_what_another_state_of_a_plug_in_converted_is_not_taken_for_its_own(root: Path, tmp_path: Path) -> None:
    def first_image(*replacements: tuple[str, str]) -> tuple[str, int]:
        plugins.forget()
        load(changed(tmp_path, IMAGES, *replacements))
        found = data.load("my_images", root, tmp_path / "cache")
        return found.fingerprint, int(found.train.values[0][0].sum())

    before = first_image()
    mark, total = first_image(("[:, None], file", "[:, None] // 2, file"))
    assert mark == before[0], "the fingerprint says what the author says: content, split rule, version"
    assert 0 < total < before[1], "but what is trained on is what the file now makes"
    assert first_image(("version=1", "version=2"))[0] != mark


# Bad input

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
        ("raise SystemExit(3)\n", ", line 1: it ends the process: a plug-in adds data sets and arms, a pipeline of"),
        ("x = 1\n", ": it adds no data set and no arm: call mvae.data.add(Source(...)) or mvae.models.add(...)"),
        ("import mvae.data\nmvae.data.add({})\n", ", line 2: mvae.data.add takes a Source, not dict"),
        (
            "import mvae.models\nmvae.models.add(1)\n",
            ", line 2: mvae.models.add takes an Arm, not int",
        ),
        (
            "import mvae.data\nmvae.data.add(mvae.data.source('digits'))\n",
            ", line 2: there is a data set 'digits' already: choose another name",
        ),
        (AN_ARM.format("title='mine'"), ", line 5: there is an arm 'nn' already: choose another token"),
        (AN_ARM.format("token='my arm'"), ": arm 'my arm': its token is of letters, digits, '_', '.' and '-'"),
        ("\0", ": SyntaxError: source code string cannot contain null bytes"),
    ],
    ids=lambda value: value.split(":")[0][-30:],
)
def test_a_plug_in_that_cannot_be_taken_is_one_line_and_leaves_nothing_behind(
    text: str, line: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    known = dict(data.DATASETS), dict(models.ARMS), set(sys.modules)
    path = written(tmp_path, text)
    with pytest.raises(SystemExit) as end:
        parse(Options, ["--plugins", str(path)])
    assert end.value.code == BAD_INPUT
    (said,) = capfd.readouterr().err.splitlines()
    assert f"{path}{line}" in said
    assert known[:2] == (data.DATASETS, models.ARMS)
    assert not [name for name in sys.modules.keys() - known[2] if name.startswith("mvae_plugin")]


def test_a_plug_in_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=rf"^--plugins nowhere.py: there is no file {Path.cwd()}/nowhere.py; write"):
        read(Options, ["--plugins", "nowhere.py"])


def test_without_its_plug_in_a_data_set_does_not_exist(capfd: pytest.CaptureFixture[str]) -> None:
    options = read(Options, ["--dataset", "my_images"])
    assert main(lambda: sweep(options), options) == BAD_INPUT
    assert "there is no data set 'my_images': choose one of digits," in capfd.readouterr().err


@pytest.mark.usefixtures("no_cluster")
@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ('file["images"]', 'file["pictures"]', ", line 33: KeyError: 'pictures is not a file in the archive'"),
        ('file["images"]', 'file["images"] + np.zeros(3)', ", line 33: ValueError: operands could not be broadcast"),
        (
            ".astype(np.uint8)[:, None]",
            "[:, None]",
            "of data set my_images, train, image: values are stored as",
        ),
        ("[:, None]", "", "train, image: an example is shaped (1, 8, 8), not (8, 8)"),
        ('file["labels"]', '(file["labels"] + 1)', "label: values go from 0 to 9, and one is 10"),
        ('"test": 300', '"tests": 300', "gives train, validation, tests, not train, validation, test"),
        (
            'lambda _root: SIZES["train"]',
            "lambda _root: 1300",
            "1,200 training examples, and examples says 1,300",
        ),
        (".hexdigest()", ".digest()", "data set my_images: digest gives a text (hexdigest), not bytes"),
        (
            "return root / ",
            "return root / 'x' / ",
            "x/my_images.npz is missing: name its folder by --data-root",
        ),
        ('"my_images.npz"', '"other.npz"', "/other.npz is missing: name its folder by --data-root"),
    ],
    ids=lambda value: value[:20],
)
def test_a_mistake_in_a_data_set_is_one_line_before_anything_starts(
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
    """A view of another width than its image."""
    return image[..., : image.shape[-1] // 2]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"name": "my images"}, "data set 'my images': name it with letters, digits, '_', '.' and '-'"),
        ({"modalities": ()}, "its modalities are an image and then at least one more, not none"),
        ({"modalities": (IMAGE,)}, "its modalities are an image and then at least one more, not image"),
        ({"modalities": (LABEL, IMAGE)}, "an image and then at least one more, not label, image"),
        ({"modalities": (IMAGE, LABEL, LABEL)}, "two modalities have one name"),
        ({"modalities": (IMAGE, SINGLE, LABEL)}, "single attributes come last"),
        ({"modalities": (IMAGE, replace(LABEL, classes=257))}, "label: classes = 257 is not from 2 to 256"),
        ({"modalities": (IMAGE, replace(LABEL, shape=(1,)))}, "an example of kind label is (), not (1,)"),
        ({"modalities": (IMAGE, replace(SINGLE, classes=3))}, "an attribute has classes = 2, not 3"),
        ({"defaults": Defaults(8, 1, "dcgan", ("mlp", "dcgan"))}, "'dcgan' does not fit images of 8 by 8, which can"),
        (
            {"modalities": (SQUARE, replace(SQUARE, name="second", shape=(3, 32, 32))), "defaults": DCGAN},
            "digits, second: image network 'dcgan' does not fit images of 32 by 32, which can have mlp",
        ),
        (
            {
                "modalities": (SQUARE, replace(SQUARE, name="half", shape=(3, 32, 32), view=left_half)),
                "defaults": DCGAN,
            },
            "digits, half: image network 'dcgan' does not fit images of 32 by 32, which can have mlp",
        ),
        (
            {"modalities": (IMAGE, replace(IMAGE, name="second", shape=(0, 8, 8)))},
            "is (channels, height, width), not (0",
        ),
        ({"modalities": (replace(IMAGE, view=left_half), LABEL)}, "image: the first modality is stored, and no view"),
        (
            {"modalities": (IMAGE, replace(LABEL, view=left_half))},
            "label: a view makes images, not values of kind label",
        ),
        (
            {"modalities": (IMAGE, Modality("traits", Kind.ATTRIBUTES, (3,), attributes=("round", "red")))},
            "traits: 2 names of attributes for a shape of (3,)",
        ),
        (
            {"modalities": (replace(IMAGE, shape=(1, 9, 9)), LABEL), "grey": "digits"},
            "bits are drawn from grey values 16 at a time, and an image has 81: leave grey out",
        ),
        ({"defaults": Defaults(8, 1, "mlp", ())}, "the default image network 'mlp' is not among image_networks"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_data_set_that_the_code_could_not_work_with_is_refused(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(Refusal) as refusal:
        check_source(replace(data.source("digits"), **fields))
    assert line in str(refusal.value)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"token": "my arm"}, "arm 'my arm': its token is of letters, digits"),
        ({"reads": models.arm("nn").reads | {"dropout"}}, "arm nn reads dropout, which is no field of a trial"),
        (
            {"reads": IDENTITY},
            "arm nn must read batch_size: begin its reads with IDENTITY | OPTIMISED, as every",
        ),
        ({"measures": frozenset({"beauty"})}, "measure beauty: choose among accuracy, attributes, likelihood, readout"),
        ({"version": 0}, "arm nn: version = 0 is not from 1 on"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_an_arm_that_the_code_could_not_work_with_is_refused(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(Refusal) as refusal:
        check_arm(replace(models.arm("nn"), **fields))
    assert line in str(refusal.value)


def test_a_view_that_makes_images_of_another_shape_is_refused_when_the_data_are_converted() -> None:
    found = replace(data.source("digits"), modalities=(IMAGE, replace(IMAGE, name="half", view=left_half)))
    check_source(found)
    images = np.zeros((5, 1, 8, 8), np.uint8)
    with pytest.raises(Refusal, match=r"digits, half: its view makes images shaped \(1, 8, 4\), not \(1, 8, 8\)$"):
        check_arrays(found, {"train": (images,), "validation": (images,), "test": (images,)}, 5)


@pytest.mark.usefixtures("no_cluster")
def test_a_second_image_that_no_network_fits_is_one_line_before_anything_starts(
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
    assert "my_images, second: image network 'dcgan' does not fit images of 32 by 32, which can have mlp" in said
    assert not (tmp_path / "storage").exists()


def test_the_packages_own_data_sets_and_arms_would_be_taken() -> None:
    for known in data.DATASETS.values():
        check_source(known)
    for own in models.ARMS.values():
        check_arm(own)


def test_an_arm_that_looks_at_a_field_which_it_does_not_read_is_stopped(tmp_path: Path) -> None:
    load(changed(tmp_path, MEAN, ("reads=MVAE_ARM.reads,", 'reads=MVAE_ARM.reads - {"latents"},')))
    trial = Trial.create(dataset="digits", model="mvae_mean")
    with pytest.raises(AttributeError, match=r"^arm mvae_mean looks at trial.latents, which is not among its reads"):
        models.arm("mvae_mean").build(trial, data.source("digits").modalities)


# A table, killed and resumed

GRID = ("--dataset", "my_images", "--arms", "nn,mvae_mean", "--sizes", "300", "--seeds", "0", "--epochs", "40")

LOADS = """
import sys
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
print(type(mlflow.pytorch.load_model(sys.argv[2])).__name__)
"""
"""Loads a model as someone does who never heard of plug-ins."""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_table_of_ones_own_over_plug_ins_is_killed_and_resumed_like_every_other(tmp_path: Path) -> None:
    with place(begun=True) as here:
        write_images(here.root / "raw")
        files = [changed(here.root, path) for path in (IMAGES, MEAN)]
        given = (
            *(*GRID, "--plugins", ",".join(map(str, files)), "--data-root", str(here.root / "raw")),
            *("--storage", str(here.storage), "--cache", str(here.cache), "--checkpoint-every", "0"),
            *ONE_AT_A_TIME,
        )
        options = read(my_table.Options, given)
        cells = list(my_table.cells(options))
        keys = [cell.trial.key(data.fingerprint("my_images", here.root / "raw")) for cell in cells]
        command = [sys.executable, str(written(here.root, TABLE.read_text(encoding="utf-8"), TABLE.name)), *given]

        driver = here.launch(command)
        driver.until(lambda: here.epochs().get(keys[1], 0) >= 2, "the arm's second epoch")
        texts = [path.read_text(encoding="utf-8") for path in files]
        for path in files:
            path.unlink()  # whoever starts now has what the driver sent, and nothing else
        for process in driver.trial_processes():
            kill(process)
        reached = here.epochs()[keys[1]]
        driver.until(lambda: here.epochs()[keys[1]] > reached, "an epoch in another process")
        driver.kill()
        assert keys[1] not in here.results()

        for path, text in zip(files, texts, strict=True):
            path.write_text(text, encoding="utf-8")
        ended = here.launch(command).ended()
        assert (ended.code, ended.err) == (0, "")
        said = " ".join(ended.out.split())
        assert "MVAE mean ours 0." in said
        assert "half done" in said

        alone = Store.open(tmp_path / "alone", "main", create=True)
        for key, cell in zip(keys, cells, strict=True):
            run(Job(key, cell.trial, (ACCURACY,), alone, here.root / "raw", here.cache), lambda _: None)
        unbroken = {result.key: (result.metrics, [r["metrics"] for r in result.history]) for result in alone.results}
        assert unbroken == {
            key: (result.metrics, [record["metrics"] for record in result.history])
            for key, result in here.results().items()
        }

        assert mlflow_differs(here) == []
        digests = {plugin.path.name: plugin.digest for plugin in plugins.loaded()}
        by_arm = {run.data.params["model"]: run for run in here.children()}
        assert json.loads(by_arm["mvae_mean"].data.tags["mvae.plugins"]) == digests
        assert json.loads(by_arm["nn"].data.tags["mvae.plugins"]) == {IMAGES.name: digests[IMAGES.name]}
        with on_disk(here.store.reports / "my_table-my_images" / "table.csv").open(encoding="utf-8") as table:
            shown = {line["row"]: float(line["mean"]) for line in csv.DictReader(table)}
        accuracies = [here.results()[key].metrics["test/accuracy"] for key in keys]
        assert shown == dict(zip(("NN", "MVAE mean"), accuracies, strict=True))
        for path, text in zip(files, texts, strict=True):
            assert on_disk(here.store.plugin(path.name, digests[path.name])).read_text(encoding="utf-8") == text
        loads = [sys.executable, "-c", LOADS, here.uri, by_arm["mvae_mean"].data.tags["mvae.logged_model"]]
        loaded = subprocess.run(loads, capture_output=True, encoding="utf-8", cwd=ROOT)
        assert loaded.stdout == "MeanOfExperts\n", loaded.stderr


def test_what_another_state_of_a_plug_in_gave_stands_and_is_told_of(root: Path, tmp_path: Path) -> None:
    store, cache = Store.open(tmp_path / "storage", "main", create=True), tmp_path / "cache"
    asked = ("--dataset", "my_images", "--arms", "nn", "--sizes", "100", "--seeds", "0", "--epochs", "1")

    def told(*replacements: tuple[str, str]) -> tuple[int, str]:
        plugins.forget()
        load(changed(tmp_path, IMAGES, *replacements))
        mark = data.fingerprint("my_images", root)
        planned = plan(tuple(my_table.cells(read(my_table.Options, asked))), store, mark)
        for key, trial, measures in planned.todo:
            run(Job(key, trial, measures, store, root, cache), lambda _: None)
        return len(planned.todo), Catalogue(planned, store, mark).made_by_others()

    assert told() == (1, "")
    assert told() == (0, "")
    ran, line = told(("Returns one array", "Returns an array"))
    assert ran == 0
    assert line.startswith("Warning: 1 trial ran with another my_images.py than today's, and what it gave stands. To")
    assert told(("Returns one array", "Returns an array"), ("version=1", "version=2")) == (1, "")
