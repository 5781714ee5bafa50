"""The benchmark of the engine: CPU time of a program's processes up to a moment."""

from __future__ import annotations

import sys
import time

import pytest

from benchmarks.processes import Command, run


def test_cpu_time_up_to_a_moment_lies_between_its_two_samples() -> None:
    command = Command(0.0, 4.0, [(1.0, 10.0), (2.0, 20.0), (3.0, 20.0)], "")
    assert command.cpu_until(1.25) == 12.5
    assert command.cpu_until(9.0) == 20.0
    assert command.cpu_until(0.5) == 10.0
    assert command.cpu_between(1.5, 2.5) == 5.0
    assert Command(0.0, 4.0, [], "").cpu_until(1.0) is None


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_cpu_time_includes_processes_that_the_program_starts() -> None:
    busy = "import time\nwhile time.process_time() < 0.5: pass\ntime.sleep(0.5)"
    command = run([sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"])
    used = command.cpu_until(time.time())
    assert used is not None and used >= 0.5


def test_a_program_that_fails_is_reported_with_its_output() -> None:
    with pytest.raises(RuntimeError, match="ended with code 3: sorry"):
        run([sys.executable, "-c", "print('sorry'); raise SystemExit(3)"])
