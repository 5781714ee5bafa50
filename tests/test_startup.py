"""Imports of commands that do not train: they load neither torch, MLflow, Ray nor plotting libraries."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mvae.models import ARMS
from mvae.models.arm import Later
from sweeps.cli.options import CommonOptions
from sweeps.start import start
from tests.sweeping import ROOT

HEAVY = ("torch", "mlflow", "ray", "scipy", "pandas", "matplotlib", "sklearn", "optuna", "sqlalchemy", "pyarrow")
HEAVY_FOR_LOOKS = (*HEAVY, "numpy", "PIL")
PIPELINES = tuple(path.stem for path in sorted((ROOT / "pipelines").glob("[a-z]*.py")))
NEED_PICTURES = {"vision"}
"""Pipelines whose tasks are defined on pictures, with numpy and Pillow."""

IMPORTED = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    code = end.code
print("imported:", *(name for name in %r if name in sys.modules), file=sys.stderr)
sys.exit(code)
"""


def imported(pipeline: str, *options: str, expected: int = 0, among: tuple[str, ...] = HEAVY) -> set[str]:
    """Heavy packages that a pipeline imports with these options."""
    words = [sys.executable, "-c", IMPORTED % (among,), str(ROOT / "pipelines" / f"{pipeline}.py"), *options]
    ended = subprocess.run(words, capture_output=True, encoding="utf-8", check=False, cwd=ROOT)
    assert ended.returncode == expected, ended.stderr
    return set(ended.stderr.rpartition("imported:")[2].split())


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_help_and_refusals_import_nothing_heavy(pipeline: str) -> None:
    heavy = HEAVY if pipeline in NEED_PICTURES else HEAVY_FOR_LOOKS
    assert imported(pipeline, "--help", among=heavy) == set()
    assert imported(pipeline, "--epochs", "none", expected=2, among=heavy) == set()


@pytest.mark.slow
def test_repeating_planning_or_reporting_a_finished_sweep_imports_nothing_heavy(tmp_path: Path) -> None:
    sweep = ("--arms", "nn", "--fractions", "1", "--seeds", "0-2", "--epochs", "1", "--storage", str(tmp_path))
    assert "torch" in imported("weak_supervision", *sweep)
    for more in ((), ("--plan",), ("--report",)):
        assert imported("weak_supervision", *sweep, *more) == set()


def test_every_name_in_an_arms_declaration_exists() -> None:
    declared = [getattr(arm, name) for arm in ARMS.values() for name in ("build", "learner", "fit", "watch")]
    later = [one for one in declared if isinstance(one, Later)]
    assert len(later) >= 2 * len(ARMS)
    for one in later:
        assert callable(getattr(importlib.import_module(f"mvae.models.{one.module}"), one.name))


def test_a_command_interrupted_while_it_imports_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sweeps.main", InterruptedImport("sweeps.main"))
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit) as end:
        start(CommonOptions, lambda _: pytest.fail("no cells are made"))
    assert end.value.code == 130
    assert capsys.readouterr().err == "interrupted; nothing was started\n"


class InterruptedImport(ModuleType):
    """A module during whose import the user typed Ctrl-C."""

    def __getattr__(self, name: str) -> object:
        raise KeyboardInterrupt
