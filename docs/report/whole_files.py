"""Any file of numbers as it is, without a module that knows its experiment: a table of all, and single values.

table.<file>              a line a metric, a column a kind of trial (what differs between them is its heading)
value.<file>.<metric>     where all trials of the file differ in their seeds alone, of a metric that one measure gives
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from docs.report.committed import Committed, Number, each_file, identity, read
from docs.report.sources import Sources
from mvae.models import arm
from mvae.trial import Trial
from sweeps.table.markdown import markdown_table
from sweeps.table.rounding import shown

MOST_KINDS = 8
"""A table of more columns is not read by anybody."""


def figures(sources: Sources) -> dict[str, str]:
    """Tables and values of every file whose kinds of trial are few."""
    found: dict[str, str] = {}
    for path in each_file(sources.results):
        committed = read(path)
        kinds = _kinds(committed)
        if len(kinds) > MOST_KINDS:
            continue
        metrics = list(dict.fromkeys((number.measure, number.metric) for number in committed.numbers))
        several = len({measure for measure, _ in metrics}) > 1
        found[f"table.{path.stem}"] = markdown_table(
            ["metric"],
            _headings([numbers[0].trial for numbers in kinds.values()]),
            [
                [
                    f"`{metric}`" + (f" ({measure})" if several else ""),
                    *(_shown(numbers, measure, metric) for numbers in kinds.values()),
                ]
                for measure, metric in metrics
            ],
        )
        if len(kinds) == 1:
            (numbers,) = kinds.values()
            times = Counter(metric for _, metric in metrics)
            found |= {
                f"value.{path.stem}.{metric}": _shown(numbers, measure, metric)
                for measure, metric in metrics
                if times[metric] == 1
            }
    return found


def _kinds(committed: Committed) -> dict[str, list[Number]]:
    """Numbers by what their trials are but for the seed."""
    kinds: dict[str, list[Number]] = {}
    for number in committed.numbers:
        kinds.setdefault(identity(number.trial.with_(seed=0)), []).append(number)
    return kinds


def _headings(trials: Sequence[Trial]) -> list[str]:
    """What tells each from the others; ours, where there is one."""
    read_by = [
        {name: getattr(trial, name) for name in ("model", *sorted(arm(trial.model).reads)) if name != "seed"}
        for trial in trials
    ]
    names = list(dict.fromkeys(name for fields in read_by for name in fields))
    differing = [name for name in names if len({str(fields.get(name)) for fields in read_by if name in fields}) > 1]
    words = [", ".join(f"{name} {fields[name]}" for name in differing if name in fields) for fields in read_by]
    return [word or "ours" for word in words]


def _shown(numbers: Sequence[Number], measure: str, metric: str) -> str:
    values = [number.value for number in numbers if (number.measure, number.metric) == (measure, metric)]
    if not values:
        return "-"
    return shown(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
