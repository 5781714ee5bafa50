"""Our Adam: torch's steps bit for bit, and no compiler in a process that compiles nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mvae.training.optimiser import Adam

TRAINS = """
import sys
from pathlib import Path
from mvae.training.checkpoint import Checkpoints
from mvae.data import load
from mvae.training.loop import train
from mvae.trial import Trial
trial = Trial.create(dataset="digits", model="mvae", paired_fraction=0.1, epochs=1)
train(trial, load("digits", cache=Path(sys.argv[1])), Checkpoints(Path(sys.argv[2]), "a"))
print("torch._dynamo" in sys.modules)
"""


def steps(kind: type[torch.optim.Adam], fused: bool, state: dict[str, Any] | None) -> tuple[torch.Tensor, Any]:
    """Weights and state after three steps from the same start; in one step, one parameter has no gradient."""
    generator = torch.Generator().manual_seed(1)
    weight, bias = (torch.randn(shape, generator=generator).requires_grad_() for shape in ((5, 3), (5,)))
    optimizer = kind([weight], lr=1e-2, fused=fused)
    optimizer.add_param_group({"params": [bias], "lr": 1e-3})
    if state is not None:
        optimizer.load_state_dict(state)
    for number in range(3):
        optimizer.zero_grad()
        inputs = torch.randn(7, 3, generator=generator)
        loss = (inputs @ weight.T).square().sum()
        torch.autograd.backward(loss + bias.square().sum() if number else loss)
        optimizer.step()
    return torch.cat([weight.detach().flatten(), bias.detach()]), optimizer.state_dict()


@pytest.mark.parametrize("fused", [True, False])
def test_our_adam_equals_torchs_bit_for_bit_and_each_can_resume_from_the_others_state(fused: bool) -> None:
    (ours, our_state), (theirs, their_state) = steps(Adam, fused, None), steps(torch.optim.Adam, fused, None)
    assert torch.equal(ours, theirs)
    assert our_state["param_groups"] == their_state["param_groups"]
    for number, moments in their_state["state"].items():
        assert our_state["state"][number].keys() == moments.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(our_state["state"][number][name], moment) for name, moment in moments.items())
    further, _ = steps(Adam, fused, their_state)
    assert torch.equal(further, steps(torch.optim.Adam, fused, our_state)[0])
    assert not torch.equal(further, ours)


def test_a_process_that_compiles_nothing_never_loads_torchs_compiler(cache: Path, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", TRAINS, str(cache), str(tmp_path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert ran.stdout == "False\n"
