"""An arm's own optimiser and schedule: the rates of every step, exact resume, and mistakes in one line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mvae import plugins
from mvae.data import Dataset, source
from mvae.models import ARMS, arm
from mvae.models.arm import check_arm
from mvae.refusal import Refusal
from mvae.streams import global_stream
from mvae.training import steps
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import train
from mvae.training.optimiser import Adam
from mvae.training.records import MODEL
from mvae.workers import ALONE
from sweeps.planning.probe import timed_steps
from tests.plugin_files import EXAMPLES, written
from tests.small_training import EPOCHS, STEPS, assert_identical, digits, folder, interrupted, small_trial, unbroken
from tests.sweeping import ROOT

__all__ = ["digits", "folder"]

EXAMPLE = EXAMPLES / "mmvae_plus_amsgrad.py"
RATE = 0.01


def cosine(step: int, count: int, _trial: Any) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / count))


Make = Callable[..., torch.optim.Optimizer]
OPTIMISERS: dict[str, Make] = {
    "our Adam with amsgrad": lambda of: Adam(of, lr=RATE, amsgrad=True, fused=True),
    "momentum": lambda of: torch.optim.SGD(of, lr=1e-5, momentum=0.9, nesterov=True),
    "AdamW": lambda of: torch.optim.AdamW(of, lr=RATE, amsgrad=True),
    "NAdam": lambda of: torch.optim.NAdam(of, lr=1e-3),
    "RAdam": lambda of: torch.optim.RAdam(of, lr=1e-3),
    "Adagrad": lambda of: torch.optim.Adagrad(of, lr=RATE),
    "ASGD": lambda of: torch.optim.ASGD(of, lr=1e-5),
    "RMSprop": lambda of: torch.optim.RMSprop(of, lr=1e-4, momentum=0.5),
}


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Changes fields of the arm nn."""

    def changed(**fields: Any) -> None:
        monkeypatch.setitem(ARMS, "nn", replace(ARMS["nn"], **fields))

    return changed


@pytest.fixture
def example() -> Iterator[None]:
    plugins.load(plugins.read([EXAMPLE]))
    yield
    plugins.forget()


def by(make: Make) -> Callable[[nn.Module, Any], torch.optim.Optimizer]:
    return lambda model, _trial: make(model.parameters())


@pytest.mark.parametrize("name", OPTIMISERS)
def test_training_by_an_own_optimiser_and_schedule_resumes_exactly(
    name: str, change: Callable[..., None], digits: Dataset, folder: Path, tmp_path: Path
) -> None:
    change(optimiser=by(OPTIMISERS[name]), schedule=cosine)
    trial = small_trial("nn")
    interrupted(trial, digits, folder, 2)
    whole = unbroken(trial, digits, tmp_path)
    assert_identical(train(trial, digits, Checkpoints(folder, "second")), whole)
    change(optimiser=None, schedule=None)
    plain = train(trial, digits, Checkpoints(tmp_path / "plain", "one"))
    assert whole.history[-1]["metrics"] != plain.history[-1]["metrics"]


def test_every_group_is_trained_at_its_own_rate_times_the_factor_of_the_step(
    change: Callable[..., None], digits: Dataset, tmp_path: Path
) -> None:
    def groups(model: nn.Module) -> torch.optim.Optimizer:
        first, *others = model.parameters()
        each: list[dict[str, Any]] = [{"params": [first], "lr": 0.1}, {"params": others}]
        return torch.optim.SGD(each, lr=0.02)

    trial = small_trial("nn")
    change(optimiser=lambda model, _trial: groups(model), schedule=cosine)
    trained = train(trial, digits, Checkpoints(tmp_path, "one"))

    chosen = arm("nn")
    assert chosen.learner is not None
    with global_stream(trial.seed, "initialisation"):
        model = chosen.build(trial, digits.modalities)
    learner = chosen.learner(model.train(), trial, digits)
    optimizer = groups(model)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, EPOCHS * STEPS, trial))
    for epoch in range(EPOCHS):
        for batch in learner.batches(epoch):
            optimizer.zero_grad()
            learner.loss(batch, 0).total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
    for name, weight in trained.model.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name


def test_a_schedule_of_1_changes_nothing(change: Callable[..., None], digits: Dataset, tmp_path: Path) -> None:
    trial = small_trial("nn")
    plain = train(trial, digits, Checkpoints(tmp_path / "plain", "one"))
    change(schedule=lambda _step, _steps, _trial: 1, optimiser=None)
    assert_identical(train(trial, digits, Checkpoints(tmp_path / "one", "one")), plain)


def test_an_arm_without_its_own_optimiser_stores_what_it_always_stored(digits: Dataset, tmp_path: Path) -> None:
    interrupted(small_trial("nn"), digits, tmp_path, 1)
    checkpoints = Checkpoints(tmp_path, "reader")
    found = checkpoints.latest()
    assert found is not None
    (group,) = checkpoints.load(found, "training.pt")["optimizer"]["param_groups"]
    parameters = [torch.nn.Parameter(weight) for weight in checkpoints.load(found, MODEL).values()]
    plain = torch.optim.Adam(parameters, lr=1e-3, fused=True).state_dict()
    assert group == plain["param_groups"][0]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"optimiser": lambda _model, _trial: 3},
            "arm nn: `optimiser` returned int: return a torch.optim.Optimizer",
        ),
        (
            {"schedule": lambda step, _steps, _trial: 1.0 if step < 9 else math.nan},
            "arm nn: `schedule` returned nan at step 9 of 16: return a finite number of 0 or more",
        ),
        (
            {"schedule": lambda step, _steps, _trial: 1 - step},
            "arm nn: `schedule` returned -1 at step 2 of 16: return a finite number of 0 or more",
        ),
        (
            {"schedule": lambda _step, _steps, _trial: None},
            "arm nn: `schedule` returned None at step 0 of 16: return a finite number of 0 or more",
        ),
    ],
    ids=["no optimiser", "nan", "negative", "None"],
)
def test_a_bad_optimiser_or_schedule_is_refused_before_the_first_step(
    fields: dict[str, Any], line: str, change: Callable[..., None], digits: Dataset, tmp_path: Path
) -> None:
    change(**fields)
    with pytest.raises(Refusal) as refused:
        train(small_trial("nn"), digits, Checkpoints(tmp_path, "one"), heard=lambda _: pytest.fail("trained"))
    assert str(refused.value) == line


@pytest.mark.parametrize(
    ("model", "fields", "line"),
    [
        ("nn", {"schedule": 0.5}, "arm nn: `schedule` must be a function, not float"),
        ("nn", {"optimiser": "adam"}, "arm nn: `optimiser` must be a function, not str"),
        (
            "logreg",
            {"schedule": cosine},
            "arm logreg is fitted without gradient steps: remove `schedule`, or set `learner`",
        ),
    ],
)
def test_an_arm_with_an_unusable_optimiser_or_schedule_is_refused(
    model: str, fields: dict[str, Any], line: str
) -> None:
    with pytest.raises(Refusal) as refused:
        check_arm(replace(arm(model), **fields))
    assert str(refused.value) == line


def test_a_schedule_can_only_read_the_fields_in_reads(digits: Dataset, tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8").replace('trial.own_value("warm_up")', "trial.alpha")
    plugins.load(plugins.read([written(tmp_path, text)]))
    try:
        with pytest.raises(AttributeError, match=r"reads trial\.alpha, which is not in its `reads`"):
            train(small_trial("mmvae_plus_amsgrad"), digits, Checkpoints(tmp_path, "one"))
    finally:
        plugins.forget()


def test_steps_of_an_own_optimiser_or_schedule_are_not_recorded(change: Callable[..., None]) -> None:
    def recorded() -> bool:
        return steps.may_be_recorded(small_trial("nn"), source("digits").modalities, ALONE, torch.device("cuda"))

    assert recorded()
    change(schedule=cosine)
    assert not recorded()
    change(schedule=None, optimiser=by(OPTIMISERS["AdamW"]))
    assert not recorded()


# The example


def test_the_examples_page_shows_the_file_that_the_tests_run() -> None:
    page = (ROOT / "docs" / "extend" / "arm.md").read_text(encoding="utf-8")
    shown = EXAMPLE.read_text(encoding="utf-8")
    assert shown[shown.index("def optimiser") : shown.index("mvae.models.add")].strip() in page


@pytest.mark.usefixtures("example")
def test_the_example_warms_up_resumes_exactly_and_is_estimated(digits: Dataset, folder: Path, tmp_path: Path) -> None:
    trial = small_trial("mmvae_plus_amsgrad", own={"warm_up": 0.5, "private_latents": 2})
    schedule = arm(trial.model).schedule
    assert schedule is not None
    assert [schedule(step, 16, trial) for step in (0, 3, 7, 15)] == [1 / 8, 1 / 2, 1, 1]
    interrupted(trial, digits, folder, 1)
    checkpoints = Checkpoints(folder, "second")
    found = checkpoints.latest()
    assert found is not None
    stored = checkpoints.load(found, "training.pt")["optimizer"]
    resumed = train(trial, digits, checkpoints)
    assert_identical(resumed, unbroken(trial, digits, tmp_path))
    assert stored["param_groups"][0]["amsgrad"] and stored["param_groups"][0]["initial_lr"] == trial.learning_rate
    assert "max_exp_avg_sq" in stored["state"][1]
    times = timed_steps(resumed.model, trial, digits)
    assert times.wall > 0 and times.steps_per_epoch == STEPS
