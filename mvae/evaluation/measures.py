"""Computes the measures of a trial's final model, by name and version."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from torch import nn

from mvae.data import source
from mvae.data.dataset import Kind
from mvae.data.examples import Dataset
from mvae.evaluation.accuracy import accuracy_from, evaluated, prediction_accuracy, text_accuracy
from mvae.evaluation.attributes import attribute_metrics
from mvae.evaluation.coherence import coherence_metrics
from mvae.evaluation.estimator import SUFFIX
from mvae.evaluation.fid import fid_metrics, read
from mvae.evaluation.judges import judge_trials
from mvae.evaluation.likelihood_estimates import Parts, estimates_of, likelihood_metrics
from mvae.evaluation.measurable import check_measurable
from mvae.evaluation.readout import readout_accuracy
from mvae.evaluation.translation import translation_metrics, unknown_metrics
from mvae.evaluation.vision import OnProgress, vision_metrics
from mvae.measure import ACCURACY, OWN, REAL, VERSIONS, Measure
from mvae.models import arm
from mvae.models.judge import Judge, judge_accuracy, judged
from mvae.models.multimodal import Multimodal
from mvae.networks.text import BEAM
from mvae.streams import torch_generator
from mvae.trial import Trial


@dataclass(frozen=True)
class Host:
    """Callbacks and storage that the calling process provides to a long-running measure."""

    on_progress: OnProgress = lambda _done, _total: None
    parts: Parts | None = None
    """Stores finished parts, so that a killed measure resumes."""
    trained: Callable[[Trial], nn.Module] | None = None
    """Loads the model of another finished trial in the same storage."""


Compute = Callable[[Measure, nn.Module, Trial, Dataset, Host], dict[str, float]]


def _accuracy(measure: Measure, model: nn.Module, trial: Trial, data: Dataset, _host: Host) -> dict[str, float]:
    """Returns test/accuracy, or test/accuracy-given-... if the measure names modalities.

    For texts, adds test/accuracy-sampled: the accuracy if characters are drawn at random, with the trial's seed.
    """
    if measure.given:
        return {measure.metric: accuracy_from(measure.given, _multimodal(model), data.test)}
    metrics = {ACCURACY.metric: prediction_accuracy(model, data.modalities, data.test)}
    if Kind.TEXT in {modality.kind for modality in data.modalities}:
        generator = torch_generator(trial.seed, "texts", device=data.test.values[0].device)
        metrics[f"{ACCURACY.metric}-sampled"] = text_accuracy(model, data.modalities, data.test, generator)
    return metrics


def _likelihood(measure: Measure, model: nn.Module, trial: Trial, data: Dataset, host: Host) -> dict[str, float]:
    """Returns the likelihoods. Version 2, which is for sentences, adds the estimates that leave out <unk>."""
    samples, known = int(measure.parameter("s")), measure.version == 2
    found = likelihood_metrics(
        model, data, samples=samples, seed=trial.seed, known=known, progress=host.on_progress, parts=host.parts
    )
    return found | unknown_metrics(data) if known else found


def _multimodal(model: nn.Module) -> Multimodal:
    assert isinstance(model, Multimodal)
    return model


def _real(_measure: Measure, model: nn.Module, trial: Trial, data: Dataset, _host: Host) -> dict[str, float]:
    with evaluated(model):
        return {REAL.metric: judge_accuracy(model, judged(trial, data.modalities), data.test)}


def _coherence(_measure: Measure, model: nn.Module, trial: Trial, data: Dataset, host: Host) -> dict[str, float]:
    assert isinstance(model, Multimodal) and host.trained is not None
    device = data.test.values[0].device
    judges = [cast(Judge, host.trained(one)).to(device).eval() for one in judge_trials(trial.dataset)]
    return coherence_metrics(model, data, judges, trial.seed, host.on_progress)


def _fid(measure: Measure, model: nn.Module, trial: Trial, data: Dataset, host: Host) -> dict[str, float]:
    device = data.test.values[0].device
    return fid_metrics(_multimodal(model), data, read(measure, device), trial.seed, host.on_progress)


COMPUTES: dict[tuple[str, int], Compute] = {
    ("accuracy", 1): _accuracy,
    ("readout", 1): lambda measure, model, trial, data, _host: readout_accuracy(measure, model, trial, data),
    ("likelihood", 1): _likelihood,
    ("likelihood", 2): _likelihood,
    ("attributes", 1): lambda _measure, model, trial, data, _host: attribute_metrics(
        _multimodal(model), data, trial.seed
    ),
    ("translation", 1): lambda _measure, model, _trial, data, _host: translation_metrics(
        _multimodal(model), data, BEAM
    ),
    ("vision", 1): lambda _measure, model, _trial, data, host: vision_metrics(
        _multimodal(model), data, host.on_progress
    ),
    ("real", 1): _real,
    ("coherence", 1): _coherence,
    ("fid", 1): _fid,
}
"""The function that computes each measure, by name and version of the measure."""
assert set(COMPUTES) == VERSIONS


def compute(
    measure: Measure, model: nn.Module, trial: Trial, data: Dataset, host: Host | None = None
) -> dict[str, float]:
    """Computes the metrics of one measure. Repeated calls return bit-identical numbers.

    Raises:
        Refusal: the trial's arm lacks the measure, or the data set lacks what the measure predicts.
    """
    check_measurable(measure, trial.model, data)
    own = data.trained_on(trial.train_examples).knowing(trial.vocabulary)
    if added := OWN.get((measure.name, measure.version)):
        return added.metrics_of(model.eval(), trial, own)
    return COMPUTES[measure.name, measure.version](measure, model, trial, own, host or Host())


def estimates(trial: Trial) -> frozenset[str]:
    """Returns the names of the likelihood measure's metrics for a trial: none if the trial's arm lacks this measure."""
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
