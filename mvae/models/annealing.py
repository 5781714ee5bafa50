"""Anneals beta, the weight of the KL: beta rises linearly from 0 to 1 during training (supplement section 1)."""

from torch import Tensor

from mvae.models.arm import Settings


def annealed_steps(trial: Settings, steps_per_epoch: int) -> int:
    """Returns the number of steps until beta is 1.

    The number follows from the trial's `annealing_epochs`, or from its `annealing_share` if `annealing_epochs` is None.
    """
    if trial.annealing_epochs is not None:
        return trial.annealing_epochs * steps_per_epoch
    return round(trial.annealing_share * (trial.epochs * steps_per_epoch))


def annealed_beta(step: int | Tensor, annealed: int, most: float = 1.0) -> float | Tensor:
    """Returns the weight of the KL at a step.

    Args:
        step: counted from 0; a number, or a float64 scalar on the device.
        annealed: number of steps until the weight is `most`, from `annealed_steps`.
    Returns:
        A number if `step` is a number. A float32 tensor if `step` is a tensor, so that losses stay float32.
    """
    if annealed <= 0:
        return most
    share = (step + 1) / annealed
    return (most * share.clamp(max=1.0)).float() if isinstance(share, Tensor) else most * min(1.0, share)
