"""The command line: parsed values, values refused in one line, and ignored settings."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BeforeValidator

from mvae.data import DATASETS
from mvae.evaluation.measurable import check_measurable
from mvae.measure import ACCURACY, ATTRIBUTE_ACCURACY, TRANSLATION, VISION, likelihood, readout
from mvae.models import ARMS
from mvae.refusal import Refusal
from sweeps.cli.help import explanation
from sweeps.cli.options import CommonOptions, parse, read
from sweeps.cli.values import Fractions, Written, names

REPOSITORY = Path(__file__).resolve().parents[1]

PIPELINE = '''"""Table 4: what comes of 100 % of the pairs.

Type    python pipelines/example.py

Facts about the paper.
"""

import sys

from sweeps.cli.options import CommonOptions, parse
from sweeps.cli.values import Fractions


class Options(CommonOptions):
    """Weak supervision"""

    fractions: Fractions | None = None
    """Fractions of the training pairs to keep (default: the preset's)."""


options = parse(Options)
assert not {"torch", "ray", "mlflow", "pandas"} & sys.modules.keys()
'''


class Options(CommonOptions):
    """Weak supervision"""

    fractions: Fractions = (0.01, 1.0)
    """Fractions of the training pairs to keep."""
    targets: Annotated[tuple[Literal["own", "all"], ...], BeforeValidator(names), Written("own,all")] = ("own",)
    """Modalities that a term reconstructs."""


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A pipeline file outside the repository; `ray submit` copies it like this to a head's home directory."""
    path = tmp_path / "example.py"
    path.write_text(PIPELINE, encoding="utf-8")
    return path


def run(pipeline: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(pipeline), *arguments],
        capture_output=True,
        encoding="utf-8",
        env={"PYTHONPATH": str(REPOSITORY), "PATH": ""},
        timeout=60,
    )


def test_without_arguments_the_preset_decides_everything() -> None:
    options = read(Options, [])
    assert (options.dataset, options.preset, options.name) == ("digits", "demo", "main")
    assert (options.arms, options.seeds, options.epochs, options.max_concurrent) == (None, None, None, None)
    assert options.trial_fields() == {}
    assert not (options.plan or options.report or options.resume or options.fresh)


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["--seeds", "0-2"], "seeds", (0, 1, 2)),
        (["--seeds", "7"], "seeds", (7,)),
        (["--seeds=3,0-2,2"], "seeds", (3, 0, 1, 2)),
        (["--arms", "mvae,nn,mvae"], "arms", ("mvae", "nn")),
        (["--fractions", "0.001,1e-2,1"], "fractions", (0.001, 0.01, 1.0)),
        (["--targets", "own,all"], "targets", ("own", "all")),
        (["--gpus-per-trial", "auto"], "gpus_per_trial", "auto"),
        (["--gpus-per-trial", "0.25"], "gpus_per_trial", 0.25),
        (["--gpus-per-trial", "2"], "gpus_per_trial", 2.0),
        (["--checkpoint-every", "0"], "checkpoint_every", 0.0),
        (["--data-root", "/some/where/../data"], "data_root", Path("/some/data")),
        (["--plan"], "plan", True),
        (["--report", "--resume"], "resume", True),
    ],
)
def test_command_line_tokens_become_typed_values(argv: list[str], name: str, value: object) -> None:
    assert getattr(read(Options, argv), name) == value


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["--seeds", "0-2", "--seeds", "5"], "seeds", (5,)),
        (["--arms", "nn", "--arms=mvae"], "arms", ("mvae",)),
        (["--epochs", "3", "--epochs", "4"], "epochs", 4),
        (["--fractions", "1", "--fractions", "0.5,0.1"], "fractions", (0.5, 0.1)),
    ],
)
def test_the_last_value_of_a_repeated_option_wins(argv: list[str], name: str, value: object) -> None:
    assert getattr(read(Options, argv), name) == value


def test_only_options_set_by_the_user_override_a_trial() -> None:
    options = read(
        Options,
        [
            *("--label-weight", "1", "--attribute-weight", "2", "--image-network", "mlp"),
            *("--annealing-epochs", "0", "--train-examples", "100", "--epochs", "3"),
        ],
    )
    assert options.trial_fields() == {
        "label_weight": 1.0,
        "attribute_weight": 2.0,
        "image_network": "mlp",
        "annealing_epochs": 0,
        "train_examples": 100,
        "epochs": 3,
    }


def test_options_created_in_code_equal_those_from_the_command_line() -> None:
    made = Options(seeds=(0, 1), arms=("nn",), storage=Path("elsewhere"))
    assert made == read(Options, ["--seeds", "0-1", "--arms", "nn", "--storage", "elsewhere"])


def test_options_are_immutable() -> None:
    options = read(Options, [])
    with pytest.raises(ValueError, match="frozen"):
        options.name = "other"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--seeds", "2-0"], "--seeds 2-0: the range 2-0 is reversed; write 0-2"),
        (["--seeds", "-1"], "--seeds -1: -1 is not a seed; write whole numbers or ranges, such as 0-2 or 0,3,5-7"),
        (["--seeds", "0-99999999999"], "--seeds 0-99999999999: the range 0-99999999999 has more than 10,000 seeds"),
        (["--arms", "mvae,"], "--arms mvae,: separate the items with commas and no spaces, as in a,b,c"),
        (["--arms", "mvae,", "nn"], "unexpected argument nn: write lists without spaces, as in a,b,c"),
        (["--fractions", "0"], "0 is not a fraction; write numbers above 0 and up to 1"),
        (["--fractions", "0.5,1.5"], "1.5 is not a fraction; write numbers above 0 and up to 1"),
        (["--fractions", "nan"], "nan is not a fraction; write numbers above 0 and up to 1"),
        (["--targets", "some"], "--targets some: input should be 'own' or 'all'"),
        (["--preset", "big"], "--preset big: input should be 'demo' or 'paper'"),
        (["--epochs", "0"], "--epochs 0: input should be greater than or equal to 1"),
        (["--learning-rate", "inf"], "--learning-rate inf: input should be a finite number"),
        (
            ["--gpus-per-trial", "1.5"],
            "--gpus-per-trial 1.5: write auto, 0, a fraction of one GPU such as 0.25, or a whole number",
        ),
        (["--gpus-per-trial", "-1"], "--gpus-per-trial -1: write auto"),
        (
            ["--storage", "s3:///runs"],
            "--storage s3:///runs: the URI has no bucket: write s3://BUCKET/FOLDER or gs://",
        ),
        (["--cache", "s3://bucket/runs"], "--cache s3://bucket/runs: write the path of a folder, not a URI"),
        (["--name", "../other"], "--name ../other: use only letters, digits, '_', '.' and '-'"),
        (["--tracking-uri", ""], "--tracking-uri : string should have at least 1 character"),
        (["--seeds"], "--seeds: expected one argument"),
        (["--fractoins", "1"], "unknown option --fractoins: did you mean --fractions?"),
        (["--seed", "1"], "unknown option --seed: did you mean --seeds?"),
        (["--plan", "--report"], "--plan and --report exclude each other"),
        (["--resume", "--fresh"], "--resume and --fresh exclude each other"),
        (["--fresh", "--report"], "--fresh and --report exclude each other"),
    ],
)
def test_bad_input_is_refused_in_one_line(argv: list[str], said: str) -> None:
    with pytest.raises(Refusal) as refusal:
        read(Options, argv)
    assert said in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_refusal_exits_with_code_2_and_prints_nothing_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(Options, ["--epochs", "many"])
    printed = capsys.readouterr()
    assert end.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("--epochs many: ")
    assert printed.err.count("\n") == 1


def test_options_ignore_unrelated_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read(Options, [])
    for name in Options.model_fields:
        if name not in ("storage", "tracking_uri"):
            monkeypatch.setenv(name.upper(), "7")
            monkeypatch.setenv(name, "7")
    assert read(Options, []) == expected


def test_the_storage_is_absolute_and_defaults_to_the_environment_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read(Options, []).storage == tmp_path / "runs"
    monkeypatch.setenv("MVAE_STORAGE", "shared")
    assert read(Options, []).storage == tmp_path / "shared"
    assert read(Options, ["--storage", "own"]).storage == tmp_path / "own"


def test_mlflow_is_found_from_the_option_then_the_environment_then_the_storage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    argv = ["--storage", str(tmp_path)]
    assert read(Options, argv).tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://one:5000")
    assert read(Options, argv).tracking_uri == "http://one:5000"
    assert read(Options, [*argv, "--tracking-uri", "http://two:5000"]).tracking_uri == "http://two:5000"


def test_help_starts_with_the_pipelines_docstring_and_own_options_and_names_every_option(pipeline: Path) -> None:
    shown = run(pipeline, "--help")
    assert shown.returncode == 0, shown.stderr
    start = "Table 4: what comes of 100 % of the pairs.\n\nType    python pipelines/example.py\n\nWeak supervision:\n"
    assert f"{start}  --fractions 0.01,..." in shown.stdout
    assert "Facts about the paper" not in shown.stdout
    for name in CommonOptions.model_fields:
        assert f"--{name.replace('_', '-')}" in shown.stdout


def test_help_all_shows_the_whole_docstring_and_explains_every_option(pipeline: Path) -> None:
    shown = run(pipeline, "--help-all")
    assert shown.returncode == 0, shown.stderr
    assert "\n\nFacts about the paper.\n\n" in shown.stdout
    words = " ".join(shown.stdout.split())
    for name in CommonOptions.model_fields:
        assert f"\n  --{name.replace('_', '-')} " in shown.stdout
        assert " ".join(explanation(CommonOptions, name).split()) in words


PIPELINES = sorted(path.stem for path in (Path(__file__).parents[1] / "pipelines").glob("[a-z]*.py"))


def page(pipeline: str, option: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        parse(importlib.import_module(f"pipelines.{pipeline}").Options, [option])
    return capsys.readouterr().out


@pytest.mark.parametrize("option", ["--help", "--help-all"])
@pytest.mark.parametrize("name", PIPELINES)
def test_help_shows_how_a_value_is_written_and_nothing_of_python(
    name: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = page(name, option, capsys)
    assert "  --name NAME" in shown
    for word in ("typing", "<class", "None", "Literal", "(default: )", "(default: 1,1)", "{", "\xa0"):
        assert word not in shown
    assert max(map(len, shown.splitlines())) <= 120


@pytest.mark.parametrize("name", PIPELINES)
def test_help_fits_a_screen_and_names_every_option(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = page(name, "--help", capsys)
    assert len(shown.splitlines()) <= 50
    assert "(explained by --help-all)" in shown
    full = page(name, "--help-all", capsys)
    assert set(re.findall(r"^  (--?[a-z-]+)", full, re.MULTILINE)) <= set(re.findall(r"--?[a-z-]+", shown))


@pytest.mark.parametrize("name", PIPELINES)
def test_help_names_only_arms_and_data_sets_that_the_pipeline_takes(name: str) -> None:
    module = importlib.import_module(f"pipelines.{name}")
    measures = {
        "weak_supervision": (ACCURACY, readout(1.0)),
        "likelihoods": (likelihood(2),),
        "k_sweep": (likelihood(2),),
        "missing_modalities": (ATTRIBUTE_ACCURACY,),
        "translation": (TRANSLATION,),
        "vision": (VISION,),
    }.get(name, ())
    offers = {"dataset": DATASETS, "arms": ARMS, **module.Options.offers}
    for option, offered in offers.items():
        assert f": {', '.join(offered)}" in explanation(module.Options, option)
    assert module.Options.model_fields["dataset"].default in offers["dataset"]
    for dataset in offers["dataset"] if measures else ():
        check_measurable(measures[0], "mvae", DATASETS[dataset])
    for arm in set(offers["arms"]) - {"mvae19"}:
        assert not measures or {measure.name for measure in measures} & ARMS[arm].measures


@pytest.mark.parametrize("argv", [["--help"], ["--help-all"], ["--seeds", "x"], ["--seeds", "0-2"]])
def test_help_refusals_and_parsing_come_at_once_and_import_nothing_heavy(pipeline: Path, argv: list[str]) -> None:
    start = time.perf_counter()
    done = run(pipeline, *argv)
    assert done.returncode == (2 if "x" in argv else 0), done.stderr
    assert len(done.stderr.splitlines()) == (1 if "x" in argv else 0)
    assert time.perf_counter() - start < 10, "far more than the half second that it takes: something heavy is imported"
