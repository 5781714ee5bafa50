"""Our script starts workers of a private cluster like Ray's own script, and leaves all other workers to Ray's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeps.engine import start_worker
from sweeps.engine.start_worker import rays_own, worker_command

WORKER = "import json, os, sys; print(json.dumps([sys.argv[1:], sys.flags.no_user_site, dict(os.environ)]))"

BY_THE_WAY = ("_", "SHLVL", "PWD", "RAY_CLIENT_MODE")
"""Variables that the shell or the import of Ray sets. The worker sets them itself."""


def arguments(worker: Path, **context: Any) -> list[str]:
    """Arguments as a raylet passes them."""
    told = {"command_prefix": [], "env_vars": {}, "py_executable": sys.executable, **context}
    told |= {"override_worker_entrypoint": None, "java_jars": []}
    return [
        "-s",
        str(worker),
        "--node-ip-address=127.0.0.1",
        '--name=it\'s a; "name" $HOME',
        f"--serialized-runtime-env-context={json.dumps(told)}",
        "--language=PYTHON",
        "--startup-token=7",
    ]


def outcome(script: str, given: list[str]) -> Any:
    done = subprocess.run(
        [sys.executable, script, *given],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        env={"PATH": os.environ["PATH"], "GREETING": "hello"},
    )
    assert done.returncode == 0, done.stderr
    passed, no_user_site, variables = json.loads(done.stdout)
    for name in BY_THE_WAY:
        variables.pop(name, None)
    return passed, no_user_site, variables


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"env_vars": {"OMP_NUM_THREADS": "1", "SAYS": "a 'b' \"c\"", "GREETING": "good bye"}},
        {"env_vars": {"SAYS": "${GREETING} to $GREETING and ${NOBODY}"}},
        {"command_prefix": ["export", "BEFORE=1", "&&"]},
        {"py_executable": f"env BEFORE=1 {sys.executable}"},
    ],
    ids=["nothing", "variables", "variables of variables", "a prefix", "a command"],
)
def test_our_script_gives_a_worker_the_arguments_and_environment_of_rays_own(
    context: dict[str, Any], tmp_path: Path
) -> None:
    worker = tmp_path / "a worker.py"
    worker.write_text(WORKER, encoding="utf-8")
    given = arguments(worker, **context)
    ours, rays = (outcome(script, given) for script in (start_worker.__file__, rays_own()))
    assert ours == rays
    assert ours[0] == ["--node-ip-address=127.0.0.1", '--name=it\'s a; "name" $HOME', "--startup-token=7"]


def test_only_plain_workers_are_started_without_ray(tmp_path: Path) -> None:
    assert worker_command(arguments(tmp_path, env_vars={"A": "1"})) is not None
    assert worker_command(arguments(tmp_path, env_vars={"A": "$B"})) is None
    assert worker_command(arguments(tmp_path, command_prefix=["cd", "x", "&&"])) is None
    assert worker_command(arguments(tmp_path, py_executable="uv run")) is None
    assert worker_command([*arguments(tmp_path)[:-2], "--language=JAVA"]) is None
    assert worker_command(["--language=PYTHON"]) is None


def test_our_worker_script_imports_no_ray_module(tmp_path: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", start_worker.__file__, *arguments(worker)],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "importlib.util" in done.stderr
    assert " ray" not in done.stderr
