"""Whether our arms are in the published order, column by column.

Only pairs of arms whose published gap exceeds 2 sqrt(2) s are judged. Arms whose order the paper itself does not
resolve say nothing about ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from sweeps.table.entries import Contrast, Entry, contrast
from sweeps.table.judgement import Ordering, gap_is_clear, tau_b


@dataclass(frozen=True)
class Order:
    """How the arms of a table stand."""

    pairs: tuple[Contrast, ...]
    """Judged pairs, column by column: the arm with the higher published value minus the other."""
    close: int
    """Pairs that are not judged because their published values are too close."""
    tau: tuple[tuple[float | str, float], ...]
    """Column and Kendall's tau-b of its published and our values: a description, not a test."""

    def of(self, ordering: Ordering) -> list[Contrast]:
        return [pair for pair in self.pairs if pair.test is not None and pair.test.ordering is ordering]


def order_of(entries: Sequence[Entry]) -> Order:
    """The order of the arms, from the cells that have a verdict.

    Args:
        entries: of all rows and columns, in the table's order.
    """
    columns: dict[float | str, list[Entry]] = {}
    for entry in entries:
        if entry.verdict.judged:
            columns.setdefault(entry.column, []).append(entry)
    found, close, tau = [], 0, []
    for column, of_column in columns.items():
        for one, other in combinations(of_column, 2):
            if one.arm == other.arm or one.quantity != other.quantity:
                continue
            gap = (one.published or 0.0) - (other.published or 0.0)
            if not gap_is_clear(gap, one.run_spread or 0.0, other.run_spread or 0.0):
                close += 1
                continue
            between = contrast(one, other) if gap > 0 else contrast(other, one)
            if between.test is not None:
                found.append(between)
        published = [entry.published for entry in of_column if entry.published is not None]
        ours = [entry.mean for entry in of_column if entry.published is not None and entry.mean is not None]
        if (found_tau := tau_b(published, ours)) is not None:
            tau.append((column, found_tau))
    return Order(tuple(found), close, tuple(tau))
