"""What a pipeline asks for: a table's cells and how they are shown, or a search. Plain values that know no driver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
"""Looks cells up in storage, with what they will cost."""


@dataclass(frozen=True)
class Sweep:
    """What a pipeline asks for: the cells of a table, and how they are shown."""

    name: str
    """A simple token, unique among the sweeps of a storage name: weak_supervision-digits."""
    title: str
    """One line: what is computed."""
    cells: tuple[Cell, ...]
    table: Table | None = None
    """The published table that the cells stand beside."""
    axis: str = ""
    """What the columns are; empty: as the published table says, or paired fractions."""
    heading: str = ""
    """Title of the table, where none is published; empty: as the data set, metric and axis say."""
    source: str = ""
    """What is reproduced, where it is no table: supplement, section 6, Figure 5."""
    remarks: tuple[str, ...] = ()
    """Lines that are said before anything starts: what a preset or a measure chooses and nobody typed."""
    statements: Callable[[Report], Iterable[str]] = lambda _: ()
    """What the numbers say, as lines below the table."""
    details: tuple[Cell, ...] = ()
    """A second table of the same trials and measures: written beside the first, not printed."""
    facts: tuple[str, ...] = ()
    """Lines about the data, printed at the start, by --plan and below the table; filled in by `main`."""
    speeds: bool = False
    """Measure what the workers of a trial gain."""
    pictures: Callable[[Report, Report | None], Pictures] | None = None
    """Makes the report's pictures of the table and of the details; None: the one that every table has."""
    search: Work | None = None
    """The search that chooses the cells; None: a grid of these cells."""


class Work(Protocol):
    """What `main` asks of a sweep: a grid knows all its cells (sweeps/grid.py), a search chooses them as it runs."""

    def folder(self, sweep: Sweep, planned: Plan, store: Store, options: CommonOptions) -> str:
        """Name of the folder of its report."""

    def left(self, planned: Plan) -> int:
        """Trials that are still to be run."""

    def show_plan(self, look_up: LookUp, sweep: Sweep, options: CommonOptions, host: Host, console: Console) -> int:
        """Prints what is done and what the rest will cost; returns the exit code."""

    def report(self, sweep: Sweep, planned: Plan, store: Store, console: Console) -> int:
        """Prints and writes the table; returns the exit code."""

    def drive(self, *start: Any) -> int:
        """Runs what is missing and reports everything; returns the exit code.

        Args:
            start: what a `sweeps.driver.Driver` is made of.
        """
