"""Writes the checkpoints of a running trial, either at once or from a background thread."""

import copy
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

from mvae.training.checkpoint import Checkpoints
from mvae.training.records import Checkpoint, Record


class Saving:
    """Writes one checkpoint at a time. `close` waits for a checkpoint that is still being written.

    Args:
        background: whether a thread writes from a copy in CPU memory. If not, `save` itself writes.
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
        """Whether `save` would have to wait for the previous checkpoint."""
        return self._writing is not None and not self._writing.done()

    def save(
        self, epoch: int, files: Mapping[str, Any], history: Sequence[Record], provenance: Mapping[str, Any]
    ) -> None:
        """Like `Checkpoints.save`, but first waits until the previous checkpoint is complete.

        Raises:
            OSError: the checkpoint cannot be written. With `background`, the error is that of the previous checkpoint.
        """
        if self._thread is None:
            self._complete = self._checkpoints.save(epoch, files, history, provenance)
            return
        self._wait()
        snapshot = tree_map(_copied, dict(files)), list(history), copy.deepcopy(dict(provenance))
        self._writing = self._thread.submit(self._checkpoints.save, epoch, *snapshot)

    def complete(self, *, wait: bool = False) -> Checkpoint | None:
        """Returns the newest checkpoint completed since the last call, or None if there is none.

        Args:
            wait: whether to wait for the checkpoint that is being written.
        Raises:
            OSError: the last checkpoint could not be written.
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
    return part.detach().to("cpu", copy=True) if isinstance(part, Tensor) else copy.deepcopy(part)
