"""Two files outside the package give a table, a likelihood, a search and MLflow pages on a user's own data and loss."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.main import BAD_INPUT
from tests.pipelines_run import run
from tests.plugin_files import changed
from tests.sweeping import ROOT, Ended, Place, mlflow_differs, place

EXAMPLES = ROOT / "docs" / "examples"
PLUGIN, TABLE = EXAMPLES / "my_vectors.py", EXAMPLES / "my_vectors_table.py"
EPOCHS = 4


def test_the_two_files_have_fewer_than_120_lines_in_all() -> None:
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (PLUGIN, TABLE)) < 120


def test_the_page_shows_both_files() -> None:
    page = (ROOT / "docs" / "extend" / "measure.md").read_text(encoding="utf-8")
    for path in (PLUGIN, TABLE):
        assert f"```python\n{path.read_text(encoding='utf-8')}```\n" in page


@pytest.mark.usefixtures("no_cluster")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'likelihood="gaussian", scale=None',
            'likelihood="bernoulli"',
            "first: likelihood 'bernoulli' does not fit kind vector: choose gaussian or laplace",
        ),
        ("scale=0.1", "scale=0.0", "second: scale = 0: give a positive number, or None to learn it"),
        (
            "view.astype(np.float32)",
            "np.full_like(view, np.nan).astype(np.float32)",
            "train, first: example 0 has nan or inf: replace the value or drop the example",
        ),
        (
            'Kind.VECTOR, (6,), likelihood="laplace", scale=0.1',
            'Kind.IMAGE, (1, 40, 44), likelihood="laplace", network="dcgan"',
            "second: image network 'dcgan' does not fit images of 40 by 44: use mlp",
        ),
    ],
    ids=["likelihood", "scale", "nan", "network"],
)
def test_bad_data_are_refused_in_one_line_before_anything_starts(
    old: str, new: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = changed(tmp_path, PLUGIN, (old, new))
    folders = ("--storage", str(tmp_path / "storage"), "--cache", str(tmp_path / "cache"))
    code = run("train", "--plugins", str(path), "--dataset", "my_vectors", "--arms", "mopoe", *folders)
    assert code == BAD_INPUT
    (said,) = capfd.readouterr().err.splitlines()
    assert message in said
    assert not (tmp_path / "storage").exists()


def launched(here: Place, file: str, *arguments: str) -> Ended:
    """Runs a pipeline with the plug-in to its end."""
    given = ("--plugins", str(PLUGIN), "--epochs", str(EPOCHS), *arguments)
    return here.launch([sys.executable, file, *here.command()[2:], *given]).ended()


@pytest.fixture(scope="module")
def ran() -> Iterator[tuple[Place, Ended, Ended]]:
    """The table, then a search in the same storage."""
    with place(begun=True) as here:
        table = launched(here, str(TABLE))
        search = ("--dataset", "my_vectors", "--arms", "closer", "--vary", "pull", "--trials", "3", "--no-prune")
        yield here, table, launched(here, str(ROOT / "pipelines" / "search.py"), *search)


@pytest.mark.slow
def test_the_table_has_the_likelihood_and_the_own_measure_as_columns(ran: tuple[Place, Ended, Ended]) -> None:
    here, table, _ = ran
    assert (table.code, table.err) == (0, "")
    said = " ".join(table.out.split())
    assert "log_joint distance" in said and "MVTCAE, closer ours -" in said
    metrics: dict[str, dict[str, float]] = {}
    for result in here.store.results:
        metrics.setdefault(result.key, {}).update(result.metrics)
    assert len(metrics) >= 2
    both = [found for found in metrics.values() if "test/distance" in found]
    assert len(both) == 2 and all(-60 < found["test/log_joint"] < 60 for found in both)


@pytest.mark.slow
def test_the_search_minimises_the_own_measure_over_the_own_hyperparameter(ran: tuple[Place, Ended, Ended]) -> None:
    here, _, search = ran
    assert (search.code, search.err) == (0, "")
    assert "validation/distance" in search.out
    tried: dict[float, float] = {}
    for result in here.store.results:
        if result.trial["model"] == "closer":
            own: Any = dict(result.trial["own"])
            tried[own["pull"]] = result.history[-1]["metrics"]["validation/distance"]
    assert len(tried) == 3 and 0.1 in tried
    best = min(tried, key=lambda pull: tried[pull])
    assert f"pull={best:g}" in search.out.replace(" = ", "=")


@pytest.mark.slow
def test_mlflow_has_a_page_per_trial_with_the_own_hyperparameter_and_measure(ran: tuple[Place, Ended, Ended]) -> None:
    here, _, _ = ran
    assert mlflow_differs(here) == [] and len(here.parents()) == 2
    closer = [run for run in here.children() if run.data.params["model"] == "closer"]
    assert len({run.data.params["pull"] for run in closer}) == 3
    assert all({"validation/distance", "test/log_joint"} <= run.data.metrics.keys() for run in closer)
