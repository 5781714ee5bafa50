"""A file of numbers as it is, if its trials differ in their seeds only and no table of a page knows its experiment.

table.FILE              a line per metric
value.FILE.METRIC       one metric, if only one measure gives it
"""

from __future__ import annotations

from collections import Counter

from docs.report.numbers import each_file, identity, mean_and_spread, read
from docs.report.sources import Sources, Value
from sweeps.table.markdown import markdown_table
from sweeps.table.rounding import shown


def figures(sources: Sources) -> dict[str, Value]:
    """Tables and values of every such file."""
    found: dict[str, Value] = {}
    for path in each_file(sources.results):
        numbers = read(path).numbers
        if len({identity(number.trial.with_(seed=0)) for number in numbers}) > 1:
            continue
        values: dict[tuple[str, str], list[float]] = {}
        for number in numbers:
            values.setdefault((number.metric, number.measure), []).append(number.value)
        several = len({measure for _, measure in values}) > 1
        means = {place: shown(*mean_and_spread(of_metric)) for place, of_metric in values.items()}
        rows = [[f"`{metric}`" + f" ({measure})" * several, text] for (metric, measure), text in means.items()]
        found[f"table.{path.stem}"] = markdown_table(["metric"], ["ours"], rows)
        times = Counter(metric for metric, _ in values)
        found |= {f"value.{path.stem}.{metric}": text for (metric, _), text in means.items() if times[metric] == 1}
    return found
