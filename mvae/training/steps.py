"""Takes optimiser steps, either eagerly or, on a GPU, by replaying CUDA graphs.

A step of these networks launches hundreds of small kernels, and the GPU waits for the CPU to launch them. Two steps
launch the same kernels if their batches have equal signatures: the same constants and tensor shapes. After a few
steps with one signature, the next step with that signature is recorded as a CUDA graph. Later steps with that signature
copy their inputs into the recorded step's inputs and replay the graph. The results are bit-identical to those of eager
steps.
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
from mvae.training.optimiser import Schedule
from mvae.workers import Workers

EAGER_STEPS = 3
"""Eager steps per signature before recording, so that Adam's state and library workspaces exist."""

MOST_GRAPHS = 16
"""Maximum number of recorded signatures. Steps with other signatures stay eager."""

MOST_SEEN = 64
"""Maximum number of signatures whose steps are counted. All counts are dropped when this number is reached."""

RECORDED_KINDS = frozenset(Kind) - {Kind.TEXT}
"""Kinds of modality whose steps can be recorded. Texts are excluded because their lengths vary from step to step."""

SWITCH = "MVAE_CUDA_GRAPHS"
"""Name of an environment variable of the training process. Its value 0 keeps every step eager."""


class Steps:
    """Takes optimiser steps eagerly, without CUDA graphs."""

    def __init__(
        self, learner: Learner | DataParallel, model: nn.Module, optimizer: torch.optim.Optimizer, trial: Settings
    ) -> None:
        self.learner, self.model, self.optimizer, self.trial = learner, model, optimizer, trial
        self.device = next(model.parameters()).device
        self.schedule: Schedule | None = None
        chosen = arm(trial.model)
        if chosen.schedule is not None:
            self.schedule = Schedule(chosen, optimizer, trial, trial.epochs * learner.steps_per_epoch)

    @contextmanager
    def running(self) -> Iterator[None]:
        yield

    def __call__(self, batch: Any, step: int) -> Loss:
        """Takes one optimiser step and returns its loss.

        Args:
            step: number of the step since the start of the training.
        """
        if self.schedule is not None:
            self.schedule.set(step)
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
    """A step recorded as a CUDA graph, with its input and output tensors."""

    graph: torch.cuda.CUDAGraph
    batch: Any
    """The recorded batch. Its constants must stay alive, because the signature identifies each constant by its id."""
    inputs: list[Tensor]
    step: Tensor
    names: list[str]
    losses: Tensor
    """The loss and its parts, float32 [1 + parts]."""

    def play(self, batch: Any, step: int) -> Loss:
        for recorded, value in zip(self.inputs, tensors_of(batch), strict=True):
            recorded.copy_(value, non_blocking=True)
        self.step.fill_(step)
        self.graph.replay()
        total, *parts = self.losses.clone().unbind()  # cloned, because the next replay overwrites `losses`
        return Loss(total, dict(zip(self.names, parts, strict=True)))


class RecordedSteps(Steps):
    """Takes optimiser steps on one GPU. Records recurring steps as CUDA graphs, and replays the graphs."""

    def __init__(
        self, learner: Learner | DataParallel, model: nn.Module, optimizer: torch.optim.Optimizer, trial: Settings
    ) -> None:
        super().__init__(learner, model, optimizer, trial)
        self.stream = _stream(self.device)
        self.recorded: dict[Hashable, _Recorded] = {}
        self._seen: dict[Hashable, tuple[int, Any]] = {}
        """Number of eager steps of each signature, and a batch's constants, kept alive so that their ids stay valid."""
        self._pool: Any = None
        """Memory pool that all graphs share. Sharing is safe because only `losses` is read after a replay."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs all steps of the block, eager and recorded, on a separate stream.

        CUDA cannot record a graph on the default stream.
        """
        outer = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(outer)
        try:
            with torch.cuda.stream(self.stream):
                yield
        finally:  # memory freed here may be reused on the outer stream, which must wait for this stream's writes
            outer.wait_stream(self.stream)

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
        self._set_capturable(True)
        try:  # thread_local: CUDA calls of other threads do not invalidate the recording
            with torch.cuda.graph(graph, pool=self._pool, stream=self.stream, capture_error_mode="thread_local"):
                loss = self._step(in_place, step)
                losses = torch.stack([loss.total.detach(), *loss.parts.values()]).float()
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            cause = " ".join(str(error).split())
            raise RuntimeError(f"cannot record a step as a CUDA graph ({cause}): set {SWITCH}=0") from error
        finally:
            self._set_capturable(False)
        self._pool = graph.pool()
        self.optimizer.zero_grad(set_to_none=True)
        return _Recorded(graph, in_place, inputs, step, list(loss.parts), losses)

    def _set_capturable(self, value: bool) -> None:
        """Sets Adam's flag `capturable`. torch requires the flag for recording, although fused Adam works without it.

        The flag is set only while recording, because a checkpoint with the flag cannot be resumed on a CPU.
        """
        for group in self.optimizer.param_groups:
            group["capturable"] = value


def steps_of(
    learner: Learner | DataParallel,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    trial: Settings,
    modalities: tuple[Modality, ...],
    workers: Workers,
) -> Steps:
    """Returns `RecordedSteps` if the trial's steps may be recorded, else `Steps`."""
    recorded = may_be_recorded(trial, modalities, workers, next(model.parameters()).device)
    return (RecordedSteps if recorded else Steps)(learner, model, optimizer, trial)


def may_be_recorded(trial: Settings, modalities: tuple[Modality, ...], workers: Workers, device: torch.device) -> bool:
    """Whether recurring steps can be recorded as CUDA graphs.

    Recording needs a single process, a GPU, and an arm and modalities that allow recording. Networks compiled with
    torch.compile cannot be recorded. An arm's own optimiser may count steps in Python, and a recorded step cannot
    change its learning rate. So the steps of an arm with its own optimiser or schedule stay eager. The environment
    variable `SWITCH` can turn recording off.
    """
    chosen = arm(trial.model)
    return (
        device.type == "cuda"
        and chosen.cuda_graphs
        and chosen.optimiser is None
        and chosen.schedule is None
        and workers.alone
        and not trial.compile
        and {modality.kind for modality in modalities} <= RECORDED_KINDS
        and os.environ.get(SWITCH, "1") != "0"
    )


@lru_cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Returns the stream that all steps of this process share. Libraries keep a workspace for each stream."""
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


def tensors_of(batch: Any) -> list[Tensor]:
    """Returns a batch's tensors in a fixed order. Tensors differ from step to step; all other parts are constants.

    `tensors_of`, `with_tensors` and `step_signature` do not use torch's pytree, because pytree is private and slower.
    """
    parts = [getattr(batch, field.name) for field in fields(batch)] if is_dataclass(batch) else [batch]
    found: list[Tensor] = []
    for part in parts:
        found += [part] if isinstance(part, Tensor) else part if _all_tensors(part) else []
    return found


def with_tensors(batch: Any, tensors: list[Tensor]) -> Any:
    """Returns the batch with its tensors replaced, in the order of `tensors_of`."""
    remaining = iter(tensors)

    def replaced(part: Any) -> Any:
        if isinstance(part, Tensor):
            return next(remaining)
        return tuple(next(remaining) for _ in part) if _all_tensors(part) else part

    if not is_dataclass(batch):
        return replaced(batch)
    assert not isinstance(batch, type)
    return replace(batch, **{field.name: replaced(getattr(batch, field.name)) for field in fields(batch)})


def step_signature(batch: Any) -> tuple[Hashable, list[Any]] | None:
    """Returns the batch's signature and the constants that the signature identifies by their id.

    Steps with equal signatures launch the same kernels. Returns None for a batch without tensors. A batch may be a
    dataclass, a tensor or a tuple of tensors.
    """
    if not (tensors := tensors_of(batch)):
        return None
    constants = [getattr(batch, field.name) for field in fields(batch)] if is_dataclass(batch) else []
    constants = [part for part in constants if not isinstance(part, Tensor) and not _all_tensors(part)]
    named = tuple(part if isinstance(part, int) else id(part) for part in constants)
    return (named, tuple((part.shape, part.dtype) for part in tensors)), constants


def _all_tensors(part: Any) -> bool:
    return type(part) is tuple and all(isinstance(one, Tensor) for one in part)
