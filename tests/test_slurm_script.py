"""cluster/slurm.sh on one node without SLURM: when the job returns to the queue, when its trials expect the stop, which
leftovers it deletes, and what its header says.

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
    '#!/bin/bash\ntrap "exit $2" TERM\necho "${MVAE_STOPS_AT:-no time}" >started\n[[ $1 = ends ]] && exit "$2"\n'
    "while :; do sleep 0.05; done\n"
)
SCONTROL = (
    '#!/bin/bash\necho "$*" >>calls\n'
    '[[ $1 != show ]] || echo "JobId=7 JobState=$STATE Reason=None StartTime=now EndTime=$END Deadline=N/A"\n'
)
SQUEUE = "#!/bin/bash\n[[ -n $QUEUED ]] && printf '%s\\n' $QUEUED\n"
ASKED = "show job -o 7\n"
"""The call with which every job asks for its end."""
FINISHED = "[1/4] NN 5% seed 0  accuracy 0.688  3 s\n"
FAILED = "[1/4] NN 5% seed 0  failed: the loss is not finite\n"
RETURNED = "slurm.sh: job 7 returns to the queue (1 of at most 3 times without a newly finished trial)\n"


def job(
    folder: Path, *pipeline: str, state: str = "RUNNING", out: str = "", stop: bool = False, end: str = "Unknown"
) -> tuple[int, str, str]:
    """Runs the script in a folder; returns its exit code, its output, and the calls of scontrol.

    Args:
        pipeline: the stub's arguments: `ends` or `runs`, and its exit code.
        state: the job's state, as scontrol shows it.
        out: what earlier starts of the job have printed.
        stop: whether SLURM signals the script once the pipeline runs.
        end: the job's time limit, as scontrol shows it.
    """
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name, content in (("python", PIPELINE), ("scontrol", SCONTROL)):
        program = folder / ".venv" / "bin" / name
        program.write_text(content, encoding="utf-8")
        program.chmod(0o755)
    log = folder / "slurm-7.out"
    log.write_text(out, encoding="utf-8")
    environment = {**os.environ, "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "STATE": state, "END": end}
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
    assert job(tmp_path, "ends", str(code)) == (code, "", ASKED)


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_a_signalled_pipeline_that_ends_by_itself_ends_the_job(tmp_path: Path, code: int) -> None:
    assert job(tmp_path, "runs", str(code), stop=True) == (code, "", ASKED)


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


def test_trials_expect_the_stop_a_minute_before_the_signal_that_the_header_asks_for(tmp_path: Path) -> None:
    (seconds,) = re.findall(r"^#SBATCH --signal=B:TERM@(\d+)$", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    end = int(time.time()) + 3600
    job(tmp_path, "ends", "0", end=time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(end)))
    assert int((tmp_path / "started").read_text(encoding="utf-8")) == end - int(seconds) - 60


def test_trials_of_a_job_without_a_time_limit_expect_no_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MVAE_STOPS_AT", "1")  # sbatch was typed within another job
    job(tmp_path, "ends", "0", end="Unknown")
    assert (tmp_path / "started").read_text(encoding="utf-8") == "no time\n"


@pytest.mark.parametrize(
    ("queued", "left"),
    [("7 70", {"a-7-x", "a-70-y", "a-ray-z", "b-8-x"}), ("", {"a-7-x", "a-8-x", "a-70-y", "a-ray-z", "b-8-x"})],
)
def test_leftovers_of_jobs_that_have_left_the_queue_are_deleted(tmp_path: Path, queued: str, left: set[str]) -> None:
    for name in ("a-7-x", "a-8-x", "a-70-y", "a-ray-z", "b-8-x"):
        (tmp_path / "at" / name / "inside").mkdir(parents=True)
    squeue = tmp_path / "squeue"
    squeue.write_text(SQUEUE, encoding="utf-8")
    squeue.chmod(0o755)
    (function,) = re.findall(
        r"^remove_leftovers\(\) \{.*?^\}$", SCRIPT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    command = ["bash", "-uc", f"{function}\nremove_leftovers {tmp_path}/at/a"]  # the script itself would look in /tmp
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "QUEUED": queued}
    subprocess.run(command, env=environment, check=True)
    assert {path.name for path in (tmp_path / "at").iterdir()} == left


def test_the_header_opens_with_two_jobs_and_every_command_is_valid(tmp_path: Path, no_cluster: None) -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    check_shell(text)
    typed = [re.split(r" {2,}", line)[0] for line in header(text)]
    assert [line.partition(" ")[0] for line in typed[:2]] == ["sbatch", "sbatch"]
    for line in typed:
        run(line, tmp_path)
