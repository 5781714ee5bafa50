"""cluster/slurm.sh on one node without SLURM: when the job returns to the queue, and the commands in the header.

A stub `scontrol` reports the job's state and records its calls; a stub pipeline ends with a given exit code.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.command_checks import REPOSITORY, check_shell, header
from tests.typed_commands import run

SCRIPT = REPOSITORY / "cluster" / "slurm.sh"
PIPELINE = (
    '#!/bin/bash\ntrap "exit $2" TERM\ntouch started\n[[ $1 = ends ]] && exit "$2"\nwhile :; do sleep 0.05; done\n'
)
SCONTROL = '#!/bin/bash\necho "$*" >>calls\n[[ $1 != show ]] || echo "JobId=7 JobState=$STATE Reason=None"\n'
FINISHED = "[1/4] NN 5% seed 0  accuracy 0.688  3 s\n"
FAILED = "[1/4] NN 5% seed 0  failed: the loss is not finite\n"
RETURNED = "slurm.sh: job 7 returns to the queue (1 of at most 3 times without a newly finished trial)\n"


def job(
    folder: Path, *pipeline: str, state: str = "RUNNING", out: str = "", stop: bool = False
) -> tuple[int, str, str]:
    """Runs the script in a folder; returns its exit code, its output, and the calls of scontrol.

    Args:
        pipeline: the stub's arguments: `ends` or `runs`, and its exit code.
        state: the job's state, as scontrol shows it.
        out: what earlier starts of the job have printed.
        stop: whether SLURM signals the script once the pipeline runs.
    """
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name, content in (("python", PIPELINE), ("scontrol", SCONTROL)):
        program = folder / ".venv" / "bin" / name
        program.write_text(content, encoding="utf-8")
        program.chmod(0o755)
    log = folder / "slurm-7.out"
    log.write_text(out, encoding="utf-8")
    environment = {**os.environ, "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "STATE": state}
    with log.open("ab") as said:
        process = subprocess.Popen(
            ["bash", str(SCRIPT), *pipeline], cwd=folder, env=environment, stdout=said, stderr=said
        )
    try:
        deadline = time.monotonic() + 30
        while stop and not (folder / "started").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        if stop:
            process.send_signal(signal.SIGTERM)
        code = process.wait(30)
    finally:
        process.kill()
    calls = folder / "calls"
    return code, log.read_text(encoding="utf-8"), calls.read_text(encoding="utf-8") if calls.exists() else ""


def test_a_signalled_job_whose_table_is_incomplete_returns_to_the_queue(tmp_path: Path) -> None:
    code, said, calls = job(tmp_path, "runs", "130", stop=True)
    assert (code, said) == (0, RETURNED)
    assert calls.splitlines()[-1] == "requeue 7"


@pytest.mark.parametrize("code", [0, 1, 2, 3, 137])
def test_a_pipeline_that_ends_by_itself_ends_the_job_with_its_exit_code(tmp_path: Path, code: int) -> None:
    assert job(tmp_path, "ends", str(code)) == (code, "", "")


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_a_signalled_pipeline_that_ends_by_itself_ends_the_job(tmp_path: Path, code: int) -> None:
    assert job(tmp_path, "runs", str(code), stop=True) == (code, "", "")


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", "PREEMPTED"])
def test_a_job_that_slurm_is_ending_does_not_return_to_the_queue(tmp_path: Path, state: str) -> None:
    code, said, calls = job(tmp_path, "runs", "130", stop=True, state=state)
    assert (code, said) == (130, "") and "requeue" not in calls


@pytest.mark.parametrize("line", ["", FAILED])
def test_the_fourth_return_without_a_newly_finished_trial_fails_the_job(tmp_path: Path, line: str) -> None:
    code, said, calls = job(tmp_path, "runs", "130", stop=True, out=FINISHED + RETURNED * 3 + line)
    assert code == 1 and "requeue" not in calls
    assert "give it more time" in said


def test_returns_of_another_job_in_the_same_output_file_do_not_count(tmp_path: Path) -> None:
    code, said, calls = job(tmp_path, "runs", "130", stop=True, out=RETURNED.replace("job 7 ", "job 70 ") * 3)
    assert code == 0 and "requeue 7" in calls
    assert said.endswith(RETURNED)


def test_a_newly_finished_trial_resets_the_number_of_returns(tmp_path: Path) -> None:
    code, said, calls = job(tmp_path, "runs", "130", stop=True, out=RETURNED * 3 + FINISHED)
    assert code == 0 and "requeue 7" in calls
    assert said.endswith(RETURNED)


def test_the_header_opens_with_two_jobs_and_every_command_is_valid(tmp_path: Path, no_cluster: None) -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    check_shell(text)
    typed = [re.split(r" {2,}", line)[0] for line in header(text)]
    assert [line.partition(" ")[0] for line in typed[:2]] == ["sbatch", "sbatch"]
    for line in typed:
        run(line, tmp_path)
