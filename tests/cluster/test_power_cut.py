"""The one test of the lab that runs wherever there can be a lab: `ray submit`, and a worker's power cut in the middle.

The others take minutes each and are run by `make lab`.
"""

from __future__ import annotations

import pytest

from tests.cluster.cluster import (
    alone,
    assert_as_alone,
    cluster,
    complete,
    finished_lines,
    lost_lines,
    needs_lab,
    table_of,
    wait,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), needs_lab]

SWEEP = ("--arms", "nn,mvae", "--fractions", "0.05,1", "--seeds", "0", "--epochs", "80", "--checkpoint-every", "0")
"""Four trials: two are over after a few seconds, when the power is cut, two go on for half a minute."""


def test_a_worker_whose_power_is_cut_costs_its_last_epochs_and_changes_no_number() -> None:
    with alone(*SWEEP) as undisturbed, cluster() as made:
        expected, here = undisturbed(), made.place("main")
        submitted = made.submit(*SWEEP)
        wait(lambda: len(here.files()) >= 2, "two trials are finished", command=submitted)
        wait(lambda: len(here.epochs()) == 4, "the others have begun", command=submitted)
        victim = next(worker for worker in made.lab.workers if made.trains(worker))
        reached, done = here.epochs(), here.files()
        victim.cut_power()
        said = complete(submitted)
        assert table_of(said.out) == table_of(expected.drivers[0].log.read_text())
        assert_as_alone(here, expected)
        assert {name: here.files()[name] for name in done} == done
        assert len(finished_lines(said.out)) == 4
        went_on = here.went_on()
        assert len(went_on) == lost_lines(said.out) >= 1
        assert all(epoch >= reached[key] > 0 for key, epoch in went_on.items()), (reached, went_on)
        assert made.down().code == 0
