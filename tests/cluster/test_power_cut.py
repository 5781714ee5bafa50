"""The one lab test in `make test`: `ray submit`, and a worker whose power is cut in the middle.

The other lab tests take minutes each; `make lab` runs them.
"""

from __future__ import annotations

import pytest

from tests.cluster.cluster import (
    assert_as_alone,
    cluster,
    complete,
    finished_lines,
    in_one_process,
    lost_lines,
    needs_lab,
    table_of,
    wait,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), needs_lab]

SWEEP = (
    "--arms",
    "nn,mvae",
    "--targets",
    "own",
    "--fractions",
    "0.05,1",
    "--seeds",
    "0",
    "--epochs",
    "50",
    "--checkpoint-every",
    "0",
)
"""Four trials at a time; the power is cut after the first one ends, while the MVAE trials still run."""


def test_a_workers_power_cut_costs_its_last_epochs_and_changes_no_number() -> None:
    with in_one_process(*SWEEP) as (undisturbed, report), cluster() as made:
        here = made.place("main")
        submitted = made.submit(*SWEEP)
        wait(lambda: here.files(), "a trial is finished", command=submitted)
        wait(lambda: len(here.epochs()) == 4, "the others have begun", command=submitted)
        victim = next(worker for worker in made.lab.workers if made.trains(worker))
        reached, done = here.epochs(), here.files()
        victim.cut_power()
        said = complete(submitted)
        assert table_of(said.out) == table_of(report)
        assert_as_alone(here, undisturbed)
        assert {name: here.files()[name] for name in done} == done
        assert len(finished_lines(said.out)) == 4
        resumed_at = here.resumed_at()
        assert len(resumed_at) == lost_lines(said.out) >= 1
        assert all(epoch >= reached[key] > 0 for key, epoch in resumed_at.items()), (reached, resumed_at)
        assert made.down().code == 0
