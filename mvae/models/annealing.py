"""How the weight of the KL, beta, rises during a training: linearly from 0 to 1 (supplement section 1)."""

from torch import Tensor

from mvae.models.arm import Settings


def annealed_steps(trial: Settings, steps_per_epoch: int) -> int:
    """Steps until beta is 1, as the trial says: by epochs, or by a share of all steps."""
    if trial.annealing_epochs is not None:
        return trial.annealing_epochs * steps_per_epoch
    return round(trial.annealing_share * (trial.epochs * steps_per_epoch))


def annealed_beta(step: int | Tensor, annealed: int) -> float | Tensor:
    """The weight of the KL at a step counted from 0: 1 from step `annealed` - 1 on.

    Float32 of a float64 scalar, as a product with it would be.
    """
    if annealed <= 0:
        return 1.0
    risen = (step + 1) / annealed
    return risen.clamp(max=1.0).float() if isinstance(risen, Tensor) else min(1.0, risen)
