"""The command `mvae`: help, refusals, `run` and `prepare`."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sweeps.commands.entry import COMMANDS, main
from sweeps.commands.run import names
from tests.sweeping import ROOT
from tests.test_startup import HEAVY_FOR_LOOKS

IMPORTED = """
import sys
from sweeps.commands.entry import main
code = main(sys.argv[1:])
print("imported:", *(name for name in %r if name in sys.modules), file=sys.stderr)
sys.exit(code)
"""


def mvae(*words: str, code: str = "", cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    start = ["-c", code] if code else ["-m", "sweeps.commands"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # as in an activated environment
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
    command = [sys.executable, *start, *words]
    return subprocess.run(command, capture_output=True, encoding="utf-8", cwd=cwd, env=environment, timeout=300)


def test_the_console_script_runs_this_command_in_a_clone_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, function = scripts["mvae"].partition(":")
    monkeypatch.setattr(sys, "argv", ["mvae", "nonsense"])
    before = list(sys.path)
    assert getattr(importlib.import_module(module), function)() == 2
    assert capsys.readouterr().err.startswith("unknown command nonsense: ")
    assert sys.path == before, "only a wheel has its packages in a folder of their own"


def test_mvae_alone_prints_its_short_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(f"  mvae {name}" in said for name in COMMANDS)
    assert len(said.splitlines()) < 12


@pytest.mark.parametrize(
    "words", [("ls", "--help"), ("rm", "--help"), ("verify", "0"), ("run",), ("prepare", "--help")]
)
def test_help_and_refusals_import_nothing_heavy(words: tuple[str, ...]) -> None:
    ended = mvae(*words, code=IMPORTED % (HEAVY_FOR_LOOKS,))
    assert ended.stderr.rpartition("imported:")[2].split() == [], ended.stderr


def test_listing_a_storage_imports_nothing_heavy(storage: Path) -> None:
    (storage / "main").mkdir()
    (storage / "main" / "namespace").write_text("", encoding="utf-8")
    ended = mvae("ls", "--storage", str(storage), code=IMPORTED % (HEAVY_FOR_LOOKS,))
    assert ended.returncode == 0 and ended.stderr.rpartition("imported:")[2].split() == [], ended.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["lst"], "unknown command lst: choose one of run, prepare, ls, rm, verify"),
        (["ls", "--storge", "x"], "unknown option --storge: did you mean --storage?"),
        (["verify", "none"], "N none: write a whole number of at least 1"),
        (["rm"], "SWEEP is missing: mvae rm --help lists all arguments"),
        (["rm", "../x"], "SWEEP ../x: use only letters, digits, '_', '.' and '-', and start with a letter or digit"),
        (["ls", "more"], "unexpected argument more: mvae ls --help lists all arguments"),
        (
            ["run", "table5"],
            f"unknown pipeline table5: choose one of {', '.join(names())}, or write the path of a file",
        ),
        (["prepare", "cifar"], "unknown data set 'cifar': choose one of "),
    ],
)
def test_a_mistake_gets_one_line_and_exit_code_2(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(line) and said.count("\n") == 1


def test_a_pipelines_help_names_the_command_that_was_typed() -> None:
    ended = mvae("run", "weak_supervision", "--help")
    assert ended.returncode == 0
    assert ended.stdout.startswith("usage: mvae run weak_supervision [options]")
    assert ended.stdout.replace("mvae run weak_supervision [", "X [") == subprocess.run(
        [sys.executable, "pipelines/weak_supervision.py", "--help"], capture_output=True, encoding="utf-8", cwd=ROOT
    ).stdout.replace("python pipelines/weak_supervision.py [", "X [")


def test_run_gives_a_pipelines_exit_code_and_refusal() -> None:
    ended = mvae("run", "train", "--epochs", "none")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("--epochs none: ")


@pytest.mark.slow
def test_the_resume_line_of_a_sweep_names_the_command_that_was_typed(tmp_path: Path) -> None:
    (tmp_path / "s" / "main").mkdir(parents=True)
    own = tmp_path / "my_table.py"
    own.write_text((ROOT / "docs" / "examples" / "my_table.py").read_text(encoding="utf-8"), encoding="utf-8")
    code = (
        "import sys; import sweeps.driver as d; from sweeps.cli.programs import started_by;"
        "started_by('mvae', 'run', 'train'); sys.argv = ['x/train.py', '--fresh', '--seeds', '0']; print(d.command())"
    )
    assert mvae(code=code).stdout == "mvae run train --seeds 0\n"
    ended = mvae("run", str(own), "--help", cwd=tmp_path)
    assert ended.returncode == 0 and ended.stdout.startswith(f"usage: mvae run {own} [options]")


def test_prepare_converts_once_and_then_says_that_the_data_are_ready(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", "binary_mnist", "--data-root", str(tiny_root), "--cache", str(tmp_path / "cache")]
    assert main(words) == 0
    preparing, *first = capsys.readouterr().out.splitlines()
    assert preparing == "Preparing binary_mnist, which usually takes a few seconds"
    assert [line.partition(" to ")[0] for line in first[:2]] == ["converting binary_mnist", "converting mnist"]
    assert first[2:] == [f"binary_mnist is ready: 50 train, 10 validation, 12 test examples in {tmp_path / 'cache'}"]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == [preparing, *first[2:]]


def test_prepare_names_missing_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "mnist", "--data-root", str(tmp_path), "--cache", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
