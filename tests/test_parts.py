"""Parts of a long measure: stored when finished, reused by a later process, and deleted after the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mvae.evaluation.likelihood_estimates as likelihood_module
from mvae.evaluation.likelihood_estimates import split_likelihoods
from mvae.measure import likelihood
from mvae.storage.objects import place
from mvae.training.records import Checkpoint
from sweeps.store.store import Store
from sweeps.trials.messages import Job, Message
from sweeps.trials.parts import PartFiles
from sweeps.trials.run import run
from tests.linear_gaussian import LinearGaussian
from tests.sweeping import digits_job

F64 = torch.float64


class Memory:
    """Parts in memory, with a list of the requested ones."""

    def __init__(self, **parts: dict[str, Tensor]) -> None:
        self.parts: dict[str, dict[str, Tensor]] = parts
        self.written: list[str] = []

    def read(self, name: str) -> dict[str, Tensor] | None:
        return self.parts.get(name)

    def write(self, name: str, found: dict[str, Tensor]) -> None:
        self.parts[name] = found
        self.written.append(name)


def test_only_missing_parts_are_computed_and_the_numbers_equal_an_unbroken_measure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(likelihood_module, "ENCODED", 8)
    model = LinearGaussian(2, 1.3)
    examples = model.examples(20)

    def measured(parts: Memory | None) -> dict[str, Tensor]:
        return split_likelihoods(model, examples, samples=30, seed=1, dtype=F64, parts=parts)

    unbroken, kept = measured(None), Memory()
    assert all(torch.equal(value, unbroken[name]) for name, value in measured(kept).items())
    assert kept.written == ["0-8", "8-16", "16-20"]
    later = Memory(**{name: part for name, part in kept.parts.items() if name != "8-16"})
    assert all(torch.equal(value, unbroken[name]) for name, value in measured(later).items())
    assert later.written == ["8-16"]


def weights(tmp_path: Path, digest: str) -> Checkpoint:
    class File:
        sha256 = digest

    return Checkpoint(place(tmp_path), 1, "one", {"model.pt": File()}, [], {}, False)  # type: ignore[dict-item]


def test_parts_are_reused_only_for_the_same_weights_and_device(tmp_path: Path) -> None:
    mine = PartFiles(tmp_path / "key", "likelihood-s10-v1", weights(tmp_path, "a"), "cpu")
    found = {"log_joint": torch.randn(5, dtype=F64)}
    mine.write("0", found)
    again = PartFiles(tmp_path / "key", "likelihood-s10-v1", weights(tmp_path, "a"), "cpu").read("0")
    assert again is not None and torch.equal(again["log_joint"], found["log_joint"])
    assert mine.read("500") is None
    for measure, digest, device in (
        ("likelihood-s20-v1", "a", "cpu"),
        ("likelihood-s10-v1", "b", "cpu"),
        ("likelihood-s10-v1", "a", "cuda"),
    ):
        assert PartFiles(tmp_path / "key", measure, weights(tmp_path, digest), device).read("0") is None
    mine.remove()
    assert mine.read("0") is None and not (tmp_path / "key").exists()


def test_a_damaged_part_is_computed_again_and_an_unwritable_one_stops_nothing(tmp_path: Path) -> None:
    mine = PartFiles(tmp_path / "parts", "likelihood-s10-v1", weights(tmp_path, "a"), "cpu")
    mine.write("0", {"x": torch.zeros(3)})
    path = mine.folder / "0.pt"
    path.write_bytes(path.read_bytes()[:-20])
    assert mine.read("0") is None
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    in_the_way = PartFiles(tmp_path / "file", "likelihood-s10-v1", weights(tmp_path, "a"), "cpu")
    in_the_way.write("0", {"x": torch.zeros(3)})


def test_a_trial_killed_while_being_measured_resumes_with_the_missing_parts_and_gives_the_same_result(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood_module, "ENCODED", 100)
    monkeypatch.setattr(likelihood_module, "PRIOR_SAMPLES", 100)
    measure = likelihood(5)

    def job(name: str) -> Job:
        made = digits_job(Store.open(tmp_path / name, "main", create=True), cache, model="mvae")
        return Job(**{**made.__dict__, "measures": (measure,)})

    def metrics(of: Job) -> dict[str, float]:
        result = of.store.results.read(of.key, measure.token)
        assert result is not None
        return result.metrics

    unbroken, killed = job("unbroken"), job("killed")
    run(unbroken, lambda _: None)
    assert not unbroken.store.measuring(unbroken.key).exists()

    write, written = PartFiles.write, list[str]()

    def dies(parts: PartFiles, name: str, found: dict[str, Tensor]) -> None:
        write(parts, name, found)
        written.append(name)
        if len(written) == 2:
            raise RuntimeError("killed here")

    said: list[Message] = []
    with monkeypatch.context() as once:
        once.setattr(PartFiles, "write", dies)
        run(killed, said.append)
    assert said[-1].failed == "killed here"
    assert written == ["0-100", "100-200"]

    def noted(parts: PartFiles, *arguments: Any) -> None:
        written.append(arguments[0])
        write(parts, *arguments)

    monkeypatch.setattr(PartFiles, "write", noted)
    run(killed, said.append)
    assert said[-1].done and written == ["0-100", "100-200", "200-250"]
    assert metrics(killed) == metrics(unbroken)
    assert not killed.store.measuring(killed.key).exists()
