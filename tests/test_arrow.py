"""Converted data on disk: memory-mapped, converted by the first process, and converted again if damaged."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from mvae import data
from mvae.refusal import Refusal
from tests.crashes import fails_when_full, files_below, killed_at_any_line
from tests.tiny_mnist import empty, everything, flip_a_byte, truncate, write_tiny


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with a tiny MNIST and FashionMNIST."""
    for folder in ("MNIST", "FashionMNIST"):
        write_tiny(tmp_path / "root", folder)
    return tmp_path / "root"


@pytest.fixture
def own_cache(tmp_path: Path) -> Path:
    """An empty cache that one test may damage."""
    return tmp_path / "cache"


def test_a_split_is_one_file_with_one_record_batch_that_any_arrow_reader_understands(
    root: Path, own_cache: Path
) -> None:
    dataset = data.load("mnist", root, own_cache)
    [path] = own_cache.glob("mnist-*/train.arrow")
    with pa.ipc.open_file(path) as reader:
        assert reader.num_record_batches == 1
        table = reader.read_all()
    assert table.schema.metadata[b"fingerprint"].decode() == dataset.fingerprint
    assert table["label"].to_pylist() == dataset.train.values[1].tolist()
    assert table["image"][4].as_py() == dataset.train.values[0][4].flatten().tolist()


def test_loading_memory_maps_the_file_without_copying(own_cache: Path, root: Path) -> None:
    dataset = data.load("mnist", root, own_cache)
    address = dataset.train.values[0].data_ptr()
    mapped = [
        line.split()
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        if "train.arrow" in line
    ]
    ranges = [tuple(int(end, 16) for end in entry[0].split("-")) for entry in mapped]
    assert any(start <= address < end for start, end in ranges)


def test_loading_gives_no_warning_and_a_stray_write_never_reaches_the_file(root: Path, own_cache: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = data.load("mnist", root, own_cache)
    before = dataset.train.values[0].clone()
    dataset.train.values[0].zero_()
    assert torch.equal(data.load("mnist", root, own_cache).train.values[0], before)


def test_a_warm_cache_is_used_without_converting_again(
    root: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.load("mnist", root, own_cache)
    cannot = dataclasses.replace(data.DATASETS["mnist"], convert=lambda root: pytest.fail("converted again"))
    monkeypatch.setitem(data.DATASETS, "mnist", cannot)
    data.load("mnist", root, own_cache)


def test_a_warm_cache_is_found_without_importing_torch(root: Path, own_cache: Path) -> None:
    assert not data.is_converted("mnist", root, own_cache)
    data.load("mnist", root, own_cache)
    code = (
        "import sys, pathlib, mvae.data;"
        f"print(mvae.data.is_converted('mnist', pathlib.Path({str(root)!r}), pathlib.Path({str(own_cache)!r})),"
        " 'torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert told.stdout.split() == ["True", "False"]


@pytest.mark.parametrize("damage", [truncate, flip_a_byte, empty, Path.unlink])
@pytest.mark.parametrize("name", ["train.arrow", "test.arrow", "manifest.json"])
def test_a_damaged_file_is_set_aside_and_converted_again_with_one_log_line(
    root: Path, own_cache: Path, name: str, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    whole = [value.clone() for value in everything(data.load("mnist", root, own_cache))]
    [path] = own_cache.glob(f"mnist-*/{name}")
    assert callable(damage)
    damage(path)
    assert not data.is_converted("mnist", root, own_cache)
    with caplog.at_level(logging.WARNING):
        again = data.load("mnist", root, own_cache)
    assert data.is_converted("mnist", root, own_cache)
    for ours, expected in zip(everything(again), whole, strict=True):
        assert torch.equal(ours, expected)
    was_never_complete = name == "manifest.json" and damage is Path.unlink
    assert len(caplog.records) == (0 if was_never_complete else 1)
    assert path.with_name(f"{name}.bad").exists() == (damage is not Path.unlink)
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        data.load("mnist", root, own_cache)
    assert not caplog.records


def test_a_data_set_in_use_stays_readable_after_its_file_is_set_aside(root: Path, own_cache: Path) -> None:
    in_use = data.load("mnist", root, own_cache)
    before = in_use.train.values[0].clone()
    [path] = own_cache.glob("mnist-*/manifest.json")
    flip_a_byte(path)
    data.load("mnist", root, own_cache)
    assert torch.equal(in_use.train.values[0], before)


@pytest.mark.slow
def test_after_a_conversion_is_killed_the_next_one_succeeds_and_cleans_up(root: Path, tmp_path: Path) -> None:
    whole = everything(data.load("mnist", root, tmp_path / "unbroken"))
    expected = files_below(tmp_path / "unbroken")
    broken = tmp_path / "broken"

    def load() -> None:
        data.load("mnist", root, broken)

    def start_cold() -> None:
        shutil.rmtree(broken, ignore_errors=True)

    for _ in killed_at_any_line(load, ("mvae/data/arrow.py", "mvae/storage/files.py"), start_cold, broken):
        again = everything(data.load("mnist", root, broken))
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(again, whole, strict=True))
        assert files_below(broken) == expected


@pytest.mark.parametrize("limit", range(8))
def test_a_full_disk_gives_a_one_line_error_and_the_next_load_succeeds(
    root: Path, own_cache: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("mvae.storage.files.os.fsync", fails_when_full(limit, os.fsync))
        with pytest.raises(
            Refusal, match=r"cannot use the cache .* \(No space left on device\): give --cache a writable"
        ):
            data.load("mnist", root, own_cache)
    assert not list(own_cache.rglob(".*.tmp"))
    assert len(data.load("mnist", root, own_cache).train) == 50


def load_when_told(root: Path, cache: Path, log_file: Path, go: object) -> None:
    source = data.DATASETS["mnist"]

    def convert(raw: Path) -> data.dataset.Arrays:
        with log_file.open("a", encoding="utf-8") as log:
            log.write("converted\n")
        return source.convert(raw)

    data.DATASETS["mnist"] = dataclasses.replace(source, convert=convert)
    go.wait()  # type: ignore[attr-defined]
    assert len(data.load("mnist", root, cache).train) == 50


def test_only_one_of_two_processes_converts_the_same_data(tmp_path: Path, root: Path, own_cache: Path) -> None:
    context = multiprocessing.get_context("spawn")
    go = context.Barrier(2)
    arguments = (root, own_cache, tmp_path / "log", go)
    processes = [context.Process(target=load_when_told, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "log").read_text(encoding="utf-8") == "converted\n"


def test_an_unusable_cache_gives_a_one_line_error(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refusal, match=r"cannot use the cache .*file .*--cache") as refused:
        data.load("mnist", root, tmp_path / "file")
    assert "\n" not in str(refused.value)
