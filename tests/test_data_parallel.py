"""Worker processes that share each step get the numbers of one worker, equal on all workers and after any kill."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mvae.workers import ALONE
from tests import data_parallel_runs as runs

pytestmark = pytest.mark.slow

Here = Callable[[runs.Scene], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Ended:
    """Output files and standard errors of a plan's processes."""

    folder: Path
    codes: list[int]
    said: list[str]
    """Standard error of each process."""

    def of(self, scene: str, rank: int = 0) -> dict[str, Any]:
        """Results of one worker in one scene."""
        told: dict[str, Any] = torch.load(self.folder / f"{scene}-{rank}.pt", weights_only=True)
        return told


def together(plan: str, folder: Path, cache: Path) -> Ended:
    """Runs a plan's processes to their end."""
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.data_parallel_runs", plan, str(folder), str(cache), str(rank)],
            env=environment,
            cwd=Path(__file__).parents[1],
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        for rank in range(runs.PLANS[plan][0][0])
    ]
    try:
        said = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return Ended(folder, [process.returncode for process in processes], said)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Ended:
    """Runs three workers, then two. The first of the two is killed at the end."""
    runs.digits(cache, 10)  # converts the data once, before several processes need them
    return together("three, then two", tmp_path_factory.mktemp("together"), cache)


@pytest.fixture(scope="module")
def again(ended: Ended, cache: Path) -> Ended:
    """New processes that resume the killed training."""
    return together("resumed", ended.folder, cache)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Here:
    """Runs a scene with one worker, in this process."""
    folder = tmp_path_factory.mktemp("alone")
    told: dict[str, dict[str, Any]] = {}

    def of(scene: runs.Scene) -> dict[str, Any]:
        name = scene.__name__
        if name not in told:
            told[name] = scene(folder / name, cache, ALONE)
        return told[name]

    return of


def test_two_workers_have_the_same_losses_as_one(ended: Ended, here: Here) -> None:
    alone, shared = here(runs.fifty_steps), ended.of("fifty_steps_2")
    ratios = torch.tensor(shared["losses"]).double() / torch.tensor(alone["losses"]).double()
    assert len(ratios) > runs.STEPS
    assert (ratios - 1).abs().max() < 1e-5
    (whole,), (of_all,) = alone["metrics"], shared["metrics"]
    assert whole == pytest.approx(of_all, rel=1e-4)


@pytest.mark.parametrize("scene", ["fifty_steps_2", "unbroken_2", "own_statistics"])
def test_weights_and_buffers_are_equal_bit_for_bit_on_all_workers(scene: str, ended: Ended) -> None:
    first, second = ended.of(scene, 0), ended.of(scene, 1)
    assert runs.digest(first["weights"]) == runs.digest(second["weights"])
    assert first["metrics"] == second["metrics"]


def test_workers_do_not_wait_for_a_killed_worker(ended: Ended) -> None:
    assert ended.codes[0] == -9 and ended.codes[2] == 0
    assert ended.codes[1] in (1, -6) and "gloo" in ended.said[1]
    assert not (ended.folder / "killed-1.pt").exists()


def test_workers_resumed_after_a_kill_equal_workers_that_never_stopped(ended: Ended, again: Ended) -> None:
    assert again.codes == [0, 0], again.said
    for rank in range(2):
        unbroken, resumed = ended.of("unbroken_2", rank), again.of("resumed_2", rank)
        assert runs.digest(unbroken["weights"]) == runs.digest(resumed["weights"])
        assert unbroken["metrics"] == resumed["metrics"] and len(resumed["metrics"]) == 3


def test_workers_with_an_own_optimiser_and_schedule_resume_exactly_and_agree_with_one(ended: Ended, here: Here) -> None:
    alone = here(runs.own_optimiser)["whole"]["metrics"]
    for rank in range(2):
        shared = ended.of("own_optimiser_2", rank)
        assert shared["epochs"] == ([2, 3] if rank == 0 else [])
        assert runs.digest(shared["whole"]["weights"]) == runs.digest(shared["again"]["weights"])
        assert shared["whole"]["metrics"] == shared["again"]["metrics"]
        for whole, of_all in zip(alone, shared["whole"]["metrics"], strict=True):
            assert whole == pytest.approx(of_all, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("count", [2, 3])
def test_workers_without_rows_take_part_in_the_step(count: int, ended: Ended, here: Here) -> None:
    alone = here(runs.no_rows)
    for rank in range(count):
        shared = ended.of(f"no_rows_{count}", rank)
        for name, told in shared.items():
            for epoch, metrics in enumerate(told["metrics"]):
                assert metrics == pytest.approx(alone[name]["metrics"][epoch], rel=1e-3, abs=1e-4), (name, epoch)


def test_two_workers_train_each_successor_like_one_and_alike_bit_for_bit(ended: Ended, here: Here) -> None:
    alone, first, second = here(runs.successors), ended.of("successors_2", 0), ended.of("successors_2", 1)
    assert len(alone) == 8
    for name, whole in alone.items():
        assert runs.digest(first[name]["weights"]) == runs.digest(second[name]["weights"]), name
        for one, other in zip(whole["metrics"], first[name]["metrics"], strict=True):
            assert one == pytest.approx(other, rel=1e-3, abs=1e-4), name
        for parameter, value in whole["weights"].items():
            torch.testing.assert_close(first[name]["weights"][parameter], value, rtol=1e-2, atol=1e-4)


def test_three_workers_give_the_same_numbers_as_one(ended: Ended, here: Here) -> None:
    alone, shared = here(runs.unbroken), ended.of("unbroken_3", 2)
    for whole, of_all in zip(alone["metrics"], shared["metrics"], strict=True):
        assert whole == pytest.approx(of_all, rel=1e-3, abs=1e-4)


def test_all_workers_raise_the_same_error_for_a_non_finite_loss(ended: Ended, here: Here) -> None:
    first, second = (ended.of("not_finite", rank)["said"] for rank in range(2))
    assert first == second == here(runs.not_finite)["said"]
    assert "the loss is not finite at epoch 1, step " in first


def test_with_shared_statistics_two_workers_normalise_like_one(ended: Ended, here: Here) -> None:
    alone = here(runs.normalised)
    for rank in range(2):
        shared = ended.of("normalised_2", rank)
        for kind, tolerance in {"shared": 1e-9, "float32": 2e-3}.items():
            one, other = alone[kind], shared[kind]
            assert len(one["losses"]) == 2
            torch.testing.assert_close(one["losses"], other["losses"], rtol=tolerance, atol=0.0)
            torch.testing.assert_close(one["statistics"], other["statistics"], rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(one["gradients"], other["gradients"], rtol=tolerance, atol=10 * tolerance)


def test_a_network_without_rows_in_a_step_has_no_gradient_on_any_worker(ended: Ended, here: Here) -> None:
    whole = [set(gradients) for gradients in here(runs.normalised)["shared"]["gradients"]]
    assert {name.split(".")[0] for name in whole[0] - whole[1]} == {"decoders"}
    for rank in range(2):
        shared = ended.of("normalised_2", rank)["shared"]["gradients"]
        assert [set(gradients) for gradients in shared] == whole


def test_without_shared_statistics_two_workers_give_other_numbers_than_one(ended: Ended, here: Here) -> None:
    alone, shared = (told["apart"]["gradients"][0] for told in (here(runs.normalised), ended.of("normalised_2")))
    one, other = (torch.cat([gradient.flatten() for gradient in told.values()]) for told in (alone, shared))
    assert (one - other).norm() > 0.01 * one.norm()


def test_torch_prints_no_warnings(ended: Ended) -> None:
    assert ended.said[0] == ended.said[2] == ""
