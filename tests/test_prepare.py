"""`mvae prepare` downloads and converts a data set without training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mvae.data import fingerprint, load_converted
from sweeps.commands.entry import main
from tests.sweeping import ROOT


def test_a_prepared_data_set_needs_no_raw_files_and_is_converted_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = fingerprint("digits")
    assert load_converted("digits", mark, tmp_path) is None
    assert main(["prepare", "digits", "--cache", str(tmp_path)]) == 0
    converting = "Preparing digits, which usually takes a few seconds\n"
    converting += f"converting digits to {tmp_path / f'digits-{mark[:16]}'}\n"
    ready = f"digits is ready: 1,297 train, 250 validation, 250 test examples in {tmp_path}\n"
    assert capsys.readouterr().out == converting + ready
    converted = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.arrow")}
    assert load_converted("digits", mark, tmp_path) is not None and len(converted) == 3
    assert main(["prepare", "digits", "--cache", str(tmp_path)]) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.arrow")} == converted


@pytest.mark.parametrize(("arguments", "said"), [(["dgits"], "unknown data set 'dgits'"), (["celeba"], "celeba")])
def test_a_data_set_that_cannot_be_prepared_gives_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", *arguments, "--data-root", str(tmp_path), "--cache", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_the_help_of_prepare_imports_no_torch() -> None:
    code = (
        "import runpy, sys; sys.argv = ['mvae', 'prepare', '--help']\n"
        "try: runpy.run_module('sweeps.commands', run_name='__main__')\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", cwd=ROOT, check=True)
    assert "mvae prepare" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "False"
