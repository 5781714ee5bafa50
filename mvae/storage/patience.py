"""How long a request to object storage may take, and what it says of an object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Patience:
    """How long a store may take."""

    connect: float
    """Seconds."""
    request: float
    """Seconds without an answer."""
    attempts: int
    """Of each request to S3, with growing pauses."""
    gcs: int
    """GCS counts the seconds of all attempts instead."""


WORK = Patience(connect=10, request=60, attempts=8, gcs=60)


FIRST_LOOK = Patience(connect=3, request=4, attempts=2, gcs=8)
"""When a user waits at a terminal, and may have mistyped the endpoint."""


@dataclass(frozen=True)
class Status:
    """What a store says of an object, under the names of os.stat_result."""

    st_size: int
    st_mtime_ns: int
    """Of whole seconds or milliseconds: two objects written after one another may have the same."""
