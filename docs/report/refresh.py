"""From a tracking store into docs/results/: what finished runs of our sweeps say, added to the committed numbers.

A run is taken only if its key follows from its parameters and its data's fingerprint. A number that is committed
already must be the same; nothing is ever overwritten.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from docs.report import numbers as kept
from docs.report.numbers import Committed, Curves, Number
from mvae.refusal import Refusal
from mvae.storage.files import write_atomically
from mvae.trial import Trial
from sweeps.table.files import MARK

TRANSLATED = ("bleu", "chrf", "unigram", "tokens/", "active_units/", "kl")
SEEN = ("psnr", "ssim", "empty_masks")
FINAL = ("test/", "best/", "psnr", "ssim", *TRANSLATED)
"""Beginnings of a run's final numbers; all else in MLflow is by epoch, or of the machine."""
MEASURES = (("attribute_", "attributes-"), (TRANSLATED, "translation-"), (SEEN, "vision-"), ("accuracy", "accuracy-"))
"""Beginnings of metrics, and of the token of the measure that gives them."""
LIKELIHOODS = ("log_", "variance_", "ess_", "se_")


def refresh(folder: Path, uri: str, sweeps: Iterable[str] = ()) -> list[str]:
    """Add what a store's finished runs say to the files of numbers.

    Args:
        folder: docs/results.
        uri: of the tracking store.
        sweeps: those that get a file; without any, those that have one.
    Returns:
        A line a file that changed.
    Raises:
        Refusal: a number that differs from the committed one; a run whose key does not follow from its parameters;
            a sweep that the store does not have.
    """
    from sweeps.tracking.mirror import finished_runs

    runs = finished_runs(uri)
    found = {name for run in runs for name in run.sweeps}
    wanted = set(sweeps) or {name for name in found if _file(folder, name).exists()}
    if missing := sorted(wanted - found):
        raise Refusal(f"the store has no finished run of {missing[0]}: it has {', '.join(sorted(found)) or 'none'}")
    changed = []
    for path in sorted({_file(folder, name) for name in wanted}):
        before = kept.read(path) if path.exists() else Committed(())
        own = [
            run
            for run in runs
            if any(_file(folder, name) == path for name in wanted & run.sweeps)
            if "mvae.measures" in run.tags and run.tags.get("mvae.elastic") != "true"
        ]
        new = [number for run in own for number in numbers(run.params, run.tags, run.metrics)]
        after = merged(before, new, path.name)
        if _write(path, kept.written(after)):
            changed.append(f"{path.name}: {len(after) - len(before.numbers)} numbers more")
        drawn = folder / kept.CURVES / path.name
        if drawn.exists():
            curves = {(run.tags["mvae.key"], metric): run.curve(metric) for run in own for metric in kept.BY_EPOCH}
            new_curves = {place: values for place, values in curves.items() if values}
            _write(drawn, kept.written_curves(merged_curves(kept.read_curves(drawn), new_curves, drawn.name)))
    return changed


def numbers(params: Mapping[str, str], tags: Mapping[str, str], metrics: Mapping[str, float]) -> list[Number]:
    """The final numbers of one run.

    Raises:
        Refusal: its key does not follow from its parameters.
    """
    key = tags["mvae.key"]
    kept.know_examples()
    trial = Trial.create(**{name: text for name, text in params.items() if text != "None"})
    if trial.key(tags.get("mvae.fingerprint", "")) != key:
        raise Refusal(f"run {key}: its parameters and data give another key, so its numbers cannot be taken")
    measures = list[str](json.loads(tags["mvae.measures"]))
    about = {
        "git": tags.get("mvae.git", ""),
        "torch": str(json.loads(tags.get("mvae.versions", "{}")).get("torch", "")),
        "device": tags.get("mvae.device", ""),
        "training_seconds": f"{float(tags['mvae.seconds']):.1f}" if "mvae.seconds" in tags else "",
        "measured_in_seconds": "",
    }
    final = {name: value for name, value in metrics.items() if name.startswith(FINAL)}
    return [Number(key, measure_of(name, measures), name, value, trial, about) for name, value in final.items()]


def measure_of(metric: str, measures: list[str]) -> str:
    """The token of the measure that gave a metric; all tokens if MLflow does not say.

    Of a likelihood with several numbers of samples MLflow shows the estimate with the most.
    """
    name = metric.removeprefix("test/")
    if name.startswith(LIKELIHOODS):
        by_samples = sorted((int(found[1]), token) for token in measures if (found := re.search(r"-s(\d+)-v", token)))
        likely = [token for _, token in by_samples[-1:]]
    else:
        begins = next((token for metrics, token in MEASURES if name.startswith(metrics)), None)
        if name.startswith("accuracy-f"):
            begins = f"readout-{name.removeprefix('accuracy-')}-"
        likely = [token for token in measures if begins is not None and token.startswith(begins)]
    return likely[0] if len(likely) == 1 else " ".join(measures)


def merged(before: Committed, new: Iterable[Number], where: str) -> list[Number]:
    """Committed numbers and new ones, each once.

    Raises:
        Refusal: one that differs.
    """
    found = {number.place: number for number in before.numbers}
    for number in new:
        known = found.setdefault(number.place, number)
        if repr(known.value) != repr(number.value):
            raise Refusal(
                f"{where}: {number.metric} of {number.key} is {known.value!r} there and {number.value!r} in the store."
                " Numbers are equal bit for bit on processors of one kind alone: commit those of one machine, or leave"
                " this sweep out (SWEEPS=)"
            )
    return list(found.values())


def merged_curves(before: Curves, new: Curves, where: str) -> Curves:
    """Committed curves and new ones.

    Raises:
        Refusal: one that differs.
    """
    for (key, metric), values in new.items():
        if before.get((key, metric), values) != values:
            raise Refusal(f"{where}: {metric} of {key} was another after some epoch there than in the store")
    return before | new


def _write(path: Path, text: str) -> bool:
    """Writes a file unless it holds this text; returns whether it did."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    write_atomically(path, text.encode())
    return True


def _file(folder: Path, sweep: str) -> Path:
    """The file of a sweep: one for all numbers of samples, and for reports of fewer or of other cells."""
    if not sweep.startswith("search-"):
        sweep = re.sub(r"-[0-9a-f]{8}$", "", sweep.partition(MARK)[0])
    samples = re.compile(r"-s\d+$")
    return folder / f"{samples.sub('', sweep)}.csv"
