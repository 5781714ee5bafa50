"""Caches the times that a probe measured, so that a repeated plan gives the same hours without a new probe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from mvae.measure import Measure
from mvae.storage.clock import CLOCK, Clock
from mvae.storage.files import write_atomically
from mvae.trial import Trial
from sweeps.planning.plan import Fingerprints, fingerprint_of
from sweeps.planning.times import Probe, Probed

FOLDER = "probes"
"""Name of the folder in the cache that holds the measured times."""
KEEP_SECONDS = 86_400.0
"""Age in seconds at which a cached time expires and is measured again."""


def kept(
    probe: Probe, cache: Path, fingerprints: Fingerprints, about: Callable[[], Mapping[str, str]], clock: Clock = CLOCK
) -> Probe:
    """Returns a probe that measures a trial only if the cache holds no time that was measured within the last day.

    Trials that differ only in their seed share a time. A cache that cannot be read or written is ignored.

    Args:
        cache: folder of the converted data.
        fingerprints: fingerprints of the trials' data sets.
        about: returns other facts on which the times depend: processor or GPU, versions. Called each time that the
            returned probe is called.
    """

    def look_up(trial: Trial, measures: Sequence[Measure]) -> Probed | None:
        fields = {name: value for name, value in trial.model_dump().items() if name != "seed"}
        content = {
            "about": dict(about()),
            "data": fingerprint_of(trial.dataset, fingerprints),
            "trial": fields,
            "measures": sorted(one.token for one in measures),
        }
        digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
        path = cache / FOLDER / f"{digest[:32]}.json"
        if (found := _read(path, clock)) is not None:
            return found
        found = probe(trial, measures)
        if found is not None:
            with suppress(OSError):
                write_atomically(path, json.dumps({"at": clock.time(), **asdict(found)}).encode())
        return found

    return look_up


def _read(path: Path, clock: Clock) -> Probed | None:
    try:
        stored = json.loads(path.read_bytes())
        if not 0 <= clock.time() - float(stored.pop("at")) < KEEP_SECONDS:
            return None
        measuring = {str(name): float(seconds) for name, seconds in stored["measuring"].items()}
        return Probed(float(stored["seconds"]), measuring, bool(stored["of_processor"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
