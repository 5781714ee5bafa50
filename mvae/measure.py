"""Measure: what can be computed from a trained trial. `mvae/evaluation/measures.py` computes them."""

from dataclasses import dataclass, field, replace

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
    }
)
"""Name and version of every measure that mvae/evaluation/measures.py computes."""

NAMES = frozenset(name for name, _ in VERSIONS)


@dataclass(frozen=True)
class Measure:
    """A quantity computed from a trial's final checkpoint. A new version never reads an old version's results.

    Measures are equal where name, version and parameters are: one measure may give several metrics.
    """

    name: str
    version: int
    metric: str = field(compare=False)
    """The metric that a table shows of it."""
    parameters: tuple[tuple[str, float], ...] = ()
    """A letter and a value each: ("f", 0.01)."""

    @property
    def label(self) -> str:
        """Name with parameters: readout-f0.01."""
        return self.name + self._suffix

    @property
    def token(self) -> str:
        """Name with parameters and version, as in result files: accuracy-v1, readout-f0.01-v1."""
        return f"{self.label}-v{self.version}"

    @property
    def quantity(self) -> str:
        """The metric without parameters, the same thing for all rows of a table: test/accuracy."""
        return self.metric.removesuffix(self._suffix) if self._suffix else self.metric

    def parameter(self, letter: str) -> float:
        return dict(self.parameters)[letter]

    @property
    def _suffix(self) -> str:
        return "".join(f"-{letter}{plain(value)}" for letter, value in self.parameters)


ATTRIBUTE_ACCURACY = Measure("attributes", 1, "test/attribute_accuracy")
"""Share of test examples whose attribute is the one sampled given the image, mean over attributes (Figure 5 a)."""

VISION = Measure("vision", 1, "psnr/reconstruction")
"""PSNR and SSIM of each view of a face made of others (supplement section 10), beside plain baselines."""

REAL = Measure("real", 1, "test/accuracy")
"""Share of real test images that a classifier of one modality gets right (mvae/models/judge.py)."""

COHERENCE = Measure("coherence", 1, "test/coherence-1")
"""Whether generated images show the class of what was given (mvae/evaluation/coherence.py)."""

ACCURACY = Measure("accuracy", 1, "test/accuracy")
"""Share of test images whose label is predicted at z = the mean of q(z|x1) (supplement section 8); of texts, the share
of characters."""


TRANSLATION = Measure("translation", 1, "test/bleu")
"""Mean BLEU over directions, with chrF and all else that is measured of sentences (mvae/evaluation/translation.py)."""


def readout(fraction: float) -> Measure:
    """The accuracy of a logistic regression on a trained module's features of the paired set of that fraction.

    It lets an arm that sees no labels (VAE, RBM) be trained once for all fractions.
    """
    unnamed = Measure("readout", 1, "test/accuracy", (("f", float(fraction)),))
    return replace(unnamed, metric=f"test/accuracy{unnamed._suffix}")


def likelihood(samples: int) -> Measure:
    """Log-likelihoods of the test set by importance sampling, and the variance of the log weights (Tables 1 and 2).

    Raises:
        Refusal: fewer than 2 samples, which have no variance.
    """
    check_samples(samples)
    return Measure("likelihood", 1, "test/log_marginal", (("s", float(samples)),))


def sentence_likelihood(samples: int) -> Measure:
    """`likelihood` of sentences, with the likelihood without <unk> and the share of <unk>.

    Raises:
        Refusal: fewer than 2 samples, which have no variance.
    """
    return replace(likelihood(samples), version=2)


def check_samples(samples: int) -> None:
    """Refuses a number of samples that has no variance.

    Raises:
        Refusal: fewer than 2.
    """
    if samples < 2:
        raise Refusal(f"samples = {samples}: a variance over samples needs at least 2 (the paper took 1000)")
