"""Worker processes of tests/test_data_parallel.py: python -m tests.data_parallel_runs PLAN FOLDER CACHE RANK.

Each scene writes one file per worker, <scene>-<rank>.pt; the tests compare these files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from mvae import plugins
from mvae.data import load
from mvae.data.dataset import Kind, Modality
from mvae.data.examples import Dataset, Split
from mvae.models import arm
from mvae.networks.normalisation import share_statistics
from mvae.training import loop as training
from mvae.training.checkpoint import Checkpoints
from mvae.training.data_parallel import DataParallel
from mvae.training.loop import NonFiniteLoss, Progress, train
from mvae.trial import Trial
from mvae.workers import Workers
from tests.small_models import PHOTO, shortened

STEPS = 50
ELASTIC = {"fewest_workers": 1, "workers": 3}
"""Fields of a trial that one, two or three workers may train."""
PHOTOS = (PHOTO, Modality("attributes", Kind.ATTRIBUTES, (3,), attributes=("a", "b", "c")))


def trial_of(model: str = "mvae", **fields: Any) -> Trial:
    return Trial.create(
        dataset="digits", model=model, **{"latents": 4, "epochs": 1, "batch_size": 24, **ELASTIC, **fields}
    )


def digits(cache: Path, examples: int) -> Dataset:
    return shortened(load("digits", cache=cache), train=examples)


def numbers(trained: training.Trained) -> dict[str, Any]:
    """Values that must be equal bit for bit on all workers and in every attempt."""
    state = {name: value.clone() for name, value in trained.model.state_dict().items()}
    return {"weights": state, "metrics": [record["metrics"] for record in trained.history]}


def trained_with_losses(trial: Trial, data: Dataset, folder: Path, workers: Workers) -> dict[str, Any]:
    """Trains, and records the loss of each step."""
    losses: list[float] = []
    means = training._FiniteWatch.means

    def noted(self: training._FiniteWatch) -> dict[str, float]:
        found = means(self)
        losses.extend(row[0] for row in self.rows)
        return found

    training._FiniteWatch.means = noted  # type: ignore[method-assign]
    try:
        trained = train(trial, data, Checkpoints(folder, "one"), workers=workers)
    finally:
        training._FiniteWatch.means = means  # type: ignore[method-assign]
    return {"losses": losses, **numbers(trained)}


def fifty_steps(folder: Path, cache: Path, workers: Workers) -> dict[str, Any]:
    """Trains an MLP for one epoch of slightly more than 50 steps."""
    return trained_with_losses(trial_of(), digits(cache, STEPS * 24 + 20), folder, workers)


def long_trial() -> Trial:
    return trial_of(epochs=3, batch_size=24, pairing="resampled", paired_fraction=0.5)


def unbroken(folder: Path, cache: Path, workers: Workers) -> dict[str, Any]:
    """Trains for three epochs and saves each one in the background."""
    checkpoints = Checkpoints(folder, "one")
    return numbers(
        train(long_trial(), digits(cache, 100), checkpoints, workers=workers, checkpoint_every=0, background=True)
    )


def killed(folder: Path, cache: Path, workers: Workers) -> dict[str, Any]:
    """Trains until the first worker is killed after an epoch; the other workers must not wait for it."""

    def heard(progress: Progress) -> None:
        if progress.epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    train(
        long_trial(), digits(cache, 100), Checkpoints(folder, "one"), workers=workers, checkpoint_every=0, heard=heard
    )
    raise AssertionError("nobody was killed")


def resumed(folder: Path, cache: Path, workers: Workers) -> dict[str, Any]:
    """Resumes the killed training. Only the first worker sees the checkpoint."""
    seen = folder if workers.first else folder.with_name("elsewhere")
    return numbers(train(long_trial(), digits(cache, 100), Checkpoints(seen, "two"), workers=workers))


def no_rows(folder: Path, cache: Path, workers: Workers) -> dict[str, Any]:
    """Trains arms of every kind; the last step of an epoch has a single example."""
    told = {}
    for model in ("vae", "rbm", "jmvae", "nn"):
        trial = trial_of(model, epochs=2, alpha=0.0)  # so that some encoders of a jmvae are never used
        told[model] = numbers(train(trial, digits(cache, 49), Checkpoints(folder / model, "one"), workers=workers))
    dropping = trial_of(pairing="proportional", keep_probability=0.1)
    told["dropping"] = numbers(train(dropping, digits(cache, 260), Checkpoints(folder / "d", "one"), workers=workers))
    return told


def successors(folder: Path, cache: Path, workers: Workers) -> dict[str, Any]:
    """Trains the MVAE's successors on pairs and on examples with missing values; an epoch's last step has few rows."""
    incomplete: dict[str, dict[str, Any]] = {
        "pairs": {"paired_fraction": 0.3},
        "missing": {"pairing": "proportional", "keep_probability": 0.4},
    }
    told = {}
    for model in ("mopoe", "mvtcae", "mmvae", "mmvae_plus"):
        own = {"samples": 3} if model.startswith("mmvae") else None
        for name, fields in incomplete.items():
            trial, kept = trial_of(model, epochs=2, own=own, **fields), Checkpoints(folder / model / name, "one")
            told[f"{model}, {name}"] = numbers(train(trial, digits(cache, 49), kept, workers=workers))
    return told


def not_finite(folder: Path, cache: Path, workers: Workers) -> dict[str, Any]:
    """Trains with a learning rate that breaks the weights in the first steps."""
    try:
        train(trial_of(learning_rate=1e30), digits(cache, 1300), Checkpoints(folder, "one"), workers=workers)
    except NonFiniteLoss as error:
        return {"said": str(error)}
    raise AssertionError("the loss stayed finite")


def photos(n: int) -> Dataset:
    draw = np.random.default_rng(3)
    images = torch.from_numpy(draw.integers(0, 256, (n, 3, 64, 64), dtype=np.uint8))
    split = Split((images, torch.from_numpy(draw.integers(0, 2, (n, 3), dtype=np.uint8))))
    return Dataset("faces", PHOTOS, "0" * 64, split, split, split)


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def normalised_step(workers: Workers, *, shared: bool, dtype: torch.dtype) -> dict[str, Any]:
    """Loss, gradients and running statistics of DCGAN steps; the last step has a single row."""
    data = photos(10)  # 9 photos keep a value; the last of these keeps only its image
    dropping: dict[str, Any] = {"pairing": "proportional", "keep_probability": 0.7, "seed": 4}
    trial = Trial.create(dataset="celeba", model="mvae", latents=5, batch_size=8, epochs=1, **dropping)
    torch.manual_seed(0)
    model = without_dropout(arm("mvae").build(trial, PHOTOS)).to(dtype).train()
    make = arm("mvae").learner
    assert make is not None
    learner: Any = make(model, trial, data, workers)
    if shared:
        share_statistics(model, workers)
    if not workers.alone:
        learner = DataParallel(learner, model)
    told: dict[str, Any] = {"losses": [], "gradients": []}
    for step, batch in enumerate(learner.batches(0)):
        values = tuple(value.to(dtype) if value.is_floating_point() else value for value in batch.values)
        loss = learner.loss(dataclasses.replace(batch, values=values, noise=batch.noise.to(dtype)), step)
        model.zero_grad(set_to_none=True)
        loss.total.backward()
        told["losses"].append(workers.add_(loss.total.detach()))
        there = {name: parameter.grad for name, parameter in model.named_parameters()}
        told["gradients"].append({name: grad.clone() for name, grad in there.items() if grad is not None})
    told["statistics"] = {name: buffer.clone() for name, buffer in model.named_buffers()}
    return told


def normalised(_folder: Path, _cache: Path, workers: Workers) -> dict[str, Any]:
    """Takes steps, once with statistics shared by all workers, once with separate statistics for each worker."""
    ways = {"shared": True, "apart": False}
    told: dict[str, Any] = {
        name: normalised_step(workers, shared=shared, dtype=torch.float64) for name, shared in ways.items()
    }
    told["float32"] = normalised_step(workers, shared=True, dtype=torch.float32)
    return told


def own_statistics(folder: Path, _cache: Path, workers: Workers) -> dict[str, Any]:
    """Trains with workers that each normalise by their own rows."""
    trial = Trial.create(dataset="celeba", model="mvae", latents=5, batch_size=6, epochs=1, **ELASTIC)
    return numbers(train(trial, photos(8), Checkpoints(folder, "one"), workers=workers))


def own_optimiser(folder: Path, cache: Path, workers: Workers) -> dict[str, Any]:
    """Trains an arm with its own optimiser and schedule, loses the last checkpoint, and resumes from the one before."""
    plugins.load(plugins.read([Path(__file__).parents[1] / "docs" / "examples" / "mmvae_plus_amsgrad.py"]))
    trial = trial_of("mmvae_plus_amsgrad", epochs=3, own={"private_latents": 2, "warm_up": 0.8})
    data = digits(cache, 100)
    whole = train(trial, data, Checkpoints(folder, "one"), workers=workers, checkpoint_every=0)
    if workers.first:
        shutil.rmtree(folder / "000003-one")
    heard: list[int] = []
    again = train(
        trial, data, Checkpoints(folder, "two"), workers=workers, heard=lambda progress: heard.append(progress.epoch)
    )
    plugins.forget()
    return {"whole": numbers(whole), "again": numbers(again), "epochs": heard}


Scene = Callable[[Path, Path, Workers], dict[str, Any]]
OF_THREE: dict[str, Scene] = {"no_rows_3": no_rows, "unbroken_3": unbroken}
OF_TWO: dict[str, Scene] = {
    "fifty_steps_2": fifty_steps,
    "no_rows_2": no_rows,
    "successors_2": successors,
    "unbroken_2": unbroken,
    "not_finite": not_finite,
    "normalised_2": normalised,
    "own_statistics": own_statistics,
    "own_optimiser_2": own_optimiser,
    "killed": killed,
}
PLANS: dict[str, list[tuple[int, dict[str, Scene]]]] = {
    "three, then two": [(3, OF_THREE), (2, OF_TWO)],
    "resumed": [(2, {"resumed_2": resumed})],
}
"""Scenes that a set of processes runs in order; processes that later scenes do not need end early."""


def folder_of(scene: str) -> str:
    """Folder of a scene's checkpoints. The resumed scene uses the killed scene's folder."""
    return "killed" if scene == "resumed_2" else scene


def digest(state: dict[str, Tensor]) -> str:
    """SHA-256 of weights and buffers."""
    return hashlib.sha256(b"".join(value.contiguous().numpy().tobytes() for value in state.values())).hexdigest()


def main(plan: str, folder: Path, cache: Path, rank: int) -> None:
    torch.set_num_threads(1)
    for count, scenes in PLANS[plan]:
        if rank >= count:
            return
        meeting = (folder / f"meeting-{count}-{plan.split()[0]}").as_uri()
        dist.init_process_group(
            "gloo", init_method=meeting, rank=rank, world_size=count, timeout=timedelta(seconds=120)
        )
        for scene, run in scenes.items():
            told = run(folder / folder_of(scene), cache, Workers(rank, count))
            torch.save(told, folder / f"{scene}-{rank}.pt")
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
