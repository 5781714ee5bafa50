"""Starts the worker processes of a private Ray cluster, in place of Ray's own script setup_worker.py.

Ray's script imports half of Ray only to set environment variables. Then it turns into the worker process, which imports
Ray again. This script does the same without importing Ray, which saves 1.1 CPU seconds per command (private.py). If
this script does not understand an argument, it runs Ray's script instead. Whether `make test` is slower without this
script was not measured.
"""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

RUNTIME_ENV, LANGUAGE = "--serialized-runtime-env-context=", "--language="
KNOWN = {"env_vars", "py_executable"}
"""Fields of a runtime environment that this script understands. All other fields must be empty."""


def worker_command(arguments: list[str]) -> tuple[list[str], dict[str, str]] | None:
    """Returns the worker's command line and its additional environment variables, or None if Ray's script is needed.

    Args:
        arguments: arguments for Ray's script: the worker's arguments, plus the options RUNTIME_ENV and LANGUAGE.
    """
    given = {
        flag: [one.removeprefix(flag) for one in arguments if one.startswith(flag)] for flag in (RUNTIME_ENV, LANGUAGE)
    }
    if given[LANGUAGE] != ["PYTHON"] or len(given[RUNTIME_ENV]) != 1:
        return None
    context = json.loads(given[RUNTIME_ENV][0])
    variables = context.get("env_vars") or {}
    python = context.get("py_executable") or sys.executable
    unknown = any(context[name] for name in context.keys() - KNOWN) or any("$" in value for value in variables.values())
    if unknown or not Path(python).is_file():  # a command with arguments is not a file
        return None
    rest = [one for one in arguments if not one.startswith((RUNTIME_ENV, LANGUAGE))]
    return [python, *rest], variables


def rays_own() -> str:
    """Returns the path of Ray's script, without importing Ray."""
    found = find_spec("ray")
    assert found is not None and found.submodule_search_locations is not None
    return str(Path(found.submodule_search_locations[0]) / "_private" / "workers" / "setup_worker.py")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if (worker := worker_command(arguments)) is None:
        os.execv(sys.executable, [sys.executable, rays_own(), *arguments])  # noqa: S606
    command, variables = worker
    os.environ.update(variables)
    os.execv(command[0], command)  # noqa: S606
