"""How long a request to object storage may take."""

from __future__ import annotations

from dataclasses import dataclass


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
