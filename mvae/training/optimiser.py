"""Provides an arm's optimiser, the learning rate of each step, and an Adam that does not import torch's compiler."""

import inspect
import math

import torch
from torch import nn

from mvae.models.arm import Arm, Settings
from mvae.refusal import Refusal


def optimiser_of(chosen: Arm, model: nn.Module, trial: Settings) -> torch.optim.Optimizer:
    """Returns the arm's own optimiser, or Adam with the trial's learning rate.

    Raises:
        Refusal: the arm's `optimiser` function did not return a torch optimiser.
    """
    if chosen.optimiser is None:
        return Adam(model.parameters(), lr=trial.learning_rate, fused=True)
    made = chosen.optimiser(model, trial)
    if not isinstance(made, torch.optim.Optimizer):
        raise Refusal(f"arm {chosen.token}: `optimiser` returned {type(made).__name__}: return a torch.optim.Optimizer")
    return made


class Schedule:
    """Sets the learning rate of each step: the optimiser's initial rate times a factor from the arm's `schedule`.

    The rate depends only on the step. So a resumed run and all workers use the same rates as an uninterrupted run. The
    initial rate of each parameter group is stored as `initial_lr`, as in torch's schedulers. So checkpoints contain it.

    Args:
        steps: number of steps of the whole training.
    Raises:
        Refusal: the factor of some step is not a finite number of 0 or more.
    """

    def __init__(self, chosen: Arm, optimizer: torch.optim.Optimizer, trial: Settings, steps: int) -> None:
        self._arm, self._optimizer, self._trial, self._steps = chosen, optimizer, trial, steps
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        for step in range(steps):
            self.factor(step)

    def factor(self, step: int) -> float:
        """Returns the factor of a step. Steps are counted from 0."""
        assert self._arm.schedule is not None
        found = self._arm.schedule(step, self._steps, self._trial)
        try:
            factor = float(found)
        except (TypeError, ValueError):
            factor = math.nan
        if not (math.isfinite(factor) and factor >= 0):
            raise Refusal(
                f"arm {self._arm.token}: `schedule` returned {found!r} at step {step} of {self._steps}:"
                " return a finite number of 0 or more"
            )
        return factor

    def set(self, step: int) -> None:
        """Sets the learning rate of every parameter group for a step. Steps are counted from 0."""
        factor = self.factor(step)
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor


class Adam(torch.optim.Adam):
    """Like torch.optim.Adam, with the same state and bit-identical steps. `differentiable` is not supported.

    torch.optim wraps its methods to exclude them from compiled graphs. The wrapper imports torch._dynamo, which takes
    two seconds in every trial process. This class removes the wrapper, because the methods are called only outside
    compiled graphs.
    """

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
    zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)
    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)
