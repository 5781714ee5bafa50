"""The guarantees of docs/guarantees.md hold in 1,000 schedules, and each planted fault is found within them."""

from __future__ import annotations

import pytest

from tests.histories.faults import FAULTS
from tests.histories.machine import Schedules
from tests.histories.schedules import run_schedules

SCHEDULES = 1000
RULES = [value for value in vars(Schedules).values() if hasattr(value, "hypothesis_stateful_rule")]


@pytest.mark.slow
def test_no_schedule_breaks_an_invariant(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run_schedules(SCHEDULES)
    with capsys.disabled():
        print(f"\n{outcome.coverage}")
    assert not outcome.broken, outcome.report
    assert len(outcome.coverage.lengths) >= SCHEDULES and outcome.coverage.median >= 30
    rules = {rule.__name__ for rule in RULES}
    ran = {name.partition(" ")[0] for name in outcome.coverage.rules}
    assert rules <= ran, "every rule must run"


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_named(fault: str) -> None:
    outcome = run_schedules(SCHEDULES, fault=fault)
    assert outcome.broken in FAULTS[fault].breaks, outcome.report
    assert "state.teardown()" in outcome.report and "reproduce_failure" in outcome.report


def test_at_least_twelve_faults_are_planted() -> None:
    assert len(FAULTS) >= 12
