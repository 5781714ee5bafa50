"""Your own arm: the MVAE with its experts averaged instead of multiplied."""

from torch import Tensor

import mvae.models
from mvae.data import Modality
from mvae.models.arm import Arm, Feature
from mvae.models.arms import MVAE_ARM
from mvae.models.gaussian import Gaussian
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import ElboLearner, networks_of, stacked_networks_of
from mvae.settings import Settings

# R rows (examples), T ELBO terms, M modalities, D latents


class MeanOfExperts(Multimodal):
    """q(z|X) averages the means and the log-variances of the experts of the modalities in X."""

    def posterior(self, mean: Tensor, spread: Tensor, members: Tensor) -> Gaussian:
        """Returns the Gaussians [R, T, D] of all terms, given the experts' means and log-variances [R, M, D].

        Args:
            members: boolean [R, T, M], the modalities that each term conditions on. A term may have no modalities.
        """
        share = members / members.sum(-1, keepdim=True).clamp(min=1)
        return Gaussian(share @ mean, share @ spread)


def build(trial: Settings, modalities: tuple[Modality, ...]) -> MeanOfExperts:
    """Returns the untrained module, with the MVAE's networks."""
    networks = networks_of(trial, modalities)
    return MeanOfExperts(modalities, *networks, trial.latents, stacked_networks_of(trial, modalities))


mvae.models.add(
    Arm(
        token="mvae_mean",  # its name in --arms
        title="MVAE mean",  # its name in tables
        reads=MVAE_ARM.reads,  # trial fields that `build` and `learner` read: they make the key
        build=build,
        learner=ElboLearner,  # the batch of each step, and its loss
        measures=MVAE_ARM.measures,  # what can be measured
        handles=frozenset(Feature) - {Feature.IMAGELESS},  # data sets that it can be trained on
        version=1,  # raise it when the numbers change: finished trials then run again
    )
)
