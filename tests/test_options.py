"""Claims about the command line: what it understands, what it refuses in one line, and what it never looks at."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BeforeValidator

from mvae.refusal import Refusal
from sweeps.cli.options import CommonOptions, parse, read
from sweeps.cli.values import Fractions, Written, names

REPOSITORY = Path(__file__).resolve().parents[1]

PIPELINE = '''"""Table 4: what comes of 100 % of the pairs.

Type    python pipelines/example.py
"""

import sys

from sweeps.cli.options import CommonOptions, parse
from sweeps.cli.values import Fractions


class Options(CommonOptions):
    """Weak supervision"""

    fractions: Fractions | None = None
    """Shares of the training pairs that stay together (default: the preset's)."""


options = parse(Options)
assert not {"torch", "ray", "mlflow", "pandas"} & sys.modules.keys()
'''


class Options(CommonOptions):
    """Weak supervision"""

    fractions: Fractions = (0.01, 1.0)
    """Shares of the training pairs that stay together."""
    targets: Annotated[tuple[Literal["own", "all"], ...], BeforeValidator(names), Written("own,all")] = ("own",)
    """What a term reconstructs."""


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A pipeline file outside the repository, as `ray submit` copies it to a head's home."""
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


def test_without_arguments_every_choice_is_left_to_the_preset() -> None:
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
def test_simple_tokens_become_typed_values(argv: list[str], name: str, value: object) -> None:
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
def test_the_last_of_a_repeated_option_wins(argv: list[str], name: str, value: object) -> None:
    assert getattr(read(Options, argv), name) == value


def test_only_what_the_user_set_overrides_a_trial() -> None:
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


def test_options_made_in_code_equal_those_from_the_command_line() -> None:
    made = Options(seeds=(0, 1), arms=("nn",), storage=Path("elsewhere"))
    assert made == read(Options, ["--seeds", "0-1", "--arms", "nn", "--storage", "elsewhere"])


def test_options_do_not_change() -> None:
    options = read(Options, [])
    with pytest.raises(ValueError, match="frozen"):
        options.name = "other"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--seeds", "2-0"], "--seeds 2-0: the range 2-0 runs backwards; write 0-2"),
        (["--seeds", "-1"], "--seeds -1: -1 is no seed; write whole numbers and ranges, as 0-2 or 0,3,5-7"),
        (["--seeds", "0-99999999999"], "--seeds 0-99999999999: the range 0-99999999999 holds more than 10,000 seeds"),
        (["--arms", "mvae,"], "--arms mvae,: write the items with commas between them and no spaces, as a,b,c"),
        (["--arms", "mvae,", "nn"], "nn belongs to no option; write lists without spaces, as a,b,c"),
        (["--fractions", "0"], "0 is no fraction; write numbers above 0 and up to 1"),
        (["--fractions", "0.5,1.5"], "1.5 is no fraction; write numbers above 0 and up to 1"),
        (["--fractions", "nan"], "nan is no fraction; write numbers above 0 and up to 1"),
        (["--targets", "some"], "--targets some: input should be 'own' or 'all'"),
        (["--preset", "big"], "--preset big: input should be 'demo' or 'paper'"),
        (["--epochs", "0"], "--epochs 0: input should be greater than or equal to 1"),
        (["--learning-rate", "inf"], "--learning-rate inf: input should be a finite number"),
        (
            ["--gpus-per-trial", "1.5"],
            "--gpus-per-trial 1.5: write auto, 0, a share of one GPU as 0.25, or a whole number",
        ),
        (["--gpus-per-trial", "-1"], "--gpus-per-trial -1: write auto"),
        (
            ["--storage", "s3:///runs"],
            "--storage s3:///runs: the URI has no bucket: write s3://BUCKET/FOLDER or gs://",
        ),
        (["--cache", "s3://bucket/runs"], "--cache s3://bucket/runs: write the path of a folder, not a URI"),
        (["--name", "../other"], "--name ../other: write letters, digits, '_', '.' and '-'"),
        (["--tracking-uri", ""], "--tracking-uri : string should have at least 1 character"),
        (["--seeds"], "--seeds: expected one argument"),
        (["--fractoins", "1"], "--fractoins is no option of this pipeline; do you mean --fractions?"),
        (["--seed", "1"], "--seed is no option of this pipeline; do you mean --seeds?"),
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


def test_a_refusal_ends_the_process_with_code_2_and_nothing_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(Options, ["--epochs", "many"])
    printed = capsys.readouterr()
    assert end.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("--epochs many: ")
    assert printed.err.count("\n") == 1


def test_the_environment_does_not_leak_in(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read(Options, [])
    for name in Options.model_fields:
        if name not in ("storage", "tracking_uri"):
            monkeypatch.setenv(name.upper(), "7")
            monkeypatch.setenv(name, "7")
    assert read(Options, []) == expected


def test_the_storage_is_absolute_and_the_environment_stands_in_for_it(
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


def test_help_shows_the_pipelines_docstring_and_every_option_with_its_line(pipeline: Path) -> None:
    shown = run(pipeline, "--help")
    assert shown.returncode == 0, shown.stderr
    assert "Table 4: what comes of 100 % of the pairs.\n\nType    python pipelines/example.py" in shown.stdout
    assert "Weak supervision:\n  --fractions 0.01,..." in shown.stdout
    for name, field in CommonOptions.model_fields.items():
        assert f"--{name.replace('_', '-')} " in shown.stdout
        assert field.description, f"{name} has no line of its own"
        assert field.description.split()[0] in shown.stdout


PIPELINES = sorted(path.stem for path in (Path(__file__).parents[1] / "pipelines").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", PIPELINES)
def test_help_shows_how_a_value_is_written_and_nothing_of_python(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = importlib.import_module(f"pipelines.{name}").Options
    with pytest.raises(SystemExit):
        parse(options, ["--help"])
    shown = capsys.readouterr().out
    assert "  --name NAME" in shown
    for word in ("typing", "<class", "None", "Literal", "(default: )", "(default: 1,1)"):
        assert word not in shown
    assert max(map(len, shown.splitlines())) <= 120


@pytest.mark.parametrize("argv", [["--help"], ["--seeds", "x"], ["--seeds", "0-2"]])
def test_help_refusals_and_parsing_come_at_once_and_import_nothing_heavy(pipeline: Path, argv: list[str]) -> None:
    start = time.perf_counter()
    done = run(pipeline, *argv)
    assert done.returncode == (2 if "x" in argv else 0), done.stderr
    assert len(done.stderr.splitlines()) == (1 if "x" in argv else 0)
    assert time.perf_counter() - start < 10, "far more than the half second that it takes: something heavy is imported"
