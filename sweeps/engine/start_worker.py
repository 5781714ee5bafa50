"""A script that a private Ray cluster starts its worker processes with, in place of Ray's own setup_worker.py.

Ray's imports half of Ray to set environment variables, and then becomes the worker, which imports it anew. This one
does the same without (private.py says what that saves); what it does not know goes to Ray's.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

RUNTIME_ENV, LANGUAGE = "--serialized-runtime-env-context=", "--language="
KNOWN = {"env_vars", "py_executable"}
"""What a runtime environment may hold; all else must be empty."""


def worker_command(arguments: list[str]) -> tuple[list[str], dict[str, str]] | None:
    """The worker's command line and what to add to its environment; None for what is Ray's to do.

    Args:
        arguments: of Ray's script: the worker's own, and somewhere between them the two above.
    """
    told = {
        flag: [one.removeprefix(flag) for one in arguments if one.startswith(flag)] for flag in (RUNTIME_ENV, LANGUAGE)
    }
    if told[LANGUAGE] != ["PYTHON"] or len(told[RUNTIME_ENV]) != 1:
        return None
    context = json.loads(told[RUNTIME_ENV][0])
    variables = context.get("env_vars") or {}
    python = context.get("py_executable") or sys.executable
    unknown = any(context[name] for name in context.keys() - KNOWN) or any("$" in value for value in variables.values())
    if unknown or not Path(python).is_file():  # it may be a command with arguments
        return None
    rest = [one for one in arguments if not one.startswith((RUNTIME_ENV, LANGUAGE))]
    return [python, *rest], variables


def rays_own() -> str:
    """The path of Ray's script, found without importing Ray."""
    found = find_spec("ray")
    assert found is not None and found.submodule_search_locations is not None
    return str(Path(found.submodule_search_locations[0]) / "_private" / "workers" / "setup_worker.py")


if __name__ == "__main__":
    given = sys.argv[1:]
    if (known := worker_command(given)) is None:
        os.execv(sys.executable, [sys.executable, rays_own(), *given])  # noqa: S606
    command, variables = known
    os.environ.update(variables)
    os.execv(command[0], command)  # noqa: S606
