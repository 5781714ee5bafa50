"""Runs schedules: many by seed, or one again by its blob."""

from __future__ import annotations

from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants
from hypothesis.stateful import run_state_machine_as_test

from tests.histories.faults import FAULTS
from tests.histories.invariants import Broken
from tests.histories.machine import STEPS, Coverage, Schedules

SEED = 2018
"""Seed of the schedules that CI runs."""


@dataclass(frozen=True)
class Outcome:
    """The result of running schedules."""

    coverage: Coverage
    broken: str = ""
    """The invariant that does not hold; empty if all hold."""
    report: str = ""
    """The schedule that broke it, step by step, and how to run it again."""


def run_schedules(number: int, seed: int = SEED, *, blob: str = "", fault: str = "", shrink: bool = False) -> Outcome:
    """Runs schedules until one breaks an invariant.

    Args:
        number: number of schedules.
        seed: chooses the schedules.
        blob: runs only the schedule with this blob, as the report of a broken one prints it.
        fault: name of a planted fault.
        shrink: whether to look for a shorter schedule that breaks the same invariant; takes minutes.
    """
    chosen = settings(
        max_examples=number,
        stateful_step_count=STEPS,
        database=None,
        deadline=None,
        print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
    )
    coverage = Coverage()

    class Machine(Schedules):
        pass

    Machine.coverage = coverage
    once = hypothesis.reproduce_failure(hypothesis.__version__, blob.encode()) if blob else hypothesis.seed(seed)
    text = StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(text):
        # Hypothesis also draws constants that it finds in the imported modules, so schedules would depend on the tests
        # that ran before in this process.
        patch.setattr(providers.HypothesisProvider, "_local_constants", Constants())
        providers.CONSTANTS_CACHE.cache.clear()
        if fault:
            FAULTS[fault].plant(patch)
        try:
            run_state_machine_as_test(once(Machine), settings=chosen)
        except Broken as broken:
            return Outcome(coverage, broken.invariant, "\n".join([str(broken), *getattr(broken, "__notes__", ())]))
    return Outcome(coverage)
