"""`sbatch cluster/slurm.sh` and `scancel` on a SLURM cluster; `make test` runs this test. `make lab` also runs
test_slurm_losses.py.

Every table and every number equals those of the same sweep in one process, bit for bit.
"""

from __future__ import annotations

import pytest

from tests.cluster.cluster import in_one_process, tell
from tests.cluster.lab import ROOT
from tests.cluster.slurm import Slurm, assert_complete, needs_slurm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), needs_slurm]

SWEEP = (
    *("pipelines/weak_supervision.py", "--arms", "nn,mvae", "--targets", "own", "--fractions", "0.05,1"),
    *("--seeds", "0", "--epochs", "40", "--checkpoint-every", "0"),
)


def test_a_cancelled_job_stays_cancelled_and_the_same_command_on_two_nodes_completes_the_table() -> None:
    with in_one_process(*SWEEP[1:]) as (undisturbed, report), Slurm() as slurm:
        here, job = slurm.place, slurm.submit(*SWEEP)
        slurm.until(lambda: len(here.files()) >= 2 and len(here.epochs()) == 4, "the MVAE trials have begun")
        done, reached = here.files(), here.epochs()
        slurm.run(f"scancel {job.number}")
        assert job.until_ended() == "CANCELLED"
        assert "returns to the queue" not in job.out
        slurm.until(lambda: not slurm.nodes[0].processes(), "the job's processes have ended")

        again = slurm.submit(*SWEEP, options="--nodes=2")
        slurm.until(lambda: list(ROOT.glob(f".slurm-{slurm.state.name}-{again.number}-*")), "the head starts")
        (private,) = ROOT.glob(f".slurm-{slurm.state.name}-{again.number}-*")
        assert private.stat().st_mode & 0o777 == 0o700
        slurm.until(lambda: any("raylet" in line for line in slurm.nodes[1].processes()), "the second node has joined")
        assert (private / "token").stat().st_mode & 0o777 == 0o600
        assert_complete(again, undisturbed, report)
        tell(f"job {again.number}\n{again.out}", 0.0)
        assert {name: here.files()[name] for name in done} == done
        resumed = [result for result in here.results().values() if len(result.provenance["attempts"]) > 1]
        assert resumed and all(
            result.provenance["attempts"][-1]["from_epoch"] >= reached[result.key] > 0 for result in resumed
        )
        assert not private.exists()
        for node in slurm.nodes:
            slurm.until(lambda: not node.processes(), f"the job's processes on {node.name} have ended")  # noqa: B023
            assert [path.name for path in node.tmp.glob("mvae-*")] == [], again.out
