"""Optimiser steps of a training: one kernel after the other, or on a GPU as CUDA graphs.

A step of these networks is hundreds of small kernels, and a GPU waits for the processor that launches them. Steps that
are alike, with the same plan and the same shapes, launch the same kernels; so after a few of them the step is recorded
once, and from then on its inputs are copied into place and the record is played. The numbers are the same bit for bit.
"""

import os
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from mvae.data.dataset import Kind, Modality
from mvae.models import arm
from mvae.models.arm import Learner, Settings
from mvae.models.elbo import Loss
from mvae.training.data_parallel import DataParallel
from mvae.workers import Workers

EAGER_STEPS = 3
"""Eager steps per signature before recording, so that Adam's state and library workspaces exist."""

MOST_GRAPHS = 16
"""Signatures that are recorded; steps of further ones stay eager."""

MOST_SEEN = 64
"""Signatures that are counted at a time."""

RECORDED_KINDS = frozenset({Kind.IMAGE, Kind.LABEL, Kind.ATTRIBUTE, Kind.ATTRIBUTES})
"""Modalities whose steps are recorded. Of texts, lengths vary from step to step."""

SWITCH = "MVAE_CUDA_GRAPHS"
"""Environment variable of the process that trains: 0 keeps every step eager."""


class Steps:
    """Takes optimiser steps, one kernel after the other."""

    def __init__(
        self, learner: Learner | DataParallel, model: nn.Module, optimizer: torch.optim.Optimizer, trial: Settings
    ) -> None:
        self.learner, self.model, self.optimizer, self.trial = learner, model, optimizer, trial
        self.device = next(model.parameters()).device

    @contextmanager
    def running(self) -> Iterator[None]:
        yield

    def __call__(self, batch: Any, step: int) -> Loss:
        """One step, the `step`th of the training; returns its loss."""
        return self._step(batch, step)

    def _step(self, batch: Any, step: int | Tensor) -> Loss:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.trial.precision == "bfloat16"):
            loss = self.learner.loss(batch, step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss


@dataclass
class _Recorded:
    """A step as a CUDA graph, with its inputs and outputs in place."""

    graph: torch.cuda.CUDAGraph
    batch: Any
    """The one that was recorded: its constants live as long as their id counts."""
    inputs: list[Tensor]
    step: Tensor
    names: list[str]
    outcome: Tensor
    """The loss and its parts, float32 [1 + parts]."""

    def play(self, batch: Any, step: int) -> Loss:
        for place, value in zip(self.inputs, tensors_of(batch), strict=True):
            place.copy_(value, non_blocking=True)
        self.step.fill_(step)
        self.graph.replay()
        total, *parts = self.outcome.clone().unbind()  # the next step writes over it
        return Loss(total, dict(zip(self.names, parts, strict=True)))


class RecordedSteps(Steps):
    """Steps on one GPU, as graphs where they recur."""

    def __init__(
        self, learner: Learner | DataParallel, model: nn.Module, optimizer: torch.optim.Optimizer, trial: Settings
    ) -> None:
        super().__init__(learner, model, optimizer, trial)
        self.stream = _stream(self.device)
        self.recorded: dict[Hashable, _Recorded] = {}
        self._seen: dict[Hashable, tuple[int, Any]] = {}
        """How often each signature was seen, and a batch's constants, which must live as long as their id counts."""
        self._memory: Any = None
        """The graphs' own, which they share: of one nothing but its outcome is read after it."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """On a stream of its own: what is recorded must not meet the default one, which other steps would use."""
        around = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(around)
        try:
            with torch.cuda.stream(self.stream):
                yield
        finally:  # whoever takes over the memory of what is freed now must not be written over
            around.wait_stream(self.stream)

    def __call__(self, batch: Any, step: int) -> Loss:
        signed = step_signature(batch)
        if signed is None:
            return self._step(batch, step)
        signature, constants = signed
        if signature not in self.recorded:
            count, _ = self._seen.pop(signature, (0, None))
            if count < EAGER_STEPS or len(self.recorded) >= MOST_GRAPHS:
                if len(self._seen) >= MOST_SEEN:
                    self._seen.clear()
                self._seen[signature] = (count + 1, constants)
                return self._step(batch, step)
            self.recorded[signature] = self._record(batch)
        return self.recorded[signature].play(batch, step)

    def _record(self, batch: Any) -> _Recorded:
        inputs = [part.clone() for part in tensors_of(batch)]
        in_place = with_tensors(batch, inputs)
        step = torch.zeros((), dtype=torch.float64, device=self.device)
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        self._capturable(True)
        try:  # other threads of the process are not this one's business
            with torch.cuda.graph(graph, pool=self._memory, stream=self.stream, capture_error_mode="thread_local"):
                loss = self._step(in_place, step)
                outcome = torch.stack([loss.total.detach(), *loss.parts.values()]).float()
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            said = " ".join(str(error).split())
            raise RuntimeError(f"a step cannot be recorded ({said}): {SWITCH}=0 trains without records") from error
        finally:
            self._capturable(False)
        self._memory = graph.pool()
        self.optimizer.zero_grad(set_to_none=True)
        return _Recorded(graph, in_place, inputs, step, list(loss.parts), outcome)

    def _capturable(self, yes: bool) -> None:
        """Fused Adam is so at all times; it wants to be told, and kept in checkpoints it would bind a CPU."""
        for group in self.optimizer.param_groups:
            group["capturable"] = yes


def steps_of(
    learner: Learner | DataParallel,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    trial: Settings,
    modalities: tuple[Modality, ...],
    workers: Workers,
) -> Steps:
    """The way to take a trial's steps."""
    recorded = may_be_recorded(trial, modalities, workers, next(model.parameters()).device)
    return (RecordedSteps if recorded else Steps)(learner, model, optimizer, trial)


def may_be_recorded(trial: Settings, modalities: tuple[Modality, ...], workers: Workers, device: torch.device) -> bool:
    """Whether steps that recur are recorded: on a GPU, where the arm allows it and nothing else forbids it."""
    return (
        device.type == "cuda"
        and arm(trial.model).cuda_graphs
        and workers.alone
        and not trial.compile
        and {modality.kind for modality in modalities} <= RECORDED_KINDS
        and os.environ.get(SWITCH, "1") != "0"
    )


@lru_cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One a process: libraries keep a workspace for every stream that they were used on."""
    made: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return made


def tensors_of(batch: Any) -> list[Tensor]:
    """The tensors of a batch that differ from step to step, always in the same order.

    By hand, and so are the two functions below: torch's pytree is private, takes longer and makes nothing shorter.
    """
    parts = [getattr(batch, field.name) for field in fields(batch)] if is_dataclass(batch) else [batch]
    found: list[Tensor] = []
    for part in parts:
        found += [part] if isinstance(part, Tensor) else part if _all_tensors(part) else []
    return found


def with_tensors(batch: Any, tensors: list[Tensor]) -> Any:
    """The batch with other tensors."""
    given = iter(tensors)

    def other(part: Any) -> Any:
        if isinstance(part, Tensor):
            return next(given)
        return tuple(next(given) for _ in part) if _all_tensors(part) else part

    if not is_dataclass(batch):
        return other(batch)
    assert not isinstance(batch, type)
    return replace(batch, **{field.name: other(getattr(batch, field.name)) for field in fields(batch)})


def step_signature(batch: Any) -> tuple[Hashable, list[Any]] | None:
    """What two steps must have in common to launch the same kernels, and the constants that it names by their id; None
    for a batch that is neither a dataclass with tensors, nor a tensor, nor a tuple of them, and nothing else."""
    if not (tensors := tensors_of(batch)):
        return None
    constants = [getattr(batch, field.name) for field in fields(batch)] if is_dataclass(batch) else []
    constants = [part for part in constants if not isinstance(part, Tensor) and not _all_tensors(part)]
    named = tuple(part if isinstance(part, int) else id(part) for part in constants)
    return (named, tuple((part.shape, part.dtype) for part in tensors)), constants


def _all_tensors(part: Any) -> bool:
    return type(part) is tuple and all(isinstance(one, Tensor) for one in part)
