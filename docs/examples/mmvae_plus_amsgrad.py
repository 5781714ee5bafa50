"""Your own optimiser and schedule: MMVAE+ trained by Adam with amsgrad, as published, with a warm-up of the rate."""

from dataclasses import replace

import torch
from torch import nn

import mvae.models
from mvae.hyperparameters import Hyperparameter
from mvae.models.arms import MMVAE_PLUS_ARM
from mvae.settings import Settings
from mvae.training.optimiser import Adam


def optimiser(model: nn.Module, trial: Settings) -> torch.optim.Optimizer:
    """Returns Adam with amsgrad (Palumbo et al. 2023)."""
    return Adam(model.parameters(), lr=trial.learning_rate, amsgrad=True)


def schedule(step: int, steps: int, trial: Settings) -> float:
    """Returns the factor of the learning rate, which rises to 1 during the warm-up and then stays 1."""
    warm_up = trial.own_value("warm_up") * steps
    return min(1.0, (step + 1) / warm_up) if warm_up else 1.0


mvae.models.add(
    replace(
        MMVAE_PLUS_ARM,
        token="mmvae_plus_amsgrad",
        title="MMVAE+, amsgrad",
        optimiser=optimiser,
        schedule=schedule,
        hyperparameters=(
            *MMVAE_PLUS_ARM.hyperparameters,
            Hyperparameter("warm_up", 0.05, "Fraction of all steps in which the learning rate rises.", least=0, most=1),
        ),
    )
)
