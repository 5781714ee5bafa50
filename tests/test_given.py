"""Accuracy of labels predicted from chosen modalities (--given): its values, its names, and refused modalities."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mvae import data
from mvae.data import DATASETS, Arrays, Dataset, Defaults, Kind, Modality, Source
from mvae.data.checks import check_source
from mvae.data.examples import Split
from mvae.evaluation.measurable import check_measurable
from mvae.evaluation.measures import compute
from mvae.measure import ACCURACY, Measure, accuracy
from mvae.models import ARMS, arm
from mvae.models.posteriors import Mixture
from mvae.refusal import Refusal
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import train as fit
from mvae.trial import Trial
from pipelines import train, weak_supervision
from sweeps.cli.options import read
from sweeps.main import BAD_INPUT
from sweeps.planning.plan import plan
from sweeps.store.store import Store
from sweeps.table.files import markdown, tabulate
from sweeps.table.metric_names import metric_words
from sweeps.trials.messages import Job, Message
from sweeps.trials.run import run
from tests import pipelines_run

SIZES = {"train": 400, "validation": 40, "test": 60}
INFERRING = [token for token, known in ARMS.items() if known.infers]


def convert(_root: Path) -> Arrays:
    """Labels from 0 to 3. The picture shows one bit of the label, the sound the other; the touch is noise."""
    draw = np.random.default_rng(3)

    def split(n: int) -> tuple[np.ndarray, ...]:
        label = draw.integers(0, 4, n, dtype=np.uint8)
        picture = np.where(label % 2, 255, 0)[:, None].repeat(16, axis=1).astype(np.uint8).reshape(n, 1, 4, 4)
        sound = np.where(label // 2, 2.0, -2.0)[:, None] + 0.1 * draw.normal(size=(n, 5))
        touch = draw.normal(size=(n, 3))
        return picture, sound.astype(np.float32), touch.astype(np.float32), label

    return {name: split(n) for name, n in SIZES.items()}


SENSES = Source(
    name="senses",
    modalities=(
        Modality("picture", Kind.IMAGE, (1, 4, 4)),
        Modality("sound", Kind.VECTOR, (5,)),
        Modality("touch", Kind.VECTOR, (3,)),
        Modality("label", Kind.LABEL, (), classes=4),
    ),
    defaults=Defaults(
        latents=4, epochs=30, image_network="mlp", image_networks=("mlp",), batch_size=50, learning_rate=3e-3
    ),
    split_rule="drawn one after the other",
    version=1,
    check=lambda _root: None,
    digest=lambda _root: "made up",
    examples=lambda _root: SIZES["train"],
    convert=convert,
)


@pytest.fixture(autouse=True)
def senses(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Dataset:
    check_source(SENSES)
    monkeypatch.setitem(DATASETS, SENSES.name, SENSES)
    return data.load("senses", cache=cache)


@functools.cache
def trained(token: str, cache: Path) -> tuple[Any, Trial]:
    """An arm that was trained so briefly that its predictions depend on every modality and are often wrong."""
    trial = Trial.create(dataset="senses", model=token, epochs=6, learning_rate=0.01, label_weight=5)
    done = fit(trial, data.load("senses", cache=cache), Checkpoints(cache / "given" / token, "one"))
    return done.model.eval(), trial


def values_of(split: Split, *names: str) -> dict[str, Tensor]:
    positions = {modality.name: m for m, modality in enumerate(SENSES.modalities)}
    return {name: split.take(positions[name], torch.arange(len(split))) for name in names}


def guessed(model: Any, split: Split, given: tuple[str, ...]) -> list[int]:
    """Predicted labels, by a loop over examples and over the components of the posterior."""
    guesses = []
    with torch.no_grad():
        q = model.infer(values_of(split, *given))
        means = [q.parts.mean[:, c] for c in range(q.components)] if isinstance(q, Mixture) else [q.mean]
        at = [model.for_prediction(3, mean) for mean in means]
        for n in range(len(split)):
            shares = sum(torch.softmax(model.decode(3, z[n : n + 1])[0], dim=0) for z in at)
            assert isinstance(shares, Tensor)
            guesses.append(int(shares.argmax()))
    return guesses


def test_every_multimodal_arm_that_predicts_labels_infers() -> None:
    assert INFERRING == ["jmvae", "mvae", "mvae_q", "mopoe", "mvtcae", "mmvae", "mmvae_plus"]


@pytest.mark.parametrize("token", INFERRING)
@pytest.mark.parametrize("given", [("sound",), ("picture", "sound"), ("picture", "sound", "touch")])
def test_the_accuracy_equals_a_plain_loop_for_every_arm_and_subset(
    token: str, given: tuple[str, ...], senses: Dataset, cache: Path
) -> None:
    model, trial = trained(token, cache)
    guesses, truth = guessed(model, senses.test, given), values_of(senses.test, "label")["label"].tolist()
    assert len(set(guesses)) > 1 and guesses != guessed(model, senses.test, ("picture",)), "the subset matters"
    share = sum(map(int.__eq__, guesses, truth)) / len(truth)
    metrics = compute(accuracy(given), model, trial, senses)
    assert metrics == {f"test/accuracy-given-{'-and-'.join(given)}": pytest.approx(share)}
    assert model.predict(3, values_of(senses.test, *given)).argmax(-1).tolist() == guesses


@pytest.mark.parametrize("token", INFERRING)
def test_given_the_first_modality_alone_the_prediction_is_the_default_one(
    token: str, senses: Dataset, cache: Path
) -> None:
    model, _ = trained(token, cache)
    given = values_of(senses.test, "picture")
    with torch.no_grad():
        torch.testing.assert_close(model.predict(3, given), torch.softmax(model(given["picture"]), dim=-1))


def test_two_informative_modalities_predict_better_than_one_and_no_second_training_is_needed(
    storage: Path, cache: Path
) -> None:
    trial = Trial.create(dataset="senses", model="mopoe", label_weight=5, annealing_epochs=0)
    store = Store.open(storage, "main", create=True)
    found, histories = {}, []
    for measure in (ACCURACY, accuracy(["picture", "sound"]), accuracy(["touch"])):
        words: list[Message] = []
        run(Job(trial.key(data.fingerprint("senses")), trial, (measure,), store, None, cache), words.append)
        assert words[-1].done, words[-1].details
        result = store.results.read(trial.key(data.fingerprint("senses")), measure.token)
        assert result is not None
        found[measure.metric] = result.metrics[measure.metric]
        histories.append(result.history)
    assert histories[0] == histories[1] == histories[2], "the times of the epochs are those of the only training"
    assert found["test/accuracy-given-picture-and-sound"] > 0.9
    assert 0.3 < found["test/accuracy"] < 0.7
    assert found["test/accuracy-given-touch"] < 0.5


def test_a_label_is_predicted_from_a_vector_if_there_is_no_image(senses: Dataset) -> None:
    blind = dataclasses.replace(SENSES, name="blind", modalities=SENSES.modalities[1:])
    check_measurable(ACCURACY, "nn", blind)
    splits = {name: Split(getattr(senses, name).values[1:]) for name in SIZES}
    heard = Dataset("blind", blind.modalities, "0" * 64, **splits)
    trial = Trial.create(dataset="senses", model="nn")
    model = arm("nn").build(trial, blind.modalities)
    with torch.no_grad():
        right = model(heard.test.values[0]).argmax(-1) == heard.test.values[2].long()
    assert compute(ACCURACY, model, trial, heard) == {"test/accuracy": pytest.approx(float(right.double().mean()))}


# Names


def asked(pipeline: Any, *typed: str) -> list[Any]:
    words = ["--dataset", "senses", "--seeds", "0", "--arms", "mvae", *typed]
    return list(pipeline.cells(read(pipeline.Options, words)))


@pytest.mark.parametrize("pipeline", [weak_supervision, train])
def test_the_given_modalities_change_the_measure_and_no_trial(pipeline: Any) -> None:
    default, given = asked(pipeline), asked(pipeline, "--given", "sound,picture")
    assert [cell.trial for cell in default] == [cell.trial for cell in given]
    assert {cell.measure for cell in default} == {ACCURACY}
    assert {cell.measure.token for cell in given} == {"accuracy-given-picture-and-sound-v1"}
    assert {cell.metric for cell in asked(pipeline, "--given", "picture")} == {"test/accuracy"}, "the default's name"


def test_the_headings_and_names_say_what_was_given(tmp_path: Path) -> None:
    measure = accuracy(["picture", "sound", "touch"])
    assert metric_words(measure.metric) == "test accuracy given picture, sound and touch"
    assert metric_words("test/accuracy-given-sound") == "test accuracy given sound"
    assert re.fullmatch(r"[/\w.\- ]+", measure.metric), "characters that MLflow accepts in a metric's name"
    sweep = pipelines_run.sweep("weak_supervision", *["--dataset", "senses", "--arms", "mvae", "--given", "sound"])
    assert sweep.name == "weak_supervision-senses-given-sound"
    store = Store.open(tmp_path, "main", create=True)
    report = tabulate(plan(sweep.cells, store, {"senses": "0" * 64}), store.results)
    assert "senses: test accuracy given sound by share of paired examples" in markdown(report)
    trained = pipelines_run.sweep("train", *["--dataset", "senses", "--arms", "mvae", "--given", "sound,touch"])
    assert trained.heading == "Training on senses: test accuracy given sound and touch"


def test_the_default_keeps_its_token_metric_and_sweep() -> None:
    assert (ACCURACY.token, ACCURACY.metric, ACCURACY.given) == ("accuracy-v1", "test/accuracy", ())
    assert Measure("accuracy", 1, "test/accuracy") == ACCURACY != accuracy(["sound"])
    sweep = pipelines_run.sweep("weak_supervision", *["--dataset", "senses", "--arms", "mvae"])
    assert sweep.name == "weak_supervision-senses"


# Refusals


@pytest.mark.usefixtures("no_cluster")
@pytest.mark.parametrize("pipeline", ["weak_supervision", "train"])
@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--given smell", "senses has no modality 'smell': predict label from picture, sound, touch, or some of them"),
        ("--given sound,label", "label of senses cannot be given: predict it from picture, sound, touch, or some"),
        ("--arms nn --given sound", "arm nn cannot predict a label from chosen modalities: choose among jmvae, mvae,"),
        ("--arms vae --given sound", "arm vae cannot predict a label from chosen modalities: choose among jmvae, mvae"),
        ("--dataset multi_mnist --given text", "the text of multi_mnist is predicted only from the image: give no mod"),
        ("--dataset mnist19 --given image", "mnist19 has no label or text to predict: choose among digits, mnist"),
        ("--given sound,", "--given sound,: separate the items with commas and no spaces, as in a,b,c"),
    ],
)
def test_modalities_that_cannot_be_given_are_refused_in_one_line_before_anything_starts(
    pipeline: str, typed: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--dataset", "senses", "--arms", "mvae", *typed.split(), "--storage", str(tmp_path / "new")]
    assert pipelines_run.run(pipeline, *words) == BAD_INPUT
    printed = capsys.readouterr()
    assert printed.err.startswith(said) and printed.err.count("\n") == 1 and printed.out == ""
    assert not (tmp_path / "new").exists()


def test_names_that_cannot_be_told_apart_or_are_too_long_for_a_file_are_refused() -> None:
    with pytest.raises(Refusal, match="modalities a, b-and-c: rename the one whose name contains '-and-'"):
        accuracy(["a", "b-and-c"])
    with pytest.raises(Refusal, match="the names of the given modalities have 173 characters, more than 150"):
        accuracy(["a" * 84, "b" * 84])


def test_the_measure_itself_refuses_what_the_option_refuses() -> None:
    with pytest.raises(Refusal, match="arm logreg cannot predict a label from chosen modalities"):
        check_measurable(accuracy(["sound"]), "logreg", SENSES)
    with pytest.raises(Refusal, match="senses has no modality 'smell'"):
        check_measurable(accuracy(["smell"]), "mvae", SENSES)
