"""An arm of one's own: the MVAE with its experts averaged instead of multiplied."""

from torch import Tensor

import mvae.models
from mvae.data import Modality
from mvae.gaussian import Gaussian
from mvae.models.arm import Arm
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import MVAE_ARM, ElboLearner, networks_of, stacked_networks_of
from mvae.trial import Trial

# R rows (examples), T ELBO terms, M modalities, D latents


class MeanOfExperts(Multimodal):
    """q(z|X) has the mean of the means, and of the log-variances, that the experts of the modalities in X give."""

    def posterior(self, mean: Tensor, spread: Tensor, members: Tensor) -> Gaussian:
        """The Gaussians [R, T, D] of all terms, from experts' means and log-variances [R, M, D].

        `members`, boolean [R, T, M], says which modalities each term conditions on; a term can have none.
        """
        share = members / members.sum(-1, keepdim=True).clamp(min=1)
        return Gaussian(share @ mean, share @ spread)


def build(trial: Trial, modalities: tuple[Modality, ...]) -> MeanOfExperts:
    """The untrained module, with the MVAE's networks."""
    networks = networks_of(trial, modalities)
    return MeanOfExperts(modalities, *networks, trial.latents, stacked_networks_of(trial, modalities))


mvae.models.add(
    Arm(
        token="mvae_mean",  # what --arms calls it
        title="MVAE mean",  # what tables call it
        reads=MVAE_ARM.reads,  # fields of a trial that `build` and `learner` look at: they make its key
        build=build,
        learner=ElboLearner,  # how it is trained: what a step sees, and its loss
        measures=MVAE_ARM.measures,  # what can be computed from it
        attributes=True,  # it can be trained on attributes,
        many=True,  # and on more than two modalities
        version=1,  # raise it when the numbers change: finished trials then run again
    )
)
