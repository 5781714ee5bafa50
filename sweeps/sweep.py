"""Sweep: everything a pipeline defines, either the cells of a table and their presentation, or a search."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sweeps.planning.plan import Cell, Plan
from sweeps.table.published import Table

if TYPE_CHECKING:
    from sweeps.cli.console import Console
    from sweeps.cli.options import CommonOptions
    from sweeps.planning.price import Host
    from sweeps.store.store import Store
    from sweeps.table.files import Pictures, Report

__all__ = ["Cell", "LookUp", "Sweep", "Table", "Work"]

LookUp = Callable[[Sequence[Cell]], Plan]
"""Plans cells: looks up which results are stored, and estimates the time for the missing results."""


@dataclass(frozen=True)
class Sweep:
    """Everything a pipeline defines: the cells of a table, and how they are shown."""

    name: str
    """Unique among the sweeps with the same --name, for example weak_supervision-digits."""
    title: str
    cells: tuple[Cell, ...]
    table: Table | None = None
    """The published table that the cells are compared with."""
    axis: str = ""
    """Name of the column axis. Default: the axis of `table`, or "paired fraction" if `table` is None."""
    heading: str = ""
    """Title of a table that has no published counterpart. Default: made from data set, metric and axis."""
    source: str = ""
    """Where the paper shows these numbers, if not in `table`: "supplement, section 6, Figure 5"."""
    remarks: tuple[str, ...] = ()
    """Lines printed before anything starts: values that a preset or a measure chose for the user."""
    statements: Callable[[Report], Iterable[str]] = lambda _: ()
    """Returns lines to print below the table. The lines say what the numbers show."""
    under_trained: Callable[[Report], Collection[str]] = lambda _: ()
    """Returns the rows whose models are not trained well enough to be compared with the paper and with other rows."""
    details: tuple[Cell, ...] = ()
    """Cells of a second table with the same trials and measures. The second table is written to the report but not
    printed."""
    facts: tuple[str, ...] = ()
    """Lines about the data, printed at the start, by --plan, and below the table. `main` fills them in."""
    speeds: bool = False
    """Whether to measure the speed-up from several workers per trial."""
    pictures: Callable[[Report, Report | None], Pictures] | None = None
    """Draws the report's pictures from the main table and the table of `details`. Default: plots the main table."""
    search: Work | None = None
    """The search that chooses the cells; None for a grid of `cells`."""


class Work(Protocol):
    """The part of a sweep that differs between a grid (sweeps/grid.py) and a search (sweeps/search/)."""

    def folder(self, sweep: Sweep, planned: Plan, store: Store, options: CommonOptions) -> str:
        """Returns the name of the report's folder."""

    def left(self, planned: Plan) -> int:
        """Returns the number of trials that are still to be run."""

    def show_plan(self, look_up: LookUp, sweep: Sweep, options: CommonOptions, host: Host, console: Console) -> int:
        """Prints which trials are done, and the cost of the unfinished trials. Returns the exit code."""

    def report(self, sweep: Sweep, planned: Plan, store: Store, console: Console) -> int:
        """Prints and writes the table; returns the exit code."""

    def drive(self, *start: Any) -> int:
        """Runs the missing trials and reports all trials; returns the exit code.

        Args:
            start: the arguments of `sweeps.driver.Driver`.
        """
