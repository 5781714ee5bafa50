"""Anneals beta, the weight of the KL: beta rises linearly from 0 to 1 during training (supplement section 1)."""

from torch import Tensor

from mvae.models.arm import Settings


def annealed_steps(trial: Settings, steps_per_epoch: int) -> int:
    """Returns the number of training steps until the weight of the KL reaches its final value.

    Uses the trial's `annealing_epochs`. If `annealing_epochs` is None, uses `annealing_share`, a fraction of all steps.
    """
    if trial.annealing_epochs is not None:
        return trial.annealing_epochs * steps_per_epoch
    return round(trial.annealing_share * (trial.epochs * steps_per_epoch))


def annealed_beta(step: int | Tensor, annealed: int, most: float = 1.0) -> float | Tensor:
    """Returns the weight of the KL at the given training step.

    Args:
        step: number of the step, counted from 0. An int, or a float64 scalar tensor on the device.
        annealed: number of steps until the weight is `most`, as returned by `annealed_steps`.
    Returns:
        A float if `step` is an int. A float32 tensor if `step` is a tensor, so that losses stay float32.
    """
    if annealed <= 0:
        return most
    share = (step + 1) / annealed
    return (most * share.clamp(max=1.0)).float() if isinstance(share, Tensor) else most * min(1.0, share)
