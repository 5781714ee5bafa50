"""Checkpoints of a running trial: written on the spot, or by a thread while training goes on."""

import copy
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

from mvae.training.checkpoint import Checkpoints
from mvae.training.records import Checkpoint, Record


class Saving:
    """Writes one checkpoint at a time; once it is closed, what was being written is complete.

    Args:
        background: by a thread, from a copy in the CPU's memory; else within `save`.
    """

    def __init__(self, checkpoints: Checkpoints, *, background: bool) -> None:
        self._checkpoints = checkpoints
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint") if background else None
        self._writing: Future[Checkpoint] | None = None
        self._complete: Checkpoint | None = None

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown()

    @property
    def busy(self) -> bool:
        """Whether `save` would have to wait for the one before."""
        return self._writing is not None and not self._writing.done()

    def save(
        self, epoch: int, files: Mapping[str, Any], history: Sequence[Record], provenance: Mapping[str, Any]
    ) -> None:
        """As `Checkpoints.save`. Waits for the one before.

        Raises:
            OSError: this one cannot be written or, in the background, the one before could not.
        """
        if self._thread is None:
            self._complete = self._checkpoints.save(epoch, files, history, provenance)
            return
        self._wait()
        kept = tree_map(_copied, dict(files)), list(history), copy.deepcopy(dict(provenance))
        self._writing = self._thread.submit(self._checkpoints.save, epoch, *kept)

    def complete(self, *, wait: bool = False) -> Checkpoint | None:
        """The checkpoint that became complete since the last call, the newest if there are several.

        Args:
            wait: for the one that is being written.
        Raises:
            OSError: it could not be written.
        """
        if wait or (self._writing is not None and self._writing.done()):
            self._wait()
        complete, self._complete = self._complete, None
        return complete

    def _wait(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            self._complete = writing.result()


def _copied(part: Any) -> Any:
    """A part of a state, on the CPU, of which nothing is shared with what training changes."""
    return part.detach().to("cpu", copy=True) if isinstance(part, Tensor) else copy.deepcopy(part)
