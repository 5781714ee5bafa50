"""A grid: a sweep whose cells are all known at the start."""

from typing import Any

from sweeps.cli.console import Console
from sweeps.cli.options import CommonOptions
from sweeps.cli.programs import COMPLETE
from sweeps.driver import Driver, report_on
from sweeps.planning.gpu import gpu_hours
from sweeps.planning.plan import Plan
from sweeps.planning.price import Host, costs
from sweeps.store.store import Store
from sweeps.sweep import LookUp, Sweep
from sweeps.table.files import own_name
from sweeps.table.terminal import show_plan


class Grid:
    """Implements `sweeps.sweep.Work` for a grid."""

    def folder(self, sweep: Sweep, planned: Plan, store: Store, options: CommonOptions) -> str:
        wanted = ((key, cell.measure.token) for key, cell in zip(planned.keys, planned.cells, strict=True))
        return own_name(store.reports, sweep.name, wanted, options.asked())

    def left(self, planned: Plan) -> int:
        return len(planned.todo)

    def show_plan(self, look_up: LookUp, sweep: Sweep, options: CommonOptions, host: Host, console: Console) -> int:
        planned = look_up(sweep.cells)
        show_plan(planned, console.rich, [*costs(planned.estimate, host, options), *gpu_hours(planned, host)])
        return COMPLETE

    def report(self, sweep: Sweep, planned: Plan, store: Store, console: Console) -> int:
        return report_on(sweep, planned, store, console, failures={}, links={})[0]

    def drive(self, *start: Any) -> int:
        return Driver(*start).run()
