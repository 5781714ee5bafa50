"""torch's Adam without the import of torch's compiler at the first step.

torch.optim's methods are wrapped to exclude themselves from compiled graphs. The wrapper imports torch._dynamo, which
takes two seconds in every trial process. This class unwraps the methods, because they are called only outside compiled
graphs.
"""

import inspect

import torch


class Adam(torch.optim.Adam):
    """Like torch.optim.Adam, with the same state and bit-identical steps. `differentiable` is not supported."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
    zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)
    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)
