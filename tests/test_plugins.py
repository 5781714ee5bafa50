"""Plug-ins: the examples of docs/extend, and how plug-ins enter keys, converted data and results."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from docs.examples import my_table
from mvae import data, models, plugins
from mvae.measure import ACCURACY
from mvae.trial import Trial
from sweeps.cli.options import read
from sweeps.planning.plan import plan
from sweeps.store.store import Store
from sweeps.tracking.views import Catalogue
from sweeps.trials.messages import Job
from sweeps.trials.run import run
from tests.plugin_files import EXAMPLES, IMAGES, MEAN, TABLE, changed, load, root
from tests.sweeping import ROOT

__all__ = ["root"]

PAGES = {IMAGES: "data-set.md", MEAN: "arm.md", TABLE: "table.md"}


# The examples


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_each_example_is_one_file_of_less_than_60_lines_outside_the_package(path: Path) -> None:
    assert path.parent.name not in ("mvae", "sweeps", "pipelines")
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_each_examples_page_shows_the_file_that_the_tests_run(path: Path) -> None:
    page = (ROOT / "docs" / "extend" / PAGES[path]).read_text(encoding="utf-8")
    assert f"```python\n{path.read_text(encoding='utf-8')}```\n" in page


def test_the_example_data_set_holds_the_contents_of_its_raw_file(root: Path, tmp_path: Path) -> None:
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


def test_the_example_arm_averages_the_experts_that_a_term_conditions_on() -> None:
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


def test_a_trial_process_does_not_need_the_plug_in_file(root: Path, tmp_path: Path) -> None:
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


def test_loading_a_plug_in_twice_has_no_effect() -> None:
    load(IMAGES, IMAGES)
    load(IMAGES)
    assert [plugin.path for plugin in plugins.loaded()] == [IMAGES]


def test_a_trial_names_exactly_the_plug_ins_it_uses() -> None:
    load(IMAGES, MEAN)
    images, mean = plugins.loaded()

    def made_by(dataset: str, model: str) -> set[str]:
        return set(plugins.made_by(Trial.create(dataset=dataset, model=model)).values())

    assert made_by("digits", "nn") == set()
    assert made_by("my_images", "nn") == {images.digest}
    assert made_by("digits", "mvae_mean") == {mean.digest}
    assert made_by("my_images", "mvae_mean") == {images.digest, mean.digest}


def test_an_arms_version_enters_its_keys_from_version_2_on(tmp_path: Path) -> None:
    def key(*replacements: tuple[str, str]) -> str:
        plugins.forget()
        load(changed(tmp_path, MEAN, *replacements))
        return Trial.create(dataset="digits", model="mvae_mean").key("data")

    first = key()
    assert key(("        version=1,", "        ")) == first
    assert key(("version=1", "version=2")) != first


def test_data_converted_by_a_changed_plug_in_are_not_reused(root: Path, tmp_path: Path) -> None:
    def first_image(*replacements: tuple[str, str]) -> tuple[str, int]:
        plugins.forget()
        load(changed(tmp_path, IMAGES, *replacements))
        found = data.load("my_images", root, tmp_path / "cache")
        return found.fingerprint, int(found.train.values[0][0].sum())

    before = first_image()
    mark, total = first_image(("[:, None], file", "[:, None] // 2, file"))
    assert mark == before[0], "the fingerprint has only the author's content, split rule and version"
    assert 0 < total < before[1], "but training uses the data that the file makes now"
    assert first_image(("version=1", "version=2"))[0] != mark


def test_results_of_a_changed_plug_in_are_kept_and_reported(root: Path, tmp_path: Path) -> None:
    store, cache = Store.open(tmp_path / "storage", "main", create=True), tmp_path / "cache"
    asked = ("--dataset", "my_images", "--arms", "nn", "--sizes", "100", "--seeds", "0", "--epochs", "1")

    def told(*replacements: tuple[str, str]) -> tuple[int, str]:
        plugins.forget()
        load(changed(tmp_path, IMAGES, *replacements))
        mark = data.fingerprint("my_images", root)
        planned = plan(tuple(my_table.cells(read(my_table.Options, asked))), store, mark)
        for one in planned.todo:
            run(Job(one.key, one.trial, one.missing, store, root, cache), lambda _: None)
        return len(planned.todo), Catalogue(planned, store, mark).made_by_others()

    assert told() == (1, "")
    assert told() == (0, "")
    ran, line = told(("Returns one uint8 array", "Returns a uint8 array"))
    assert ran == 0
    assert line.startswith("Warning: 1 trial ran with another version of my_images.py; the results are kept. To")
    assert told(("Returns one uint8 array", "Returns a uint8 array"), ("version=1", "version=2")) == (1, "")
