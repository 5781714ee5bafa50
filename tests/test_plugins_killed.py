"""A user's own table with plug-ins, killed and resumed, equals an unbroken table."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from docs.examples import my_table
from mvae import data, plugins
from mvae.measure import ACCURACY
from sweeps.cli.options import read
from sweeps.store.store import Store
from sweeps.trials.messages import Job
from sweeps.trials.run import run
from tests.crashes import on_disk
from tests.plugin_files import IMAGES, MEAN, TABLE, changed, write_images, written
from tests.processes import kill
from tests.sweeping import ONE_AT_A_TIME, ROOT, mlflow_differs, place

GRID = ("--dataset", "my_images", "--arms", "nn,mvae_mean", "--sizes", "300", "--seeds", "0", "--epochs", "40")

LOADS = """
import sys
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
print(type(mlflow.pytorch.load_model(sys.argv[2])).__name__)
"""
"""Loads a model in a process that knows nothing of plug-ins."""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_table_with_plug_ins_resumes_like_any_other(tmp_path: Path) -> None:
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
            path.unlink()  # new processes get the content from the driver
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
