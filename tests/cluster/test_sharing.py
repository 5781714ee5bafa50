"""Two sweeps on one cluster, `ray job submit`, refusals, and a worker with another Ray version."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import (
    FILE,
    PIPELINE,
    Cluster,
    alone,
    asked_for,
    assert_as_alone,
    assert_two_at_once_as_alone,
    cluster,
    complete,
    needs_lab,
    table_of,
    tell,
    wait,
)
from tests.cluster.lab import PROJECT, Lab, Said
from tests.sweeping import Place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400), needs_lab, asked_for]

SWEEP = ("--arms", "nn,mvae", "--targets", "own", "--fractions", "0.05,1", "--seeds", "0", "--epochs", "20")
ANOTHER_RAY = "PYTHONPATH=$HOME/other ray start "
"""The worker's start command. A module in ~/other, if there is one, gives Ray another version."""
ONE = ("--arms", "nn", "--fractions", "1", "--seeds", "0", "--epochs", "1")


@pytest.fixture(scope="module")
def undisturbed() -> Iterator[Place]:
    with alone(*SWEEP) as ended:
        yield ended()


@pytest.fixture(scope="module")
def made(undisturbed: Place) -> Iterator[Cluster]:
    with cluster() as one:
        yield one


def test_two_sweeps_of_different_names_share_a_cluster(made: Cluster, undisturbed: Place) -> None:
    assert_two_at_once_as_alone(made, SWEEP, undisturbed)


def test_a_second_sweep_of_a_running_name_is_refused(made: Cluster) -> None:
    first = made.submit(
        "--arms", "mvae", "--targets", "own", "--fractions", "1", "--seeds", "0", "--epochs", "60", "--name", "held"
    )
    wait((made.place("held").store.folder / "lease.json").exists, "the first holds the lease", command=first)
    refused = made.submit(*ONE, "--name", "held").ended()
    assert_one_line(
        refused, r"--name 'held' is in use by process \d+ of root on head, .* is being renewed.*choose another --name"
    )
    complete(first)


def test_ray_job_submit_runs_the_same_file(made: Cluster, undisturbed: Place) -> None:
    laptop = made.lab.laptop
    made.type(f"mkdir -p ~/.ray && ray rsync-down {FILE} '~/.ray/auth_token' ~/.ray/auth_token")
    forward = laptop.start("ssh -N -o StrictHostKeyChecking=no -i ~/.ssh/cluster_key -L 8265:127.0.0.1:8265 head")
    wait(lambda: laptop.run("</dev/tcp/127.0.0.1/8265", fine=False).code == 0, "the port is forwarded", command=forward)
    typed = f"python {PIPELINE} {' '.join(SWEEP)} --name job"
    said = laptop.run(
        f"RAY_AUTH_MODE=token ray job submit --address http://127.0.0.1:8265 --working-dir . -- {typed}", PROJECT
    )
    tell(f"ray job submit\n{said.out}", said.seconds)
    assert "succeeded" in said.out
    assert table_of(said.out) == table_of(undisturbed.drivers[0].log.read_text(encoding="utf-8"))
    assert_as_alone(made.place("job"), undisturbed)


def test_a_storage_that_a_machine_does_not_share_is_refused(made: Cluster) -> None:
    refused = made.submit(*ONE, "--storage", "~/runs").ended()
    assert_one_line(refused, r"--storage \S+/runs is not shared: worker\d does not see what head writes there.*")
    assert not (made.lab.head.home / "runs").exists()


def test_more_workers_than_the_cluster_can_have_are_refused(made: Cluster) -> None:
    refused = made.submit(*ONE, "--workers-per-trial", "5", "--wait-for-nodes", "0.05").ended()
    assert_one_line(refused, r"5 workers per trial: there are 4 CPUs .* ask for at most 4")


def test_a_head_without_its_token_is_refused_with_the_missing_token_named(made: Cluster) -> None:
    made.lab.head.run("mv ~/.ray/auth_token ~/token")
    refused = made.submit(*ONE).ended()
    made.lab.head.run("mv ~/token ~/.ray/auth_token")
    assert_one_line(refused, r"RAY_ADDRESS auto: the cluster requires an authentication token, .*")


def test_a_worker_with_another_ray_version_is_named_and_the_others_do_the_work() -> None:
    with Lab(2) as lab:
        made, other = Cluster(lab), lab.workers[1]
        made.configure()
        other.run("mkdir ~/other && echo 'import ray; ray.__version__ += \".other\"' > ~/other/sitecustomize.py")
        made.change_start("ray start ", ANOTHER_RAY)
        made.up(workers=1)
        logs = "/tmp/ray/session_latest/logs/monitor*"
        refused = f"grep -qi 'version mismatch' {logs}"
        wait(lambda: lab.head.run(refused, fine=False).code == 0, "the other worker was refused", every=1.0)
        said = complete(made.submit(*ONE))
        assert made.joined() == 1
    named = [line for line in said.out.splitlines() if "1 of 2 workers has not joined" in line]
    assert len(named) == 1 and f"({other.address})" in named[0] and "another Ray or Python" in named[0], said.out


def assert_one_line(refused: Said, pattern: str) -> None:
    """Asserts that the pipeline printed one line on the submitting terminal, and no traceback."""
    tell(f"exit code {refused.code}\n{refused.out}", refused.seconds)
    assert refused.code == 1
    assert "Traceback" not in refused.out
    matching = [line for line in refused.out.splitlines() if re.fullmatch(pattern, line.strip())]
    assert len(matching) == 1, refused.out
