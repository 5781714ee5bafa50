"""README.md and docs/: every measured number is filled in from committed results, and from nothing else."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from docs.report import curves
from docs.report.__main__ import documents, figures, main, refilled
from docs.report.committed import Committed, Number, each_file, identity, read, written
from docs.report.options import rows
from docs.report.pictures import NOTE, draw, drawn, stale
from docs.report.refresh import _file, measure_of, merged, numbers
from docs.report.sources import Sources, holds
from docs.report.spans import fill, outside
from mvae.data import fingerprint
from mvae.refusal import Refusal
from mvae.trial import Trial
from sweeps.table.published import TABLE_4
from sweeps.table.rounding import as_printed, shown
from tests.document_checks import REPOSITORY, inline, split, stated, typed_numbers

PAGES = [str(path.relative_to(REPOSITORY)) for path in documents(REPOSITORY)]
FILES = [path.name for path in each_file(Sources().results)]


@pytest.fixture(scope="module")
def values() -> dict[str, str]:
    return figures(Sources())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of all that `make report` reads and writes."""
    shutil.copy(REPOSITORY / "README.md", tmp_path)
    shutil.copytree(REPOSITORY / "docs", tmp_path / "docs")
    shutil.copytree(REPOSITORY / "benchmarks" / "results", tmp_path / "benchmarks" / "results")
    return tmp_path


def test_making_the_report_again_changes_nothing(values: dict[str, str]) -> None:
    assert {str(path.relative_to(REPOSITORY)) for path in refilled(REPOSITORY, values)} == set()


def test_every_picture_of_numbers_shows_the_committed_ones() -> None:
    assert stale(REPOSITORY / "docs" / "pictures", drawn(Sources())) == []


@pytest.mark.parametrize("page", PAGES)
def test_no_measured_number_is_typed_by_hand(page: str) -> None:
    assert typed_numbers((REPOSITORY / page).read_text(encoding="utf-8"), stated()) == []


def test_every_phrase_that_may_hold_a_number_stands_somewhere() -> None:
    everything = "\n".join((REPOSITORY / page).read_text(encoding="utf-8") for page in PAGES)
    assert [phrase for phrase in stated() if phrase not in everything] == []
    assert all(stated().values()), "each says why it is no measurement"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("An accuracy of 0.8123.", ["1: 0.8123"]),
        ("\nIt takes 41 ms, or 3 nats.", ["2: 41 ms", "2: 3 nats"]),
        ("| MVAE | -92.715 |", ["1: -92.715"]),
        ("Of <!-- ours:a -->0.5<!-- /ours --> and `--fractions 0.01` on 127.0.0.1, see [x](y-0.5.md).", []),
        ("<!-- ours:a -->\n\n| 0.5 |\n\n<!-- /ours -->\n", []),
        ("    python pipelines/train.py --paired-fraction 0.5\n", []),
        ("```text\naccuracy 0.4600  7 s\n```\n", ["2: 0.4600", "2: 7 s"]),
    ],
)
def test_a_number_that_was_typed_by_hand_is_found(text: str, found: list[str]) -> None:
    assert typed_numbers(text, {}) == found


def _change(checkout: Path, *, to: float, **fields: Any) -> str:
    """Changes one seed's accuracy in a checkout; returns mean and spread of its cell as they were shown before."""
    path = checkout / "docs" / "results" / "weak_supervision-fashion_mnist.csv"
    before = read(path)
    found = [n for n in before.where(**fields).numbers if n.metric == "test/accuracy"]
    mean = statistics.fmean(n.value for n in found)
    spread = statistics.stdev(n.value for n in found) if len(found) > 1 else None
    changed = [replace(n, value=to) if n is found[0] else n for n in before.numbers]
    path.write_text(written(changed), encoding="utf-8")
    return shown(mean, spread)


@pytest.mark.slow
def test_a_committed_number_that_changes_changes_tables_text_and_pictures(checkout: Path) -> None:
    pages = ("README.md", "docs/experiments/weak_supervision.md")
    old = _change(checkout, model="logreg", paired_fraction=0.001, to=0.1)
    assert all(old in (checkout / page).read_text(encoding="utf-8") for page in pages)
    assert main(["--check"], Sources(checkout)) == 1
    assert main([], Sources(checkout)) == 0
    assert not any(old in (checkout / page).read_text(encoding="utf-8") for page in pages)
    ours, theirs = ((root / "docs/pictures/fashion-mnist-accuracy.png").read_bytes() for root in (checkout, REPOSITORY))
    assert ours != theirs
    assert main(["--check"], Sources(checkout)) == 0


def test_a_sentence_that_the_numbers_no_longer_bear_out_is_refused(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _change(checkout, model="nn", paired_fraction=0.1, epochs=100, to=0.5)
    assert main([], Sources(checkout)) == 2
    assert "near the paper at 1 % and 10 %, and the numbers do not" in capsys.readouterr().err


def test_a_claim_that_holds_is_not_refused() -> None:
    holds(True, "all is well")
    with pytest.raises(Refusal, match="the text says that all is well"):
        holds(False, "all is well")


def test_numbers_of_other_trials_in_a_file_change_nothing_that_the_text_says(
    checkout: Path, values: dict[str, str]
) -> None:
    for path in each_file(Sources(checkout).results):
        there = read(path).numbers
        others = [number for number in there if "epochs" in number.trial.hashed_fields()][:12]
        longer = [replace(number, key="f" * 16, value=0.5, trial=number.trial.with_(epochs=77)) for number in others]
        path.write_text(written([*there, *longer]), encoding="utf-8")
    after = figures(Sources(checkout))
    assert {
        name for name, value in values.items() if after.get(name) != value and not name.startswith(("table.", "value."))
    } == set()


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_numbers_reads_back_as_it_was_written(name: str) -> None:
    path = Sources().results / name
    assert written(read(path).numbers) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if "digits" in name else pytest.mark.real_data) for name in FILES]
)
def test_every_committed_key_follows_from_its_fields_and_the_data(name: str, request: pytest.FixtureRequest) -> None:
    trials = {number.key: number.trial for number in read(Sources().results / name).numbers}
    assert trials
    for key, trial in trials.items():
        root = None if trial.dataset == "digits" else request.getfixturevalue("real_data")
        assert trial.key(fingerprint(trial.dataset, root)) == key


def test_every_committed_number_says_which_commit_made_it() -> None:
    for name in FILES:
        for number in read(Sources().results / name).numbers:
            assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", number.about["git"]), number.key


def test_published_values_in_the_text_are_the_paper_s(values: dict[str, str]) -> None:
    at = TABLE_4.columns.index(0.01)
    assert values["paper.fashion.mvae.1"] == as_printed(TABLE_4.rows["mvae"][at]) == "0.8619"


def test_a_table_shows_mean_spread_and_verdict_of_the_seeds_that_are_there(values: dict[str, str]) -> None:
    seeds = [
        number.value
        for number in read(Sources().results / "weak_supervision-fashion_mnist.csv").numbers
        if number.metric == "test/accuracy"
        and (number.trial.model, number.trial.epochs, number.trial.paired_fraction) == ("nn", 20, 0.001)
    ]
    mean = sum(seeds) / len(seeds)
    spread = (sum((value - mean) ** 2 for value in seeds) / (len(seeds) - 1)) ** 0.5
    row = next(line for line in values["fashion.table"].splitlines() if line.startswith("| NN | ours |"))
    assert row.split(" | ")[2] == f"{mean:.3f} ±{spread:.3f}", "two digits of the spread"
    assert f"| seeds | {len(seeds)}, " in values["fashion.table"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Ours is <!-- ours:accuracy.tolerence -->1<!-- /ours -->.", "do you mean accuracy.tolerance?"),
        ("\nOurs is <!-- ours:a --> and no end", "x.md:2: .* opens or closes no span"),
        ("an end <!-- /ours --> alone", "opens or closes no span"),
        ("<!-- ours:accuracy.tolerance -->1<!-- /ours --> is ours", "starts a line"),
        ("Ours: <!-- ours:table -->x<!-- /ours -->", "lines of its own"),
    ],
)
def test_a_span_that_cannot_be_filled_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        fill(text, {"accuracy.tolerance": "0.03", "table": "| a |"}, "x.md")


def test_a_filled_span_keeps_the_text_around_it() -> None:
    text = "Within <!-- ours:a --><!-- /ours -->, and\n\n<!-- ours:b -->\nold\n<!-- /ours -->\n\nafter.\n"
    filled = fill(text, {"a": "0.03", "b": "| x |\n|---|"}, "x.md")
    assert filled == (
        "Within <!-- ours:a -->0.03<!-- /ours -->, and\n\n<!-- ours:b -->\n\n| x |\n|---|\n\n<!-- /ours -->\n\nafter.\n"
    )
    assert fill(filled, {"a": "0.03", "b": "| x |\n|---|"}, "x.md") == filled
    assert outside(text).count("\n") == text.count("\n")


def _number(value: float, **fields: object) -> Number:
    trial = Trial.create(dataset="digits", model="nn", **fields)
    return Number("ab" * 8, "accuracy-v1", "test/accuracy", value, trial, {})


def test_a_field_that_an_arm_does_not_read_fits_any_value() -> None:
    found = Committed([_number(0.5, seed=1), _number(0.7, seed=0)])
    assert found.where(pairing="resampled", seed=1).values("test/accuracy") == [0.5]
    assert found.where(epochs=3).numbers == ()
    assert found.values("test/accuracy") == [0.7, 0.5]
    assert found.key_of(Trial.create(dataset="digits", model="nn", seed=1, pairing="resampled")) == "ab" * 8
    assert found.key_of(Trial.create(dataset="digits", model="nn", seed=2)) is None


def test_numbers_of_other_trials_are_never_averaged() -> None:
    with pytest.raises(Refusal, match="2 kinds of trial where one is meant"):
        Committed([_number(0.5), _number(0.7, epochs=7)]).mean("test/accuracy")


def test_a_store_s_number_that_differs_from_the_committed_one_is_refused() -> None:
    known = Committed([_number(0.5)])
    assert merged(known, [_number(0.5)], "x.csv") == list(known.numbers)
    with pytest.raises(Refusal, match=r"x.csv: test/accuracy of (ab){8} is 0.5 there and 0.25 in the store"):
        merged(known, [_number(0.25)], "x.csv")


def _run(**changes: str) -> tuple[dict[str, str], dict[str, str]]:
    trial = Trial.create(dataset="digits", model="nn", seed=3)
    data = fingerprint("digits")
    params = {name: str(value) for name, value in trial.hashed_fields().items()}
    tags = {
        "mvae.key": trial.key(data),
        "mvae.fingerprint": data,
        "mvae.measures": '["accuracy-v1"]',
        "mvae.versions": '{"torch": "2.14.1"}',
        "mvae.git": "f" * 40,
        "mvae.device": "cpu",
        "mvae.seconds": "12.34",
    }
    return params, {**tags, **changes}


def test_a_run_s_parameters_give_back_its_trial_and_its_numbers() -> None:
    params, tags = _run()
    (found,) = numbers(params, tags, {"test/accuracy": 0.75, "train/loss": 3.0})
    assert (found.key, found.measure, found.value) == (tags["mvae.key"], "accuracy-v1", 0.75)
    assert identity(found.trial) == identity(Trial.create(dataset="digits", model="nn", seed=3))
    assert found.about["training_seconds"] == "12.3"


def test_a_run_whose_key_does_not_follow_from_its_parameters_is_refused() -> None:
    params, tags = _run(**{"mvae.key": "0" * 16})
    with pytest.raises(Refusal, match="give another key"):
        numbers(params, tags, {"test/accuracy": 0.75})


@pytest.mark.parametrize(
    ("metric", "token"),
    [
        ("test/accuracy", "accuracy-v1"),
        ("test/accuracy-sampled", "accuracy-v1"),
        ("test/accuracy-f0.01", "readout-f0.01-v1"),
        ("test/attribute_accuracy/bald", "attributes-v1"),
        ("test/log_marginal-x1", "likelihood-s1000-v1"),
        ("best/epoch", "accuracy-v1 attributes-v1 likelihood-s100-v1 likelihood-s1000-v1 readout-f0.01-v1"),
    ],
)
def test_a_metric_is_told_its_measure_where_that_can_be_known(metric: str, token: str) -> None:
    names = ["accuracy-v1", "attributes-v1", "likelihood-s100-v1", "likelihood-s1000-v1", "readout-f0.01-v1"]
    assert measure_of(metric, names) == token


@pytest.mark.slow
def test_what_a_tracking_store_holds_of_a_finished_run_becomes_a_file_and_a_table(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    from sweeps.tracking.mirror import open_database

    uri = open_database(tmp_path / "mlflow.db")
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("main")
    params, tags = _run(**{"mvae.kind": "trial", "mvae.sweep.weak_supervision-else": "yes"})
    for status in ("FINISHED", "KILLED"):
        run = client.create_run(experiment, tags=tags).info.run_id
        for name, value in params.items():
            client.log_param(run, name, value)
        client.log_metric(run, "test/accuracy", 0.75 if status == "FINISHED" else 0.1)
        for epoch, accuracy in ((2, 0.7), (1, 0.5), (2, 0.7)):
            client.log_metric(run, curves.METRIC, accuracy, step=epoch)
        client.set_terminated(run, status)
    assert main(["--store", uri, "--sweeps", "weak_supervision-other"], Sources(checkout)) == 2
    assert "no finished run of weak_supervision-other: it has weak_supervision-else" in capsys.readouterr().err
    drawn = checkout / "docs" / "results" / curves.FOLDER / "weak_supervision-else.csv"
    drawn.write_text(",".join(curves.HEAD) + "\n", encoding="utf-8")
    assert main(["--store", uri, "--sweeps", "weak_supervision-else"], Sources(checkout)) == 0
    assert curves.read(drawn) == {(tags["mvae.key"], curves.METRIC): (0.5, 0.7)}
    path = checkout / "docs" / "results" / "weak_supervision-else.csv"
    (number,) = read(path).numbers
    assert (number.key, number.value, number.about["git"]) == (tags["mvae.key"], 0.75, "f" * 40)
    values = figures(Sources(checkout))
    assert values["table.weak_supervision-else"].splitlines()[-1] == "| `test/accuracy` | 0.750 |"
    assert values["value.weak_supervision-else.test/accuracy"] == "0.750"


def test_every_committed_curve_is_of_a_trial_with_committed_numbers_and_ends_no_better_than_its_best() -> None:
    for path in sorted((Sources().results / curves.FOLDER).glob("*.csv")):
        numbers = read(Sources().results / path.name).numbers
        best = {number.key: number.value for number in numbers if number.metric == "best/validation_accuracy"}
        for (key, metric), values in curves.read(path).items():
            assert metric in curves.METRICS
            assert metric != curves.METRIC or max(values) == best[key]


def test_a_curve_that_differs_from_the_committed_one_is_refused() -> None:
    one = {("k", curves.METRIC): (0.1, 0.2)}
    assert curves.merged(dict(one), one, "x.csv") == one
    with pytest.raises(Refusal, match=r"x\.csv: validation/accuracy of k was another"):
        curves.merged(dict(one), {("k", curves.METRIC): (0.1, 0.3)}, "x.csv")


def test_a_report_of_other_cells_adds_to_the_file_of_its_sweep(tmp_path: Path) -> None:
    assert _file(tmp_path, "weak_supervision-digits-1a2b3c4d").name == "weak_supervision-digits.csv"
    assert _file(tmp_path, "likelihoods-binary_mnist-s1000-1a2b3c4d").name == "likelihoods-binary_mnist.csv"
    for asked in ("demo-seeds-0-2", "paper-arms-nn_mvae-1a2b3c4d"):
        assert _file(tmp_path, f"likelihoods-binary_mnist-s1000--{asked}").name == "likelihoods-binary_mnist.csv"
    assert _file(tmp_path, "search-digits-mvae-1a2b3c4d").name == "search-digits-mvae-1a2b3c4d.csv"


def test_a_store_that_is_not_there_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--store", f"sqlite:///{tmp_path}/none.db"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_line_that_is_no_number_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(
        "key,measure,metric,value,dataset,model\nabc,accuracy-v1,test/accuracy,much,digits,nn\n", encoding="utf-8"
    )
    with pytest.raises(Refusal, match=r"bad\.csv:2: no number of a trial"):
        read(path)


def test_what_was_noted_says_where_it_comes_from(checkout: Path) -> None:
    assert Sources(checkout).noted()["noted.lab.down"]
    path = checkout / "docs" / "results" / "noted.csv"
    path.write_text(
        path.read_text(encoding="utf-8") + "lab.more,7,seconds of something,,2026-11-25,abc,here\n", encoding="utf-8"
    )
    with pytest.raises(Refusal, match=r"noted.csv:\d+: write name,value,what"):
        Sources(checkout).noted()


def test_a_picture_is_drawn_again_only_where_its_numbers_are_others(tmp_path: Path) -> None:
    from PIL import Image

    name = "digits-accuracy.png"
    one = drawn(Sources())[name]
    assert stale(tmp_path, {name: one}) == [name]
    draw(tmp_path / name, one)
    assert stale(tmp_path, {name: one}) == []
    with Image.open(tmp_path / name) as image:
        assert image.info[NOTE] == one.digest


def test_every_file_that_a_page_names_is_there() -> None:
    missing = []
    for page in PAGES:
        for line, code in inline(split((REPOSITORY / page).read_text(encoding="utf-8"))[0]):
            named = re.fullmatch(r"((?:mvae|sweeps|pipelines|benchmarks|cluster|tests|docs)/[\w./-]*)(?: .*)?", code)
            if named and not (REPOSITORY / named[1]).exists():
                missing.append(f"{page}:{line}: {named[1]}")
    assert missing == []


def test_every_link_of_the_readme_leads_somewhere() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = REPOSITORY / path if path else REPOSITORY / "README.md"
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target.read_text(encoding="utf-8")), link


def _anchors(text: str) -> set[str]:
    """Those that GitHub gives headings."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _site(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` does. Not with --quiet, under which warnings would not count."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, encoding="utf-8", timeout=120)


def test_make_docs_builds_the_site_as_the_tests_do() -> None:
    planned = subprocess.run(["make", "-n", "docs"], cwd=REPOSITORY, capture_output=True, encoding="utf-8", timeout=60)
    assert "-m mkdocs build --strict\n" in planned.stdout


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    built = _site(REPOSITORY, tmp_path / "site")
    assert built.returncode == 0, built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert {"concepts.html", "glossary.html", "table4.html"} <= {page.name for page in pages}
    fetched = re.compile(r"<(?:script|link|img)[^>]*(?:src|href)=\"?https?://[^\">\s]*")
    assert [found.group() for page in pages for found in fetched.finditer(page.read_text(encoding="utf-8"))] == []
    page = (tmp_path / "site" / "experiments" / "weak_supervision.html").read_text(encoding="utf-8")
    assert re.search(r"<td[^>]*>0\.\d+ ±0\.\d+</td>", page), "a filled table is a table on the site"


def test_a_dead_link_fails_and_so_does_a_page_that_no_menu_leads_to(checkout: Path, tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "mkdocs.yml", checkout)
    broken = ["nowhere.md", "glossary.md#no-such-heading", "pictures/none.png", "/absolute.md"]
    page = checkout / "docs" / "concepts.md"
    page.write_text(page.read_text(encoding="utf-8") + "".join(f"\n[x]({link})\n" for link in broken), encoding="utf-8")
    (checkout / "docs" / "orphan.md").write_text("# Nobody finds this\n", encoding="utf-8")
    built = _site(checkout, tmp_path / "site")
    assert built.returncode != 0
    for link in [*broken[:1], "no-such-heading", *broken[2:], "orphan.md"]:
        assert link in built.stderr


def test_the_glossary_explains_every_committed_metric_and_every_option() -> None:
    glossary = (Sources().root / "docs" / "glossary.md").read_text(encoding="utf-8")
    metrics = glossary.partition("## Metrics")[2].partition("## In a table")[0]
    explained = [
        re.sub(r"<[^>]+>", "[^/]+", re.escape(name).replace(r"\.\.\.", ".*"))
        for row in metrics.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])
    ]
    shown = {number.metric for name in FILES for number in read(Sources().results / name).numbers}
    assert shown
    missing = [metric for metric in sorted(shown) if not any(re.fullmatch(name, metric) for name in explained)]
    assert missing == []
    options = {option for option, _, _ in rows()}
    assert {"--paired-fraction", "--no-prune", "--corpus", "--images", "--workers", "--plugins"} <= options
    assert all(f"| `{option}` |" in glossary for option in options)
