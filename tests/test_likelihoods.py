"""The pipeline of Tables 1 and 2: its cells, and keys that have several measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mvae.data import DATASETS, fingerprint
from mvae.data.faces.celeba import CELEBA, CELEBA19
from mvae.data.faces.faces import describe
from mvae.measure import ACCURACY, likelihood
from mvae.storage.objects import place
from mvae.trial import Trial
from pipelines.likelihoods import ARMS, Options, cells, sweep
from sweeps import engine
from sweeps.cli.options import read
from sweeps.main import COMPLETE, main
from sweeps.planning.plan import Cell, plan
from sweeps.store.results import Result
from sweeps.store.store import Store
from sweeps.table.files import markdown, tabulate
from sweeps.table.protocol import protocol_lines
from sweeps.table.published_likelihoods import PUBLISHED, PUBLISHED_QUANTITIES, likelihood_table
from sweeps.tracking.views import Catalogue
from sweeps.trials import run as worker
from sweeps.trials.messages import Job


@pytest.fixture(autouse=True)
def _small_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers CelebA with only 48 faces."""
    small = (describe("faces", separate=False, count=48), describe("faces19", separate=True, count=48))
    for one in (CELEBA, CELEBA19, *small):
        monkeypatch.setitem(DATASETS, one.name, one)


def made(*argv: str) -> list[Cell]:
    return list(cells(read(Options, argv)))


def columns(grid: list[Cell], arm: str) -> set[str]:
    return {cell.quantity for cell in grid if cell.arm == arm}


def test_the_demo_trains_and_measures_each_of_five_arms_on_digits_once() -> None:
    grid = made()
    assert tuple(dict.fromkeys(cell.arm for cell in grid)) == ARMS
    assert {cell.trial.dataset for cell in grid} == {"digits"}
    assert {cell.measure for cell in grid} == {likelihood(1000)}
    assert [cell.row for cell in grid if cell.quantity == "test/log_conditional"] == [
        *("JMVAE", "MVAE (own)", "MVAE (all)", "MVAE-Q (own)", "MVAE-Q (all)", "CVAE")
    ]
    assert len({cell.trial.key("f") for cell in grid}) == len(ARMS) + 2


def test_an_arm_has_a_column_for_each_estimate_it_supports() -> None:
    grid = made()
    for arm in ("jmvae", "mvae", "mvae_q"):
        assert {quantity.metric for quantity in PUBLISHED_QUANTITIES} < columns(grid, arm)
        assert {"test/log_marginal-x1", "test/variance_conditional-x1", "test/ess_joint", "test/log_x2"} < columns(
            grid, arm
        )
    assert columns(grid, "vae") == {"test/log_marginal-x1", "test/variance_marginal-x1", "test/ess_marginal-x1"}
    assert columns(grid, "cvae") == {"test/log_conditional", "test/variance_conditional"}


def test_the_paper_preset_has_section_1s_settings_on_each_of_its_data_sets() -> None:
    for dataset, network, latents in (
        ("binary_mnist", "mlp", 64),
        ("mnist", "mlp", 64),
        ("fashion_mnist", "dcgan", 64),
        ("multi_mnist", "dcgan", 100),
    ):
        grid = made("--preset", "paper", "--dataset", dataset)
        assert tuple(dict.fromkeys(cell.arm for cell in grid)) == ARMS
        trials = {cell.trial for cell in grid}
        assert {(t.epochs, t.image_network, t.latents, t.learning_rate, t.batch_size) for t in trials} == {
            (500, network, latents, 1e-3, 100)
        }
        assert {round(t.annealing_share * t.epochs) for t in trials} == {200}
        assert {cell.measure for cell in grid} == {likelihood(1000)}


def test_celeba_has_a_separate_row_for_the_mvae_with_single_attributes() -> None:
    grid = made("--preset", "paper", "--dataset", "celeba")
    assert list(dict.fromkeys(cell.row for cell in grid)) == [
        *("JMVAE", "MVAE (own)", "MVAE (all)", "MVAE19 (own)", "MVAE19 (all)", "VAE", "CVAE")
    ]
    trials = {cell.row: cell.trial for cell in grid}
    assert {(t.epochs, t.image_network, t.latents, t.learning_rate) for t in trials.values()} == {
        (100, "dcgan", 100, 1e-4)
    }
    assert {round(t.annealing_share * t.epochs) for t in trials.values()} == {20}
    for targets in ("own", "all"):
        apart = trials.pop(f"MVAE19 ({targets})")
        assert (apart.dataset, apart.model, apart.k, apart.targets) == ("celeba19", "mvae", 1, targets)
    assert {trial.dataset for trial in trials.values()} == {"celeba"}


def test_a_data_set_of_many_modalities_has_the_arms_that_support_them() -> None:
    assert {cell.arm for cell in made("--dataset", "celeba19")} == {"mvae", "mvae_q", "vae"}


def test_every_published_value_reaches_its_cell() -> None:
    for dataset in ("binary_mnist", "mnist", "fashion_mnist", "multi_mnist", "celeba"):
        grid = made("--preset", "paper", "--dataset", dataset, "--seeds", "0")
        reached = {(cell.arm, cell.column): cell.published for cell in grid if cell.published is not None}
        expected = {
            (arm, quantity.label): value
            for arm, values in PUBLISHED[dataset].items()
            for quantity, value in zip(PUBLISHED_QUANTITIES, values, strict=True)
        }
        assert reached == expected


def test_each_binarisation_has_its_own_row_and_trial_next_to_the_published_values() -> None:
    argv = ("--dataset", "binary_mnist", "--arms", "mvae,vae", "--seeds", "0", "--targets", "own")
    grid = made(*argv, "--binarisation", "fixed,dynamic")
    trials = {cell.row: cell.trial for cell in grid}
    assert list(trials) == ["MVAE (own)", "MVAE, dynamic (own)", "VAE", "VAE, dynamic"]
    assert [trial.binarisation for trial in trials.values()] == ["fixed", "dynamic"] * 2
    assert len({trial.key("f") for trial in trials.values()}) == 4
    assert {cell.trial for cell in made(*argv)} == {trials["MVAE (own)"], trials["VAE"]}
    assert {cell.row for cell in made(*argv, "--binarisation", "dynamic")} == {"MVAE, dynamic (own)", "VAE, dynamic"}
    published = {(cell.row, cell.column): cell.published for cell in grid}
    column = PUBLISHED_QUANTITIES[0].label
    assert (
        published["MVAE (own)", column]
        == published["MVAE, dynamic (own)", column]
        == PUBLISHED["binary_mnist"]["mvae"][0]
    )


def test_the_caption_says_how_bits_were_drawn_if_the_data_are_binary() -> None:
    def said(*argv: str) -> str:
        dataset = argv[1]
        return " ".join(
            protocol_lines(
                made(*argv, "--arms", "jmvae,mvae", "--targets", "own", "--seeds", "0"), likelihood_table(dataset)
            )
        )

    binary = ("--dataset", "binary_mnist", "--preset", "paper")
    silent = (
        "Our choices, not stated in the paper: seeds 1; targets own for MVAE (own); label weight 1; binarisation fixed."
    )
    assert silent in said(*binary)
    assert "binarisation dynamic." in said(*binary, "--binarisation", "dynamic")
    both = "binarisation fixed, but dynamic for JMVAE, dynamic and MVAE, dynamic (own)."
    assert both in said(*binary, "--binarisation", "fixed,dynamic")
    assert "binarisation" not in said("--dataset", "mnist", "--preset", "paper") + said("--dataset", "digits")


def test_the_demo_of_a_large_data_set_is_short() -> None:
    grid = made("--dataset", "binary_mnist")
    assert {(cell.trial.epochs, cell.trial.image_network) for cell in grid} == {(10, "mlp")}
    assert {cell.measure for cell in grid} == {likelihood(100)}


def test_the_report_states_our_and_the_papers_number_of_samples(tmp_path: Path) -> None:
    asked = sweep(read(Options, ("--dataset", "digits", "--samples", "50")))
    assert asked.name == "likelihoods-digits-s50"
    grid = made("--preset", "paper", "--dataset", "binary_mnist", "--samples", "50", "--seeds", "0")
    assert grid[0].published is not None
    planned = plan(grid, Store(place(tmp_path), "main"), "f")
    report = tabulate(
        planned,
        Store.open(tmp_path, "main", create=False).results,
        table=likelihood_table("binary_mnist"),
        axis="50 samples",
    )
    text = markdown(report)
    assert "50 samples" in text and "samples 50 (paper 1000)" in text
    assert "Tables 1 and 2" in text


def test_mlflow_shows_all_measures_of_a_key_and_the_likelihood_with_the_most_samples(tmp_path: Path) -> None:
    store = Store.open(tmp_path, "main", create=True)
    trial = Trial.create(dataset="digits", model="mvae")
    key = trial.key("f")
    for measure, metrics in (
        (ACCURACY, {"test/accuracy": 0.9}),
        (likelihood(1000), {"test/log_marginal": -20.0}),
        (likelihood(90), {"test/log_marginal": -21.0}),
    ):
        store.results.write(Result(key, measure.token, trial.model_dump(), metrics, {}, []))
    store.results.write(Result(key, "accuracy-v0", trial.model_dump(), {"test/accuracy": 0.1}, {}, []))
    for asked in (ACCURACY, likelihood(90), likelihood(1000)):
        cell = Cell("MVAE", 1.0, trial, asked, None, "mvae")
        view = Catalogue(plan([cell], store, "f"), store, "f").view(key)
        assert view.final == {"test/accuracy": 0.9, "test/log_marginal": -20.0}
        assert view.all_tags("s")["mvae.measures"].count("likelihood") == 2


def test_measuring_time_is_estimated_per_sample_and_separately_from_training(tmp_path: Path) -> None:
    store = Store.open(tmp_path, "main", create=True)
    done, todo = (Trial.create(dataset="digits", model="mvae", seed=seed, epochs=10) for seed in (0, 1))
    provenance = {"seconds": 20.0, "epochs": 10, "measured_in_seconds": 300.0}
    store.results.write(Result(done.key("f"), likelihood(100).token, done.model_dump(), {}, provenance, []))
    cell = Cell("MVAE", "x", todo, likelihood(200), None, "mvae")
    assert plan([cell], store, "f").estimate.seconds == pytest.approx(20.0 + 600.0)


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs trials in this process one after the other, without MLflow."""

    class Deaf:
        def __init__(self, *_: object, **__: object) -> None:
            self.start = self.update = self.update_sweep = self.close = self.give_up = lambda *_: None
            self.links = lambda _timeout: dict[str, str]()
            self.stuck, self.experiment = False, ""

    @contextmanager
    def here(*_: object) -> Iterator[engine.Capacity]:
        yield engine.Capacity(1, 0)

    def run(jobs: Sequence[Job], listener: engine.Listener, **_: Any) -> None:
        for job in jobs:
            listener.started(job.key)
            worker.run(job, lambda word, key=job.key: listener.word(key, word))  # type: ignore[misc]

    monkeypatch.setattr("sweeps.driver.Tracker", Deaf)
    monkeypatch.setattr(engine, "cluster", here)
    monkeypatch.setattr(engine, "run_jobs", run)


@pytest.mark.usefixtures("one_by_one")
def test_a_table_over_two_data_sets_is_found_complete_by_the_same_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("--dataset", "faces", "--arms", "mvae,mvae19,vae", "--epochs", "1", "--samples", "2", "--latents", "4")
    where = ("--storage", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache"), "--train-examples", "20")
    options = read(Options, (*argv, "--targets", "own", *where))
    assert main(lambda: sweep(options), options) == COMPLETE, capsys.readouterr()
    printed = capsys.readouterr().out
    assert "MVAE19 (own) seed 0" in printed and "training examples 20" in " ".join(printed.split())
    marks = {name: fingerprint(name) for name in ("faces", "faces19")}
    expected = {cell.trial.key(marks[cell.trial.dataset]) for cell in sweep(options).cells}
    assert {result.key for result in Store.open(tmp_path / "runs", "main", create=False).results} == expected and len(
        expected
    ) == 3
    assert main(lambda: sweep(options), options) == COMPLETE
    assert "3 trials, 3 done" in capsys.readouterr().out
