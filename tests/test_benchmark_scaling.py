"""The benchmark of two workers against one worker: both sides train, and the table shows the measurements."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import scaling


@pytest.mark.slow
def test_the_scaling_benchmark_prints_and_writes_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(scaling.__file__).parents[1]))
    out = tmp_path / "scaling.json"
    options = scaling.Options(batches="20,40", blocks=3, seconds=0.05, out=out)
    monkeypatch.setattr(sys, "argv", ["scaling"])
    scaling.main(options)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["whole", "20", "40", "claim:"]
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["claim"] == scaling.CLAIM and [line["batch"] for line in written["compared"]] == [20, 40]
    for line in written["compared"]:
        assert 0 < line["ratio"]["low"] <= line["ratio"]["median"] <= line["ratio"]["high"]
        assert line["steps"] >= 2 and line["one"]["median"] > 0 and line["two"]["median"] > 0
