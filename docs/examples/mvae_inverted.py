"""The MVAE with an inverted product of experts: the mean is weighted by variance instead of precision.

The authors' development code computed the mean of a product of experts like this from October to December 2017; the
public release of March 2018 weights by precision (Lemma 2.1). docs/table4.md uses these arms to measure how the
inversion changes Table 4.
"""

from functools import partial

import torch
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


class InvertedProduct(Multimodal):
    """q(z|X) has the mean sum(mean_i var_i) / sum(var_i) and the variance 1 / sum(1 / var_i) of its experts."""

    prior = True
    """Whether every posterior has N(0, I) as an additional expert."""

    def posterior(self, mean: Tensor, spread: Tensor, members: Tensor) -> Gaussian:
        """Returns the Gaussians [R, T, D] of all terms, from experts' means and log-variances [R, M, D].

        Args:
            members: boolean [R, T, M], the modalities that each term conditions on. The posterior of a term
                without modalities is the prior.
        """
        chosen, log_var = members.double(), spread.double()
        prior = torch.ones_like(chosen[..., :1]) if self.prior else 1 - chosen.amax(-1, keepdim=True)
        variance = torch.exp(log_var)
        inverted = chosen @ (variance * mean.double()) / (chosen @ variance + prior)
        precision = chosen @ torch.exp(-log_var) + prior
        return Gaussian(inverted.to(mean.dtype), -torch.log(precision).to(spread.dtype))


class InvertedProductWithoutPrior(InvertedProduct):
    """Inverted product of the modalities' experts, without the prior as an expert."""

    prior = False


def build(model: type[InvertedProduct], trial: Settings, modalities: tuple[Modality, ...]) -> InvertedProduct:
    """Returns the untrained module, with the MVAE's networks."""
    networks = networks_of(trial, modalities)
    return model(modalities, *networks, trial.latents, stacked_networks_of(trial, modalities))


for token, title, model in (
    ("mvae_inverted", "MVAE inverted", InvertedProduct),
    ("mvae_inverted_q", "MVAE inverted, no prior expert", InvertedProductWithoutPrior),
):
    mvae.models.add(
        Arm(
            token=token,
            title=title,
            reads=MVAE_ARM.reads,
            build=partial(build, model),
            learner=ElboLearner,
            measures=MVAE_ARM.measures,
            handles=frozenset(Feature) - {Feature.IMAGELESS},
        )
    )
