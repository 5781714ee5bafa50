"""torch's own Adam, which does not load torch's compiler at its first step.

Methods of torch.optim keep themselves out of compiled graphs, and import the compiler (torch._dynamo) to say so: two
seconds of every trial process, whether it compiles anything or not. Ours are called outside any graph.
"""

import inspect

import torch


class Adam(torch.optim.Adam):
    """torch.optim.Adam: same arguments but `differentiable`, same state, same steps bit for bit."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
    zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)
    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)
