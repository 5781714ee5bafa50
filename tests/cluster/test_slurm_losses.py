"""Jobs on a SLURM cluster: stopped by a time limit, a more urgent job or a power cut, and two jobs at the same time.

Each time, the job ends with the table of an unbroken run, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.cluster import asked_for, in_one_process, table_of, tell
from tests.cluster.slurm import Job, Slurm, assert_complete, needs_slurm
from tests.sweeping import Place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400), needs_slurm, asked_for]

SWEEP = (
    *("pipelines/weak_supervision.py", "--arms", "nn,mvae", "--targets", "own", "--fractions", "0.05,1"),
    *("--seeds", "0", "--epochs", "150", "--checkpoint-every", "0"),
)


SHORT = (*SWEEP[:-4], "--epochs", "5", "--checkpoint-every", "0")


@pytest.fixture(scope="module")
def undisturbed() -> Iterator[tuple[Place, str]]:
    with in_one_process(*SWEEP[1:]) as made:
        yield made


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    with Slurm() as made:
        yield made


def half_done(slurm: Slurm, options: str) -> Job:
    """A job whose first trials are finished, and whose others have begun."""
    job = slurm.submit(*SWEEP, options=options)
    slurm.until(lambda: len(slurm.place.files()) >= 2 and len(slurm.place.epochs()) == 4, "the MVAE trials have begun")
    return job


def assert_returned_and_complete(job: Job, undisturbed: tuple[Place, str]) -> None:
    done = job.slurm.place.files()
    assert_complete(job, *undisturbed)
    tell(f"job {job.number}: started again {job.starts} times\n{job.out}", 0.0)
    assert job.starts >= 1
    assert {name: job.slurm.place.files()[name] for name in done} == done


@pytest.mark.parametrize("nodes", [1, 2])
def test_before_its_time_limit_a_job_saves_its_trials_and_returns_to_the_queue(
    nodes: int, slurm: Slurm, undisturbed: tuple[Place, str]
) -> None:
    job = half_done(slurm, f"--nodes={nodes} --time=30 --signal=B:TERM@30")
    slurm.run(f"scontrol update JobId={job.number} TimeLimit={job.minutes + 1}")
    slurm.until(lambda: "returning to the queue (1 of" in job.out, "the time limit is near")
    assert "Stopped by SIGTERM" in job.out
    slurm.run(f"scontrol update JobId={job.number} TimeLimit=30")
    assert_returned_and_complete(job, undisturbed)


def test_a_job_without_a_newly_finished_trial_returns_to_the_queue_only_three_times(slurm: Slurm) -> None:
    job = slurm.submit(*SWEEP, "--epochs", "100000", options="--time=30")
    for start in range(4):
        slurm.until(lambda: job.starts == start and job.state == "RUNNING", f"start {start}")  # noqa: B023
        slurm.until(lambda: job.out.count("Weak supervision on digits") > start, "trials run")  # noqa: B023
        slurm.run(f"scancel --batch --signal=TERM {job.number}")
    assert job.until_ended() == "FAILED" and job.exit_code == 1
    assert "give it more time" in job.out


def test_a_preempted_job_returns_to_the_queue(slurm: Slurm, undisturbed: tuple[Place, str]) -> None:
    job = half_done(slurm, "--nodes=1")
    slurm.run("sbatch --partition=urgent --nodes=2 --cpus-per-task=2 --output=/dev/null --wrap='sleep 5'")
    slurm.until(lambda: job.starts == 1, "the job is preempted")
    assert_returned_and_complete(job, undisturbed)


def test_a_job_that_loses_a_nodes_power_returns_to_the_queue(slurm: Slurm, undisturbed: tuple[Place, str]) -> None:
    job = half_done(slurm, "--nodes=1")
    job.batch_node.cut_power()
    slurm.until(lambda: job.starts == 1, "SLURM notices the loss")
    assert_returned_and_complete(job, undisturbed)


def test_two_jobs_on_the_same_two_nodes_do_not_meet(slurm: Slurm) -> None:
    with in_one_process(*SHORT[1:]) as (_, report):
        jobs = [
            slurm.submit(*SHORT, "--name", name, options="--nodes=2 --cpus-per-task=1") for name in ("one", "other")
        ]
        slurm.until(lambda: all("Cluster: " in job.out for job in jobs), "both jobs run")
        assert {job.state for job in jobs} == {"RUNNING"}
        for job in jobs:
            assert job.until_ended() == "COMPLETED", job.out
            assert "Cluster: 2 machines with 2 CPUs" in job.out
            assert table_of(job.out) == table_of(report)
