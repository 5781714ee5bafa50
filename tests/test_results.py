"""Results: a trial is done if its file exists; the file is complete, never overwritten, and reproducible."""

import json
import logging
import math
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mvae.measure import ACCURACY
from sweeps.store.results import Result, ResultConflict, Results
from tests.crashes import fails_when_full, files_below, killed_at_any_line, on_disk

RESULT = Result(
    key="0123456789abcdef",
    measure="accuracy-v1",
    trial={"dataset": "digits", "model": "mvae", "paired_fraction": 0.1, "seed": 0},
    metrics={"test/accuracy": 1 / 3, "smallest": 5e-324, "zero": -0.0, "undefined": math.nan},
    provenance={"seconds": 12.5, "host": "a", "attempts": ["x"]},
    history=[{"epoch": 1, "time": 0.1 + 0.2, "metrics": {"train/loss": 2 / 7}}],
)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


def test_a_result_round_trips_bit_for_bit(results: Results) -> None:
    assert results.read(RESULT.key, RESULT.measure) is None
    assert repr(results.write(RESULT)) == repr(RESULT)
    assert repr(results.read(RESULT.key, RESULT.measure)) == repr(RESULT)
    assert files_below(results.folder) == {"0123456789abcdef.accuracy-v1.json"}


def test_a_result_file_holds_the_documented_fields(results: Results) -> None:
    results.write(RESULT)
    content = json.loads((results.folder / "0123456789abcdef.accuracy-v1.json").read_bytes())
    assert list(content) == ["key", "measure", "trial", "metrics", "provenance", "history"]


def test_recomputing_an_equal_result_leaves_the_file_unchanged(results: Results) -> None:
    first = results.write(RESULT)
    before = on_disk(results.path(RESULT.key, RESULT.measure)).stat()
    again = results.write(replace(RESULT, provenance={"host": "b"}))
    after = on_disk(results.path(RESULT.key, RESULT.measure)).stat()
    assert repr(again) == repr(first)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize(
    "change",
    [{"test/accuracy": math.nextafter(1 / 3, 1)}, {"zero": 0.0}, {"undefined": 1.0}, {"more": 1.0}],
    ids=["one bit", "sign of zero", "nan", "another metric"],
)
def test_a_result_that_differs_in_one_bit_is_an_error_and_the_first_is_kept(
    results: Results, change: dict[str, float]
) -> None:
    results.write(RESULT)
    with pytest.raises(ResultConflict, match=f"{next(iter(change))} is .* in storage and .* now"):
        results.write(replace(RESULT, metrics={**RESULT.metrics, **change}))
    assert repr(results.read(RESULT.key, RESULT.measure)) == repr(RESULT)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"key": "0123456789abcdef"}', None],
    ids=["empty", "cut", "a list", "no text", "fields missing", "another key's"],
)
def test_an_unreadable_result_is_set_aside_reported_once_and_recomputed(
    results: Results, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = results.path(RESULT.key, RESULT.measure)
    results.write(RESULT)
    for _ in range(2):
        path.write_bytes(path.read_bytes().replace(b'"0123', b'"9999') if content is None else content)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert results.read(RESULT.key, RESULT.measure) is None
            assert results.read(RESULT.key, RESULT.measure) is None
        assert len(caplog.records) == 1
        assert path.name in caplog.text
        assert results.keys() == []
        results.write(RESULT)
    assert len(list(on_disk(results.folder).glob("*.bad*"))) == 2
    assert repr(results.read(RESULT.key, RESULT.measure)) == repr(RESULT)


def test_writing_over_an_unreadable_result_sets_it_aside(results: Results) -> None:
    results.folder.mkdir()
    results.path(RESULT.key, RESULT.measure).write_bytes(b"{")
    results.write(RESULT)
    assert repr(results.read(RESULT.key, RESULT.measure)) == repr(RESULT)
    assert len(list(on_disk(results.folder).glob("*.bad"))) == 1


def test_results_of_other_versions_are_listed_but_not_used(results: Results) -> None:
    for measure in ("accuracy-v1", "accuracy-v2", "likelihood-s1000-v1"):
        results.write(replace(RESULT, measure=measure))
    results.write(replace(RESULT, key="fedcba9876543210", measure="likelihood-s1000-v1"))
    on_disk(results.folder / "0123456789abcdef.pruned.json").write_text("{}", encoding="utf-8")
    assert results.superseded(ACCURACY) == ["0123456789abcdef.accuracy-v2.json"]
    assert results.keys() == ["0123456789abcdef", "fedcba9876543210"]
    assert results.keys("accuracy-v1") == ["0123456789abcdef"]
    assert [f"{result.key}.{result.measure}" for result in results] == [
        "0123456789abcdef.accuracy-v1",
        "0123456789abcdef.accuracy-v2",
        "0123456789abcdef.likelihood-s1000-v1",
        "fedcba9876543210.likelihood-s1000-v1",
    ]


def test_a_folder_that_does_not_exist_holds_no_results(results: Results) -> None:
    assert (list(results), results.keys(), results.superseded(ACCURACY)) == ([], [], [])
    assert not results.folder.exists()


def test_after_a_kill_at_any_line_of_writing_the_result_is_complete_or_absent(results: Results) -> None:
    seen = set()
    for _ in killed_at_any_line(
        lambda: results.write(RESULT),
        ("sweeps/store/results.py", "mvae/storage/files.py"),
        lambda: shutil.rmtree(on_disk(results.folder), ignore_errors=True),
        results.folder,
    ):
        found = Results(results.folder).read(RESULT.key, RESULT.measure)
        assert found is None or repr(found) == repr(RESULT)
        assert not list(on_disk(results.folder).glob("*.bad"))
        assert repr(Results(results.folder).write(RESULT)) == repr(RESULT)
        seen.add(found is None)
    assert seen == {True, False}


@pytest.mark.parametrize("calls", range(2))
def test_a_full_disk_raises_and_leaves_nothing(results: Results, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fails_when_full(calls, os.fsync))
        with pytest.raises(OSError, match="No space left"):
            results.write(RESULT)
    assert not [name for name in files_below(results.folder) if not name.endswith(".json")]
    assert repr(results.write(RESULT)) == repr(RESULT)


def test_if_many_processes_write_different_numbers_exactly_one_is_kept(results: Results) -> None:
    results.folder.mkdir()
    start = time.monotonic() + 0.2
    children = []
    for number in range(6):
        pid = os.fork()
        if pid == 0:
            code = 2
            try:
                while time.monotonic() < start:
                    pass
                results.write(replace(RESULT, metrics={"test/accuracy": float(number)}))
                code = 0
            except ResultConflict:
                code = 1
            finally:
                os._exit(code)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert sorted(codes) == [0, 1, 1, 1, 1, 1]
    found = results.read(RESULT.key, RESULT.measure)
    assert found is not None
    assert found.metrics == {"test/accuracy": float(codes.index(0))}
