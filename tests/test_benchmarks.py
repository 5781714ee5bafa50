"""The benchmarks: equal work on both sides, exact lockstep, and a GPU command that resumes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import expert_precisions, plain, timing
from benchmarks import likelihood as likelihood_benchmark
from benchmarks import training as training_benchmark
from benchmarks.gpu_runs import cells, command, pack
from benchmarks.gpu_runs.throughput import QUICK, WAYS, Setting, together
from mvae.data import fingerprint, load, source
from mvae.measure import ACCURACY
from mvae.models.elbo import negative_elbo
from mvae.models.mvae import MVAE, ElboLearner, build_mvae
from mvae.training.checkpoint import Checkpoints
from mvae.trial import Trial
from sweeps.store.provenance import git_sha
from sweeps.store.results import Results
from sweeps.store.store import Store
from sweeps.trials.messages import Job
from sweeps.trials.run import run as run_job
from tests.sweeping import digits_job

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")


def digits_trial(model: str, **fields: Any) -> Trial:
    return Trial.create(dataset="digits", model=model, **{"epochs": 2, "batch_size": 100, **fields})


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A packed folder of the digits, with two models to time and two cells of two epochs."""
    folder = tmp_path_factory.mktemp("pack")
    timed = {model: digits_trial(model, pairing="proportional") for model in ("mvae", "nn")}
    pack.write(folder, [load("digits", cache=cache)], timed, [digits_trial("mvae"), digits_trial("nn")])
    return folder


@pytest.mark.parametrize("network", ["mlp", "dcgan"])
@pytest.mark.parametrize("hand", [plain.RELEASED, plain.MODERN], ids=["released", "modern"])
def test_the_plain_loop_has_our_networks_and_our_loss(network: str, hand: plain.Hand) -> None:
    trial = Trial.create(dataset="fashion_mnist", model="mvae", image_network=network, pairing="proportional", epochs=1)
    data = timing.random_data("fashion_mnist", source("fashion_mnist").modalities, 100)
    ours, theirs = build_mvae(trial, data.modalities), plain.PlainMvae(network, hand)
    for name, encoder, decoder in zip(("image", "label"), ours.encoders, ours.decoders, strict=True):
        for mine, other in ((encoder, theirs.encoders[name]), (decoder, theirs.decoders[name])):
            pairs = list(zip(mine.parameters(), other.parameters(), strict=True))
            for parameter, copy in pairs:
                assert parameter.shape == copy.shape
                copy.data.copy_(parameter.data)
    learner = ElboLearner(ours, trial, data)
    batch = next(learner.batches(0))
    torch.manual_seed(3)
    noise = torch.stack([torch.randn(100, trial.latents) for _ in range(3)])
    loss = negative_elbo(ours, batch.plan, batch.values, noise, beta=0.5, weights=learner.weights, batch_size=100)
    torch.manual_seed(3)
    named = dict(zip(("image", "label"), batch.values, strict=True))
    other_loss = plain.elbo_loss(theirs, hand, named, beta=0.5)
    torch.testing.assert_close(loss.total, other_loss, rtol=1e-5, atol=0)


def test_the_training_benchmark_counts_the_operations_of_a_step() -> None:
    line = training_benchmark.compare("MNIST (MLP)", "mnist", "mlp", steps=1, blocks=3, examples=200)
    image_encoder, label_encoder = 784 * 512 + 512 * 512 + 512 * 128, 512 * 512 + 512 * 128
    image_decoder, label_decoder = 64 * 512 + 512 * 512 + 512 * 784, 64 * 512 + 512 * 512 + 512 * 10
    # One product forward and two backward, except for the gradient of the pixels. Ten labels are encoded, not a
    # hundred.
    rows = 3 * (100 * image_encoder + 10 * label_encoder + 200 * image_decoder + 200 * label_decoder) - 100 * 784 * 512
    assert line.gflop == pytest.approx(2 * rows / 1e9, rel=0.01)
    assert line.of_peak.median > 0
    assert line.released.low <= line.released.median <= line.released.high


def test_contenders_take_turns_and_every_second_block_runs_in_reverse() -> None:
    order: list[str] = []
    taken = timing.in_turn({name: lambda _, name=name: order.append(name) for name in "ab"}, steps=1, blocks=3)  # type: ignore[misc]
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"  # the first two blocks are warm-up
    assert {len(values) for values in taken.values()} == {3}


def test_a_file_of_numbers_names_no_host_and_no_folder() -> None:
    written = json.dumps(timing.machine())
    assert os.uname().nodename not in written
    assert "/" not in written.replace("/s", "")


def test_models_trained_in_lockstep_take_the_same_steps_as_single_models(packed: Path) -> None:
    read = pack.read(packed)
    jointly = together(read.timed["mvae"], read, 3, CPU)
    alone = [
        Setting.of(pack.PackedTrial("", {**read.timed["mvae"].fields, "seed": seed}), read, CPU) for seed in range(3)
    ]

    def trained(setting: Setting) -> torch.nn.Module:
        optimizer = torch.optim.Adam(setting.model.parameters(), lr=1e-3, fused=True)
        for step, batch in zip(range(4), setting.learner.batches(0), strict=False):
            optimizer.zero_grad()
            setting.learner.loss(batch, step).total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return setting.model

    stacked = trained(jointly)
    assert isinstance(stacked, MVAE)
    for m, setting in enumerate(alone):
        model = trained(setting)
        assert isinstance(model, MVAE)
        for whole, part in zip(stacked.decoders, model.decoders, strict=True):
            for position, linear in enumerate([one for one in part.layers if isinstance(one, torch.nn.Linear)]):  # type: ignore[union-attr]
                weight = whole.layers.weights[position][m].t()  # type: ignore[union-attr,index]
                torch.testing.assert_close(weight, linear.weight, rtol=1e-4, atol=1e-5)
        table = stacked.encoders[1].embedding[m]  # type: ignore[index]
        torch.testing.assert_close(table, model.encoders[1].embedding.weight, rtol=1e-4, atol=1e-5)  # type: ignore[union-attr]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
def test_every_way_of_running_a_step_is_measured_on_a_gpu(packed: Path) -> None:
    read = pack.read(packed)
    for way, measure in WAYS.items():
        speeds = measure(Setting.of(read.timed["mvae"], read, torch.device("cuda")), QUICK)
        assert way in speeds
        assert all(speed > 0 for speed in speeds.values())


WITHOUT = """
import sys
for absent in ("pydantic", "pydantic_settings", "ray", "mlflow", "sklearn", "pandas", "matplotlib", "rich"):
    sys.modules[absent] = None
from benchmarks.gpu_runs.command import main
sys.exit(main(sys.argv[1:]))
"""


def call(packed: Path, out: Path, *options: str) -> dict[str, Any]:
    arguments = ["--data", str(packed), "--out", str(out), "--scratch", str(out / "scratch"), "--quick", *options]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=120
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads((out / command.RESULTS).read_text(encoding="utf-8"))
    return told


def test_the_gpu_command_needs_few_packages_resumes_and_its_cells_become_results(
    packed: Path, tmp_path: Path, cache: Path, written_by_a_sweep: dict[str, Any]
) -> None:
    first = call(packed, tmp_path / "one", "--minutes", "0")
    assert [first["throughput"][label]["eager"] > 0 for label in ("mvae", "nn")] == [True, True]
    assert [f"{models} models" for models in command.LOCKSTEP_MODELS] == list(first["lockstep"])
    assert first["cells"] == []
    assert any("2 of 2 cells" in line for line in first["skipped"])
    earlier = str(tmp_path / "one" / command.RESULTS)
    second = call(packed, tmp_path / "two", "--minutes", "2", "--processes", "1", "--continue-from", earlier)
    assert second["throughput"] == first["throughput"]
    assert [cell["trial"]["model"] for cell in second["cells"]] == ["mvae", "nn"]
    third = call(packed, tmp_path / "two", "--minutes", "2")
    assert third["cells"] == second["cells"]

    storage = tmp_path / "storage"
    assert command.main(["--take", str(tmp_path / "two" / command.RESULTS), "--storage", str(storage)]) == 0
    fingerprint = load("digits", cache=cache).fingerprint
    for model in ("mvae", "nn"):
        trial = digits_trial(model)
        result = Results(storage / "main" / "results").read(trial.key(fingerprint), ACCURACY.token)
        assert result is not None
        assert Trial(**result.trial) == trial
        assert set(result.metrics) == {ACCURACY.metric, "best/validation_accuracy", "best/epoch"}
        assert len(result.history) == trial.epochs
        assert result.provenance.keys() - {"made_by", "machine"} == written_by_a_sweep.keys()
        same = ("device", "device_name", "threads", "versions", "epochs", "data", "training_version", "mixed", "git")
        assert {name: result.provenance[name] for name in same} == {name: written_by_a_sweep[name] for name in same}


@pytest.fixture
def written_by_a_sweep(tmp_path: Path, cache: Path) -> dict[str, Any]:
    """Provenance that a sweep's worker writes into a result."""
    store = Store.open(tmp_path / "sweep", "main", create=True)
    job = replace(digits_job(store, cache), git=git_sha())
    run_job(job, lambda _: None)
    (result,) = store.results
    return result.provenance


def test_an_interrupted_cell_resumes_and_ends_with_the_same_numbers(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "CHECKPOINT_EVERY", 0.0)
    read = pack.read(packed)
    cell = next(one for one in read.cells if one.fields["model"] == "mvae")
    whole = cells.trained_cell(cell, read, tmp_path / "whole", CPU)
    with pytest.raises(cells.OutOfTime):
        cells.trained_cell(cell, read, tmp_path / "cut", CPU, deadline=0.0)
    kept = Checkpoints(tmp_path / "cut" / cell.key, "reader").latest()
    assert kept is not None
    assert kept.epoch == 1
    again = cells.trained_cell(cell, read, tmp_path / "cut", CPU)
    assert again["metrics"] == whole["metrics"]
    assert [attempt["from_epoch"] for attempt in again["provenance"]["attempts"]] == [0, 1]


def test_several_processes_share_the_cells(packed: Path, tmp_path: Path) -> None:
    read = pack.read(packed)
    results: list[dict[str, Any]] = []
    broken = pack.PackedTrial("broken", {**read.cells[0].fields, "learning_rate": 1e30})
    lines: list[str] = []
    cells.run_cells(
        read,
        [broken, *read.cells],
        scratch=tmp_path,
        device=CPU,
        deadline=time.time() + 300,
        processes=2,
        done=results.append,
        failed=lines.append,
    )
    assert {result["key"] for result in results} == {cell.key for cell in read.cells}
    assert len(lines) == 1
    assert lines[0].startswith("cell broken: NonFiniteLoss: the loss is not finite at epoch 1")


def test_a_missing_pack_gives_a_one_line_error_that_says_how_to_make_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--out", str(tmp_path), "--data", str(tmp_path / "nowhere")]) == 2
    assert "benchmarks/gpu --pack DIR" in capsys.readouterr().err
    (tmp_path / pack.FILE).write_text("{}", encoding="utf-8")
    assert command.main(["--out", str(tmp_path), "--data", str(tmp_path)]) == 2
    assert "packed by another version: make the pack again" in capsys.readouterr().err


def test_the_pack_holds_each_trial_of_table_4_once_with_the_sweeps_keys() -> None:
    trials = pack.table_4()
    keys = [trial.key("any") for trial in trials]
    assert len(set(keys)) == len(keys)
    assert {trial.dataset for trial in trials} == {"fashion_mnist"}
    assert [(one.pairing, one.targets, one.paired_fraction, one.final_beta) for one in trials[:4]] == [
        ("resampled", targets, fraction, 0.5) for targets in ("own", "all") for fraction in (0.01, 0.02)
    ]
    assert {(one.seed, one.epochs) for one in trials[:4]} == {(0, 100)}
    assert sum(trial.model == "mvae" and trial.paired_fraction == 0.01 and trial.seed == 0 for trial in trials) == 8


@pytest.mark.real_data
@pytest.mark.slow
def test_the_pack_of_both_data_sets_is_small_enough_to_upload(real_data: Path, cache: Path, tmp_path: Path) -> None:
    pack.write_paper(tmp_path, real_data, cache)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 45 * 2**20
    data = load("mnist", real_data, cache)
    unpacked = pack.read(tmp_path).load("mnist", CPU)
    assert unpacked.fingerprint == data.fingerprint
    assert np.array_equal(unpacked.test.values[0], data.test.values[0])


def test_the_precisions_of_both_experts_are_means_over_the_test_split(tmp_path: Path, cache: Path) -> None:
    store = Store.open(tmp_path, "main", create=True)
    trial = Trial.create(dataset="digits", model="mvae", epochs=2, annealing_epochs=4)
    job = Job(trial.key(fingerprint("digits")), trial, (ACCURACY,), store, cache=cache)
    run_job(job, lambda _: None)
    out = tmp_path / "numbers.json"
    options = expert_precisions.Options(storage=tmp_path, cache=cache, out=out)
    expert_precisions.main(options)
    (one,) = json.loads(out.read_text(encoding="utf-8"))["trials"]
    (result,) = store.results
    assert (one["accuracy"], one["final_beta"]) == (result.metrics["test/accuracy"], 0.5)

    data = load("digits", cache=cache)
    model = build_mvae(trial, data.modalities)
    checkpoints = store.checkpoints(job.key)
    model.load_state_dict(checkpoints.load(checkpoints.latest(), "model.pt"))  # type: ignore[arg-type]
    rows = torch.split(torch.arange(len(data.test)), 1)
    label = torch.cat([model.eval().encode(1, data.test.take(1, row))[1] for row in rows])
    expected = torch.exp(-label.double()).mean(0).sort(descending=True).values
    assert one["label"] == pytest.approx(expected.tolist(), rel=1e-3)
    assert len(one["image"]) == trial.latents and min(one["image"]) > 0


def test_the_literal_loop_over_samples_agrees_with_the_estimator() -> None:
    contenders = likelihood_benchmark.Contenders("mnist", "mlp", samples=30)
    loop = contenders.loop([0, 1, 2], 30)
    names = ("log_marginal", "log_joint", "variance_marginal", "variance_joint", "variance_conditional")
    ours = contenders.ours(3)
    for name, values in zip(names, loop, strict=True):
        torch.testing.assert_close(ours[name], values.double(), rtol=1e-5, atol=1e-3)
    line = likelihood_benchmark.compare("MNIST (MLP)", "mnist", "mlp", samples=20, steps=1, blocks=3)
    assert line.literal.low <= line.literal.median <= line.literal.high
