"""A file of numbers as it is, even if no table of a page knows its experiment.

table.FILE              a line per metric, a column per kind of trial, headed by what differs between the kinds
value.FILE.METRIC       if all trials of the file differ in their seeds only: a metric that one measure gives
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from docs.report.numbers import each_file, identity, mean_and_spread, read
from docs.report.sources import Sources, Value
from mvae.models import arm
from mvae.trial import Trial
from sweeps.table.markdown import markdown_table
from sweeps.table.rounding import shown

MOST_KINDS = 8
"""Files with more kinds of trial get no table."""


def figures(sources: Sources) -> dict[str, Value]:
    """Tables and values of every file whose kinds of trial are few."""
    found: dict[str, Value] = {}
    for path in each_file(sources.results):
        kinds: dict[str, Trial] = {}
        values: dict[tuple[str, str], dict[str, list[float]]] = {}
        for number in read(path).numbers:
            kind = identity(number.trial.with_(seed=0))
            kinds.setdefault(kind, number.trial)
            values.setdefault((number.metric, number.measure), {}).setdefault(kind, []).append(number.value)
        if len(kinds) > MOST_KINDS:
            continue
        lines = {
            place: [shown(*mean_and_spread(of_kind[kind])) if kind in of_kind else "-" for kind in kinds]
            for place, of_kind in values.items()
        }
        several = len({measure for _, measure in lines}) > 1
        heads = {(metric, measure): f"`{metric}`" + f" ({measure})" * several for metric, measure in lines}
        rows = [[heads[place], *line] for place, line in lines.items()]
        found[f"table.{path.stem}"] = markdown_table(["metric"], _headings(list(kinds.values())), rows)
        times = Counter(metric for metric, _ in lines)
        if len(kinds) == 1:
            found |= {f"value.{path.stem}.{name}": line[0] for (name, _), line in lines.items() if times[name] == 1}
    return found


def _headings(trials: Sequence[Trial]) -> list[str]:
    """What tells each trial from the others; "ours" for a single one."""
    read_by = [
        {name: getattr(trial, name) for name in ("model", *sorted(arm(trial.model).reads)) if name != "seed"}
        for trial in trials
    ]
    names = list(dict.fromkeys(name for fields in read_by for name in fields))
    differing = [name for name in names if len({str(fields.get(name)) for fields in read_by if name in fields}) > 1]
    words = [", ".join(f"{name} {fields[name]}" for name in differing if name in fields) for fields in read_by]
    return [word or "ours" for word in words]
