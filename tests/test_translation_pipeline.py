"""The pipeline of Tables 6 to 8: its trials and its report."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvae.data import fingerprint
from mvae.evaluation.measures import COMPUTES, estimates
from mvae.measure import TRANSLATION, sentence_likelihood
from mvae.training.records import Record
from mvae.trial import Trial
from pipelines.translation import Options, sweep
from sweeps.cli.options import read
from sweeps.main import COMPLETE
from sweeps.planning.plan import plan
from sweeps.store.results import Result
from sweeps.store.store import Store
from sweeps.tracking.views import Catalogue
from sweeps.trials.messages import TRANSLATIONS, Job
from sweeps.trials.run import run as run_job
from tests.corpora import write_corpus
from tests.pipelines_run import run

SMALL = ("--epochs", "2", "--train-examples", "60", "--latents", "3", "--samples", "2", "--batch-size", "20")


def test_the_demo_needs_no_files_and_shows_all_measures_of_two_sets_of_targets() -> None:
    made = sweep(read(Options, ()))
    assert {cell.trial.dataset for cell in made.cells} == {"toy_translation"}
    assert {(cell.variant, cell.trial.targets) for cell in made.cells} == {("MVAE own", "own"), ("MVAE all", "all")}
    assert len({cell.trial.key("data") for cell in made.cells}) == 2
    assert {cell.column for cell in made.cells} == {"here-there", "there-here", "here", "there", "both"}
    assert {cell.measure for cell in made.cells} == {TRANSLATION, sentence_likelihood(20)}
    scored = {cell.metric for cell in made.cells if cell.column == "there-here"}
    kinds = ("", "_beam", "_copy", "_frequent")
    assert scored == {f"{score}{kind}/there-here" for score in ("bleu", "chrf") for kind in kinds}


def test_every_metric_shown_in_a_cell_is_computed_by_its_measure(storage: Path, cache: Path) -> None:
    made = sweep(read(Options, (*SMALL, "--targets", "all")))
    trial = made.cells[0].trial
    job = Job(
        trial.key(fingerprint("toy_translation")),
        trial,
        measures=(TRANSLATION, sentence_likelihood(2)),
        store=Store.open(storage, "main", create=True),
        cache=cache,
    )
    words: list[str] = []
    run_job(job, lambda word: words.append(word.failed))
    assert not any(words), words
    for cell in made.cells:
        result = job.store.results.read(job.key, cell.measure.token)
        assert result is not None and cell.metric in result.metrics, cell.metric
    assert "### Table 7: there given here" in (job.store.artifacts(job.key) / TRANSLATIONS).read_bytes().decode()
    assert {f"test/log_{name}" for name in ("marginal", "joint", "x2", "x2_prior")} <= estimates(trial)
    planned = plan(made.cells, job.store, fingerprint("toy_translation"))
    catalogue = Catalogue(planned, job.store, fingerprint("toy_translation"), cache)
    loaded = catalogue.load_model(catalogue.view(job.key))
    assert loaded is not None and loaded[1] is None, "no image, so no example images"


def test_a_corpus_names_its_directions_and_is_the_same_data_set_in_any_data_root(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", suffixes=("de", "cs"))
    made = sweep(read(Options, ("--corpus", str(root), "--targets", "all")))
    assert made.name == "translation-translation"
    assert {cell.column for cell in made.cells} == {"cs-de", "de-cs", "cs", "de", "both"}
    options = read(Options, ("--corpus", str(root), "--targets", "all"))
    assert (options.dataset, options.data_root) == ("translation", root), "training must read them here"
    plain = sweep(read(Options, ("--dataset", "translation", "--data-root", str(root), "--targets", "all")))
    assert [cell.trial for cell in plain.cells] == [cell.trial for cell in made.cells]


def test_a_smaller_vocabulary_makes_another_trial_and_the_paper_preset_has_three_seeds_and_1000_samples(
    tmp_path: Path,
) -> None:
    root = str(write_corpus(tmp_path / "corpus"))
    keys = {
        asked: {cell.trial.key("data") for cell in sweep(read(Options, ("--corpus", root, *asked.split()))).cells}
        for asked in ("", "--vocabulary 3", "--preset paper")
    }
    assert [len(each) for each in keys.values()] == [2, 2, 6]
    assert keys[""] < keys["--preset paper"] and not keys[""] & keys["--vocabulary 3"]


@pytest.mark.usefixtures("no_cluster")
def test_a_plan_states_the_skipped_pairs_and_the_share_of_unknown_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = [("the cat " * 36, "mio"), ("the unseen cat", "mio vid")]
    corpus = write_corpus(tmp_path / "corpus", test=test)
    folders = ("--storage", str(tmp_path / "new"), "--cache", str(tmp_path / "cache"), "--corpus", str(corpus))
    assert run("translation", *folders, "--targets", "all", "--plan") == COMPLETE
    said = "translation: test has 1 pair, 1 left out because a sentence has more than 70 words; "
    assert f"{said}share of <unk>: xx 33.3%, yy 0.0%" in capsys.readouterr().out


@pytest.mark.usefixtures("no_cluster")
def test_the_report_has_likelihoods_next_to_the_unigram_models_active_latents_and_padding(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--storage", str(storage), "--targets", "all")
    whole, store = sweep(read(Options, asked)), Store.open(storage, "main", create=True)
    results: dict[tuple[str, str], tuple[Trial, dict[str, float]]] = {}
    for number, cell in enumerate(whole.cells):
        key = cell.trial.key(fingerprint("toy_translation"))
        results.setdefault((key, cell.measure.token), (cell.trial, {}))[1][cell.metric] = number / 100
    history = [Record(epoch=1, time=0.0, metrics={"train/padding_share": 0.0567})]
    for (key, measure), (trial, metrics) in results.items():
        store.results.write(Result(key, measure, trial.model_dump(), metrics, {}, history))
    (store.artifacts(key) / TRANSLATIONS).write_bytes(b"### Table 6\n")
    assert run("translation", *asked, "--report") == COMPLETE
    printed = " ".join(capsys.readouterr().out.split())
    numbers = {(cell.row, cell.column): number / 100 for number, cell in enumerate(whole.cells)}
    ours, unigram = numbers["MVAE log p per token", "here"], numbers["MVAE unigram log p per token", "here"]
    assert f"MVAE seed 0: log p per token in nats, 20 samples: here {ours:.3f} (unigram {unigram:.3f})" in printed
    known, share = numbers["MVAE log p per known token", "here"], numbers["MVAE share of <unk>", "here"]
    without = numbers["MVAE unigram log p per known token", "here"]
    assert f"here {known:.3f} (unigram {without:.3f}, {share:.1%} of the words are <unk>)" in printed
    assert "toy_translation: test has 100 pairs, 0 left out because a sentence has more than 70 words;" in printed
    active, kl = numbers["MVAE active units", "both"], numbers["MVAE KL per token", "both"]
    assert f"both {active:.0%}, {kl:.2f}" in printed
    assert "difference from" not in printed, "quantities are compared between models alone"
    assert "MVAE seed 0: 5.7% of the tokens of the last epoch were padding." in printed
    tables = (store.reports / whole.name / TRANSLATIONS).read_bytes().decode()
    assert tables.startswith(f"## MVAE seed 0 ({key})\n\n### Table 6")


def test_the_translation_measure_has_the_computed_version() -> None:
    assert (TRANSLATION.name, TRANSLATION.version) in COMPUTES and TRANSLATION.token == "translation-v1"
