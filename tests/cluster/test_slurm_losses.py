"""Jobs on a SLURM cluster: stopped by a time limit, a more urgent job or a power cut.

Each time, the job ends with the table of an unbroken run, bit for bit.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from mvae.training.records import MANIFEST
from tests.cluster.cluster import asked_for, finished_lines, in_one_process, tell
from tests.cluster.lab import ROOT
from tests.cluster.slurm import Job, Slurm, assert_complete, needs_slurm
from tests.sweeping import Place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400), needs_slurm, asked_for]

SWEEP = (
    *("pipelines/weak_supervision.py", "--arms", "nn,mvae", "--targets", "own", "--fractions", "0.05,1"),
    *("--seeds", "0", "--epochs", "150", "--checkpoint-every", "0"),
)
ENDLESS = (SWEEP[0], "--arms", "mvae", *SWEEP[3:-4], "--epochs", "100000")
PAGE = ROOT / "docs" / "slurm.md"


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
    slurm.until(lambda: "returns to the queue (1 of" in job.out, "the time limit is near")
    assert "Stopped by SIGTERM" in job.out
    slurm.run(f"scontrol update JobId={job.number} TimeLimit=30")
    assert_returned_and_complete(job, undisturbed)


def test_at_its_time_limit_a_job_loses_only_the_epochs_that_run(slurm: Slurm) -> None:
    job = slurm.submit(*ENDLESS, "--checkpoint-every", "3600", options="--time=8")
    slurm.until(lambda: "Stopping after SIGTERM" in job.out, "the time limit is near")
    stopped = time.time()
    slurm.until(lambda: "returns to the queue (1 of" in job.out, "the job returns to the queue")
    slurm.run(f"scancel {job.number}")
    manifests = [*(slurm.state / "storage" / "main" / "checkpoints").glob(f"*/*/{MANIFEST}")]
    histories = [json.loads(path.read_text(encoding="utf-8"))["history"] for path in manifests]
    newest = sorted(history[-1]["time"] for history in histories)[-2:]
    longest = max(one["time"] - before["time"] for history in histories for before, one in pairwise(history[-9:]))
    tell(f"an epoch takes at most {longest:.1f} s; saved before the stop: {[stopped - last for last in newest]} s", 0.0)
    assert len(newest) == 2 and all(last > stopped - longest - 2.0 for last in newest), "a trial lost a whole epoch"


def test_the_job_of_the_page_completes_its_table(slurm: Slurm) -> None:
    (typed,) = re.findall(r"^    sbatch (.*--time=.*) cluster/slurm.sh (.*)$", PAGE.read_text(encoding="utf-8"), re.M)
    job = slurm.submit(typed[1], options=typed[0])
    assert job.until_ended(1800.0) == "COMPLETED", job.out
    tell(f"job {job.number}\n{job.out}", 0.0)
    assert len(finished_lines(job.out)) == 4


def test_a_job_without_a_newly_finished_trial_returns_to_the_queue_only_three_times(slurm: Slurm) -> None:
    job = slurm.submit(*SWEEP, "--epochs", "100000", options="--time=30")
    for start in range(4):
        slurm.until(lambda: job.starts == start and job.state == "RUNNING", f"start {start}")  # noqa: B023
        slurm.until(lambda: job.out.count("Weak supervision on digits") > start, "trials run")  # noqa: B023
        slurm.run(f"scancel --batch --signal=TERM {job.number}")
    assert job.until_ended() == "FAILED" and job.exit_code == 1
    assert "give it more time" in job.out


@pytest.mark.parametrize("seconds", [0, 60])
def test_a_preempted_job_returns_to_the_queue_and_uses_its_grace_time(
    seconds: int, slurm: Slurm, undisturbed: tuple[Place, str]
) -> None:
    slurm.run(f"scontrol update PartitionName=main GraceTime={seconds}")
    job = half_done(slurm, "--nodes=1")
    slurm.run("sbatch --partition=urgent --nodes=2 --cpus-per-task=2 --output=/dev/null --wrap='sleep 5'")
    slurm.until(lambda: job.starts == 1, "the job is preempted")
    assert ("Stopped by SIGTERM" in job.out) == ("returns to the queue (1 of" in job.out) == (seconds > 0)
    assert_returned_and_complete(job, undisturbed)


def test_a_job_that_loses_a_nodes_power_returns_to_the_queue(slurm: Slurm, undisturbed: tuple[Place, str]) -> None:
    job = half_done(slurm, "--nodes=1")
    job.batch_node.cut_power()
    slurm.until(lambda: job.starts == 1, "SLURM notices the loss")
    assert_returned_and_complete(job, undisturbed)
