"""How the weight of the KL rises during a training (supplement section 1)."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from mvae.models.arm import Settings
from mvae.models.elbo import annealed_beta


@dataclass(frozen=True)
class Annealing:
    """beta of every step of a training."""

    total_steps: int
    annealed_steps: int
    """Steps until beta is 1."""

    @classmethod
    def of(cls, trial: Settings, steps_per_epoch: int) -> Self:
        """As the trial says: by a share of all steps, or by epochs."""
        total = trial.epochs * steps_per_epoch
        if trial.annealing_epochs is not None:
            return cls(total, trial.annealing_epochs * steps_per_epoch)
        return cls(total, round(trial.annealing_share * total))

    def beta(self, step: int | Tensor) -> float | Tensor:
        """The weight of the KL at a step counted from 0: float32 of a float64 scalar, as a product with it would be."""
        if not isinstance(step, Tensor):
            return annealed_beta(step, self.total_steps, self.annealed_steps)
        return 1.0 if self.annealed_steps <= 0 else ((step + 1) / self.annealed_steps).clamp(max=1.0).float()
