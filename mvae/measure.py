"""Defines the measures of a trained trial. `mvae/evaluation/measures.py` computes the measures."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mvae.decimals import plain
from mvae.refusal import Refusal

VERSIONS = frozenset(
    {
        ("accuracy", 1),
        ("readout", 1),
        ("likelihood", 1),
        ("likelihood", 2),
        ("attributes", 1),
        ("translation", 1),
        ("vision", 1),
        ("real", 1),
        ("coherence", 1),
        ("fid", 1),
    }
)
"""Name and version of every measure that mvae/evaluation/measures.py computes."""

KNOWN = "_known"
"""For sentences: suffix of the metrics without the token <unk>, for example log_marginal_known."""
GIVEN, AND = "-given-", "-and-"
"""Parts of names such as test/accuracy-given-image-and-sound."""
LONGEST_GIVEN = 150
"""Maximum number of characters that the given modalities may add to a name. File systems allow 255 for a whole name."""
BOTH = "both"
"""Word for all languages together, used in names of metrics."""

NAMES = frozenset(name for name, _ in VERSIONS)


@dataclass(frozen=True)
class Measure:
    """An evaluation of a trial's final checkpoint. Results of other versions of the measure are ignored.

    Two measures are equal if name, version, parameters, given modalities and digest are equal. The metric is not
    compared, because one measure may give several metrics.
    """

    name: str
    version: int
    metric: str = field(compare=False)
    """Name of the metric that tables show."""
    parameters: tuple[tuple[str, float], ...] = ()
    """Pairs of a letter and a value: ("f", 0.01)."""
    given: tuple[str, ...] = ()
    """Names of the modalities that a label is predicted from. Empty: the first image or vector."""
    higher_is_better: bool = field(default=True, compare=False)
    """Direction of the metric, for a search."""
    digest: str = ""
    """First 16 digits of the SHA-256 of the file that the measure reads; empty if the measure reads no file."""
    file: str = field(default="", compare=False)
    """Absolute path of the file that the measure reads. The path is the same on every machine."""

    @property
    def label(self) -> str:
        """Name with parameters, given modalities and digest: readout-f0.01 or accuracy-given-image-and-sound."""
        return self.name + self._suffix + given_suffix(self.given) + f"-{self.digest}" * bool(self.digest)

    @property
    def token(self) -> str:
        """Name with parameters and version, as in result files: readout-f0.01-v1."""
        return f"{self.label}-v{self.version}"

    @property
    def quantity(self) -> str:
        """Name of the metric without parameters: test/accuracy. All rows of a table have the same quantity."""
        return self.metric.removesuffix(self._suffix) if self._suffix else self.metric

    def parameter(self, letter: str) -> float:
        return dict(self.parameters)[letter]

    @property
    def _suffix(self) -> str:
        return "".join(f"-{letter}{plain(value)}" for letter, value in self.parameters)


ATTRIBUTE_ACCURACY = Measure("attributes", 1, "test/attribute_accuracy")
"""Share of test examples whose attribute, sampled given the image, is correct; mean over attributes (Figure 5 a)."""

VISION = Measure("vision", 1, "psnr/reconstruction")
"""PSNR and SSIM of views of a face, each generated from other views (supplement section 10), with simple baselines."""

REAL = Measure("real", 1, "test/accuracy")
"""Accuracy of a modality's classifier on real test images of that modality (mvae/models/judge.py)."""

COHERENCE = Measure("coherence", 1, "test/coherence-1")
"""Share of generated images that show the class of the given images (mvae/evaluation/coherence.py)."""

ACCURACY = Measure("accuracy", 1, "test/accuracy")
"""Share of test images whose label is predicted correctly at z = the mean of q(z|x1) (supplement section 8).

For texts, the share of correct characters.
"""


def given_suffix(names: Sequence[str]) -> str:
    """Returns the part of a name that lists the given modalities: -given-image-and-sound, or "" for no modalities."""
    return GIVEN + AND.join(names) if names else ""


def accuracy(given: Sequence[str]) -> Measure:
    """Returns a measure: the accuracy of predicting the label of a test example from the named modalities.

    Labels are predicted at z = the mean of q(z | given). For a mixture, the label's probabilities are averaged over the
    components' means.

    Args:
        given: names in the order of the data set's modalities.
    Raises:
        Refusal: a modality's name contains "-and-", or the names are too long for a file's name.
    """
    joined = AND.join(given)
    if joined.split(AND) != list(given):
        raise Refusal(f"modalities {', '.join(given)}: rename the one whose name contains {AND!r}")
    if len(joined) > LONGEST_GIVEN:
        raise Refusal(
            f"the names of the given modalities have {len(joined)} characters, more than {LONGEST_GIVEN}: give fewer"
            " modalities, or rename them"
        )
    return Measure("accuracy", 1, ACCURACY.metric + given_suffix(given), given=tuple(given))


TRANSLATION = Measure("translation", 1, "test/bleu")
"""Mean BLEU over directions, with chrF and all other metrics of sentences (mvae/evaluation/translation.py)."""


def readout(fraction: float) -> Measure:
    """Returns a measure: the accuracy of a logistic regression on a trained model's features.

    The regression is fitted on the paired set of this fraction. The model itself (VAE or RBM) uses no labels, so one
    trained model serves all fractions.
    """
    unnamed = Measure("readout", 1, "test/accuracy", (("f", float(fraction)),))
    return replace(unnamed, metric=f"test/accuracy{unnamed._suffix}")


def likelihood(samples: int) -> Measure:
    """Returns a measure: log-likelihoods of the test set by importance sampling, and variances (Tables 1 and 2).

    Raises:
        Refusal: fewer than 2 samples.
    """
    check_samples(samples)
    return Measure("likelihood", 1, "test/log_marginal", (("s", float(samples)),))


def sentence_likelihood(samples: int) -> Measure:
    """Returns a measure: like `likelihood`, plus the likelihood of sentences without <unk>, and the share of <unk>.

    Raises:
        Refusal: fewer than 2 samples.
    """
    return replace(likelihood(samples), version=2)


def fid(file: str, digest: str) -> Measure:
    """Returns a measure: Frechet distances in the features of a given Inception network (mvae/evaluation/fid.py).

    Args:
        file: absolute path of the network's TorchScript file.
        digest: SHA-256 of the file. The digest is part of the measure, because another file gives other results.
    """
    return Measure("fid", 1, "test/fid-prior", digest=digest[:16], file=file)


def check_samples(samples: int) -> None:
    """Checks that there are enough samples to compute a variance.

    Raises:
        Refusal: fewer than 2 samples.
    """
    if samples < 2:
        raise Refusal(f"samples = {samples}: a variance over samples needs at least 2 (the paper used 1000)")


@dataclass(frozen=True)
class OwnMeasure:
    """A measure that a plug-in has added."""

    measure: Measure
    compute: Callable[[Any, Any, Any], dict[str, float]]
    """Returns metrics by name, from the trained module, its trial and the data set."""
    arms: frozenset[str]
    """Tokens of the arms for which the measure can be computed; empty: all."""
    datasets: frozenset[str] = frozenset()
    """Names of the data sets on which the measure can be computed; empty: all."""
    watched: bool = False
    """Whether the measure is also computed on the validation split after each epoch, as `validation_metric`."""

    def fits(self, token: str, dataset: str) -> bool:
        """Whether the measure can be computed for an arm on a data set."""
        return (not self.arms or token in self.arms) and (not self.datasets or dataset in self.datasets)

    def metrics_of(self, model: Any, trial: Any, data: Any) -> dict[str, float]:
        """Computes the measure's metrics, by name.

        Raises:
            Refusal: `compute` returned no dictionary of numbers, or left out the measure's metric.
        """
        found: Any = self.compute(model, trial, data)
        name, metric = self.measure.name, self.measure.metric
        if not isinstance(found, dict) or metric not in found:
            has = ", ".join(map(str, found)) if isinstance(found, dict) and found else type(found).__name__
            raise Refusal(f"measure {name}: `compute` returned {has}; it must return a dict with {metric!r}")
        try:
            return {str(key): float(value) for key, value in found.items()}
        except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several numbers
            raise Refusal(f"measure {name}: `compute` returned {found}; it must return one number per metric") from None

    @property
    def validation_metric(self) -> str:
        """Name of the metric on the validation split: validation/distance for test/distance."""
        return on_validation(self.measure.metric)


def on_validation(metric: str) -> str:
    """Returns the name of a test metric on the validation split: validation/distance for test/distance."""
    return f"validation/{metric.removeprefix('test/')}"


OWN: dict[tuple[str, int], OwnMeasure] = {}
"""Measures that plug-ins have added, by name and version."""


def watched_of(token: str, dataset: str) -> list[OwnMeasure]:
    """Returns the plug-ins' measures that are computed after each epoch, for an arm on a data set."""
    return [own for own in OWN.values() if own.watched and own.fits(token, dataset)]


def add(
    measure: Measure,
    compute: Callable[[Any, Any, Any], dict[str, float]],
    arms: Iterable[str] = (),
    *,
    datasets: Iterable[str] = (),
    watched: bool = False,
) -> None:
    """Registers a plug-in's measure in this process (docs/extend/).

    Stored results are looked up by the measure's name and version. Increase the version if the numbers change.

    Args:
        compute: function of the trained module, its trial and the data set. Must return metrics by name, including
            `measure.metric`. Repeated calls must return the same numbers.
        arms: tokens of the arms for which the measure can be computed; if empty, all arms.
        datasets: names of the data sets on which the measure can be computed; if empty, all data sets.
        watched: whether to also compute the measure after each epoch, on the validation split instead of the test
            split. MLflow shows the curve, and a search can optimise the metric: --objective validation/NAME.
    Raises:
        Refusal: the name or version is taken or invalid, or `watched` is set and the metric does not begin with test/.
    """
    if watched and not measure.metric.startswith("test/"):
        raise Refusal(f"measure {measure.name!r}: metric {measure.metric!r} is watched: begin its name with test/")
    if measure.name in NAMES or (measure.name, measure.version) in OWN:
        raise Refusal(f"measure {measure.name!r}, version {measure.version}, already exists: choose another name")
    if not measure.name.isidentifier() or measure.version < 1:
        raise Refusal(
            f"measure {measure.name!r}, version {measure.version}: use letters and digits, and a version of at least 1"
        )
    OWN[measure.name, measure.version] = OwnMeasure(measure, compute, frozenset(arms), frozenset(datasets), watched)


_TOKEN = re.compile(r"(?P<name>[A-Za-z_0-9]+)(?:-(?P<letter>[fs])(?P<value>[0-9.]+))?(?:-given-(?P<given>.+))?-v\d+")


def measure_named(token: str) -> Measure | None:
    """Returns the measure with this token, or None if this version of the package computes no such measure.

    Args:
        token: name with parameters and version, as in result files: readout-f0.01-v1.
    """
    found = _TOKEN.fullmatch(token)
    if found is None:
        return None
    made: list[Measure] = [ACCURACY, ATTRIBUTE_ACCURACY, TRANSLATION, VISION, REAL, COHERENCE]
    made += [own.measure for own in OWN.values()]
    try:
        if found["given"]:
            made.append(accuracy(found["given"].split(AND)))
        elif found["letter"] == "f":
            made.append(readout(float(found["value"])))
        elif found["letter"] == "s":
            samples = int(found["value"])
            made += [likelihood(samples), sentence_likelihood(samples)]
    except ValueError:  # also Refusal
        return None
    return next((measure for measure in made if measure.token == token), None)
