"""Runs many schedules in parallel, or one schedule again.

python -m tests.histories --schedules 50000            as `make nightly`
python -m tests.histories --seed 7 --schedules 1000
python -m tests.histories --blob 'AXic...'              one schedule, from the report of a broken one
python -m tests.histories --fault a_result_is_overwritten --schedules 1000
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from tests.histories.faults import FAULTS
from tests.histories.machine import Coverage
from tests.histories.schedules import SEED, Outcome, run_schedules


def _share(number: int, seed: int, fault: str) -> Outcome:
    return run_schedules(number, seed, fault=fault)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "python -m tests.histories", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--schedules", type=int, default=1000, help="number of schedules")
    made.add_argument("--seed", type=int, default=SEED, help="chooses the schedules")
    made.add_argument("--blob", default="", help="run only this schedule")
    made.add_argument("--fault", default="", choices=["", *FAULTS], help="plant this fault")
    return made


def main() -> int:
    given = parser().parse_args()
    if given.blob:
        outcomes = [run_schedules(1, blob=given.blob, fault=given.fault)]
    else:
        cores = len(os.sched_getaffinity(0))
        shares = [given.schedules // cores + (core < given.schedules % cores) for core in range(cores)]
        with ProcessPoolExecutor(cores) as pool:
            seeds = range(given.seed, given.seed + cores)
            outcomes = list(pool.map(_share, shares, seeds, [given.fault] * cores))
    print(Coverage.of([outcome.coverage for outcome in outcomes]))
    for outcome in outcomes:
        if outcome.broken:
            print(outcome.report)
    return any(outcome.broken for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main())
