"""The measures: what is computed from a trial's final model, by name and version."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from mvae.data import source
from mvae.data.dataset import Kind
from mvae.data.examples import Dataset
from mvae.evaluation.accuracy import prediction_accuracy, text_accuracy
from mvae.evaluation.attributes import attribute_metrics
from mvae.evaluation.coherence import coherence_metrics
from mvae.evaluation.estimator import SUFFIX
from mvae.evaluation.likelihood_estimates import Parts, estimates_of, likelihood_metrics
from mvae.evaluation.measurable import check_measurable
from mvae.evaluation.readout import readout_accuracy
from mvae.evaluation.translation import translation_metrics, unknown_metrics
from mvae.evaluation.vision import Heard, vision_metrics
from mvae.measure import ACCURACY, REAL, VERSIONS, Measure
from mvae.models import arm
from mvae.models.judge import Judge, judge_accuracy, judged
from mvae.models.multimodal import Multimodal
from mvae.networks.text import BEAM
from mvae.streams import torch_generator
from mvae.trial import Trial

JUDGE_EPOCHS = 20
"""Epochs of the classifiers that judge generated images."""


@dataclass(frozen=True)
class Host:
    """What a long measure asks of the process that computes it."""

    heard: Heard = lambda _done, _of: None
    parts: Parts | None = None
    """Keeps what is done, so that a killed measure goes on."""
    trained: Callable[[Trial], nn.Module] | None = None
    """Loads the model of another finished trial of the same storage."""


Compute = Callable[[Measure, nn.Module, Trial, Dataset, Host], dict[str, float]]


def _accuracy(_measure: Measure, model: nn.Module, trial: Trial, data: Dataset, _host: Host) -> dict[str, float]:
    """Of a text also test/accuracy-sampled: of characters that are drawn, with the trial's seed, not the likeliest."""
    metrics = {ACCURACY.metric: prediction_accuracy(model, data.modalities, data.test)}
    if Kind.TEXT in {modality.kind for modality in data.modalities}:
        generator = torch_generator(trial.seed, "texts", device=data.test.values[0].device)
        metrics[f"{ACCURACY.metric}-sampled"] = text_accuracy(model, data.modalities, data.test, generator)
    return metrics


def _readout(measure: Measure, model: nn.Module, trial: Trial, data: Dataset, _host: Host) -> dict[str, float]:
    return readout_accuracy(measure, model, trial, data)


def _likelihood(measure: Measure, model: nn.Module, trial: Trial, data: Dataset, host: Host) -> dict[str, float]:
    """Version 2, of sentences, also without <unk>."""
    samples, known = int(measure.parameter("s")), measure.version == 2
    found = likelihood_metrics(
        model, data, samples=samples, seed=trial.seed, known=known, progress=host.heard, parts=host.parts
    )
    return found | unknown_metrics(data) if known else found


def _attributes(_measure: Measure, model: nn.Module, trial: Trial, data: Dataset, _host: Host) -> dict[str, float]:
    assert isinstance(model, Multimodal)
    return attribute_metrics(model, data, trial.seed)


def _translation(_measure: Measure, model: nn.Module, _trial: Trial, data: Dataset, _host: Host) -> dict[str, float]:
    assert isinstance(model, Multimodal)
    return translation_metrics(model, data, BEAM)


def _vision(_measure: Measure, model: nn.Module, _trial: Trial, data: Dataset, host: Host) -> dict[str, float]:
    assert isinstance(model, Multimodal)
    return vision_metrics(model, data, host.heard)


def _real(_measure: Measure, model: nn.Module, trial: Trial, data: Dataset, _host: Host) -> dict[str, float]:
    return {REAL.metric: judge_accuracy(model, judged(trial, data.modalities), data.test)}


def judge_trials(dataset: str) -> tuple[Trial, ...]:
    """The classifiers that judge a data set's models, one per modality: trials of their own, shared by key.

    Raises:
        Refusal: the data set has no hidden label.
    """
    names = [modality.name for modality in source(dataset).modalities]
    fields: dict[str, Any] = {"epochs": JUDGE_EPOCHS, "batch_size": 128, "learning_rate": 1e-3}
    return tuple(Trial.create(dataset=dataset, model="judge", own={"modality": name}, **fields) for name in names)


def _coherence(_measure: Measure, model: nn.Module, trial: Trial, data: Dataset, host: Host) -> dict[str, float]:
    assert isinstance(model, Multimodal) and host.trained is not None
    device = data.test.values[0].device
    judges = [cast(Judge, host.trained(one)).to(device).eval() for one in judge_trials(trial.dataset)]
    return coherence_metrics(model, data, judges, trial.seed, host.heard)


COMPUTES: dict[tuple[str, int], Compute] = {
    ("accuracy", 1): _accuracy,
    ("readout", 1): _readout,
    ("likelihood", 1): _likelihood,
    ("likelihood", 2): _likelihood,
    ("attributes", 1): _attributes,
    ("translation", 1): _translation,
    ("vision", 1): _vision,
    ("real", 1): _real,
    ("coherence", 1): _coherence,
}
"""By name and version; the parameters are in the measure that a computation is given."""
assert set(COMPUTES) == VERSIONS


def compute(
    measure: Measure, model: nn.Module, trial: Trial, data: Dataset, host: Host | None = None
) -> dict[str, float]:
    """The numbers of one measure, equal bit for bit whenever they are computed again.

    Raises:
        Refusal: the trial's arm cannot be measured so, or the data set has nothing to compare with.
    """
    check_measurable(measure, trial.model, data)
    own = data.trained_on(trial.train_examples).knowing(trial.vocabulary)
    return COMPUTES[measure.name, measure.version](measure, model, trial, own, host or Host())


def estimates(trial: Trial) -> frozenset[str]:
    """The metrics that the likelihood measure gives of a trial's arm; none where the arm has no such estimate."""
    if "likelihood" not in arm(trial.model).measures:
        return frozenset()
    model = arm(trial.model).build(trial, source(trial.dataset).modalities)
    found = {
        f"test/{number}_{estimate}{SUFFIX[proposal]}"
        for proposal, offered in estimates_of(model).items()
        for estimate in offered
        for number in ("log", "se", "ess", "variance")
    }
    if "test/log_joint" in found:
        found.add("test/log_x2")
        others = [modality.kind for modality in source(trial.dataset).modalities[1:]]
        if others != [Kind.LABEL]:
            found.add("test/log_x2_prior")
    return frozenset(found)
