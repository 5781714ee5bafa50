"""`mvae prepare` downloads and converts a data set without training."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mvae.data import downloads, fingerprint, load_converted
from mvae.data import progress as progressing
from sweeps.commands.entry import main
from tests.sweeping import ROOT
from tests.tiny_mnist import torchvision_at, write_tiny


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


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002  its name in the standard library


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A data root with a tiny packed MNIST, and the address of a server of its files."""
    write_tiny(tmp_path / "served", compressed=True)
    handler = partial(Quiet, directory=tmp_path / "served" / "MNIST" / "raw")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield tmp_path / "served", f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_download_shows_the_bytes_of_the_total_and_the_seconds_left(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, address = served
    monkeypatch.setenv("MVAE_DATA", str(tmp_path / "default"))
    monkeypatch.setitem(sys.modules, "torchvision", torchvision_at("http://127.0.0.1:9/", address, served=root))
    monkeypatch.setattr(progressing, "LOG_EVERY_S", 0.0)
    monkeypatch.setattr(downloads, "CHUNK", 20_000)
    assert main(["prepare", "mnist", "--cache", str(tmp_path / "cache")]) == 0
    said = capsys.readouterr().out
    assert f"downloading MNIST to {tmp_path / 'default'}\n" in said
    images = "downloading train-images-idx3-ubyte.gz"
    assert re.search(rf"^{images} \(0\.\d MB\)$", said, re.MULTILINE)
    lines = re.findall(rf"^{images}: (0\.\d) of (0\.\d) MB(?:, (\d+) s left)?$", said, re.MULTILINE)
    assert len(lines) == 3, "47 kB in parts of 20 kB"
    assert all(left.isdecimal() for *_, left in lines[:-1])
    assert lines[-1][0] == lines[-1][1] and lines[-1][2] == "", "nothing is left after the last part"
    assert said.endswith(f"mnist is ready: 50 train, 10 validation, 12 test examples in {tmp_path / 'cache'}\n")


def test_a_download_that_differs_from_the_published_file_is_refused_with_the_reason_for_each_address(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, address = served
    monkeypatch.setenv("MVAE_DATA", str(tmp_path / "default"))
    monkeypatch.setitem(sys.modules, "torchvision", torchvision_at("http://127.0.0.1:9/", address, served=root))
    labels = root / "MNIST" / "raw" / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:-1])
    assert main(["prepare", "mnist", "--cache", str(tmp_path / "cache")]) == 2
    error = capsys.readouterr().err
    assert f"{address}{labels.name}: incomplete or changed on the server" in error and error.count("\n") == 1
    assert f"http://127.0.0.1:9/{labels.name}: <urlopen error" in error
    assert not (tmp_path / "default" / "MNIST" / "raw").exists()


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
