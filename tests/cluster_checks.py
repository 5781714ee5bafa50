"""Checks of cluster/*.yaml; each raises Wrong. Tests call them on the files and on damaged copies.

No check needs a cloud, a cluster or a network. A Ray YAML is checked against Ray's own schema and defaults. Its
commands are also checked against the files of this repository, and its node_configs against botocore's model of EC2.
tests/command_checks.py checks single commands, and tests/kubernetes_checks.py checks Kubernetes files.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import jsonschema
import ray
import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version
from ray.autoscaler._private.util import fillout_defaults, prepare_config, validate_config

from tests.command_checks import (
    RAY,
    REPOSITORY,
    Wrong,
    calls,
    check_ray_call,
    check_ray_version,
    check_shell,
    check_variables,
    installed,
    wanted_ray,
)

COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
# Variables that every driver on a head must find in its environment.
HEAD = {"RAY_ADDRESS": "auto", "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"}
IMAGE = re.compile(r"ami-[0-9a-f]{8,17}|resolve:ssm:(/[\w.-]+)+")


def ray_files() -> list[Path]:
    """Cluster files for `ray up`."""
    return sorted(path for path in (REPOSITORY / "cluster").glob("*.yaml") if "provider" in (first(path) or {}))


def first(path: Path) -> Any:
    return next(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def check_ray_file(text: str) -> None:
    """Runs every check of a Ray YAML that needs no cloud.

    Raises:
        Wrong: the first error found.
    """
    config = yaml.safe_load(text)
    check_schema(config)
    check_provider(config)
    check_instances(config)
    check_places(config)
    for command in commands(config):
        check_command(command, config)
    check_environment(config)
    check_ray_pin(config)


def check_schema(config: dict[str, Any]) -> None:
    """Checks the file with Ray's schema, after Ray has filled in the provider's defaults."""
    try:
        prepared = prepare_config(copy.deepcopy(config))
        validate_config(prepared)
        # On the head, `ray up` fills in the defaults a second time.
        validate_config(fillout_defaults(prepared))
    except jsonschema.ValidationError as refusal:
        raise Wrong(f"{'.'.join(map(str, refusal.absolute_path)) or 'top level'}: {refusal.message}") from None
    except (KeyError, ValueError, AssertionError, click.ClickException) as refusal:
        raise Wrong(f"{type(refusal).__name__}: {refusal}") from None


def check_provider(config: dict[str, Any]) -> None:
    """Checks that Ray uses every key of `provider`, because Ray accepts and ignores unknown keys there."""
    schema = json.loads((RAY / "autoscaler/ray-schema.json").read_text(encoding="utf-8"))
    known = {*schema["properties"]["provider"]["properties"], "key_pair"}
    for key in config["provider"]:
        if key not in known:
            raise Wrong(f"provider.{key}: Ray does not know this setting")


def check_instances(config: dict[str, Any]) -> None:
    """Checks that botocore accepts each AWS node_config as a RunInstances call, including enumerated values."""
    if config["provider"]["type"] != "aws":
        return
    session, validate = (importlib.import_module(f"botocore.{name}") for name in ("session", "validate"))
    shape = session.Session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for name, node in config["available_node_types"].items():
        call = {**node["node_config"], "MinCount": 1, "MaxCount": 1}
        call.pop("SubnetIds", None)  # used by Ray itself
        report = validate.ParamValidator().validate(call, shape)
        if report.has_errors():
            raise Wrong(f"{name}: {report.generate_report().splitlines()[0]}")
        for where, value, allowed in _enumerated(call, shape):
            if value not in allowed:
                raise Wrong(f"{name}: {where}: EC2 does not know {value}")
        if not IMAGE.fullmatch(node["node_config"].get("ImageId", "")):
            raise Wrong(f"{name}: ImageId must be an image id or resolve:ssm: with a parameter")
        if "IamInstanceProfile" not in node["node_config"]:
            raise Wrong(f"{name}: without an instance profile it cannot reach the bucket")


def _enumerated(value: Any, shape: Any, where: str = "") -> Iterator[tuple[str, str, list[str]]]:
    if shape.type_name == "structure":
        for key, inner in value.items():
            yield from _enumerated(inner, shape.members[key], f"{where}.{key}".lstrip("."))
    elif shape.type_name == "list":
        for inner in value:
            yield from _enumerated(inner, shape.member, where)
    elif getattr(shape, "enum", None):
        yield where, value, shape.enum


def check_places(config: dict[str, Any]) -> None:
    """Checks that copied files and filters exist, and that no folder in the home directory hides a package.

    `ray submit` runs a script in ~, so Python finds folders there before installed packages.
    """
    for remote, local in config["file_mounts"].items():
        if not local.startswith("~") and not (REPOSITORY / local).exists():
            raise Wrong(f"file_mounts: {local} does not exist")
        if remote.removeprefix("~/").strip("/").isidentifier():
            raise Wrong(f"file_mounts: a folder {remote} hides a package of that name from a script in ~")
    for name in config.get("rsync_filter", []):
        if not (REPOSITORY / name).is_file():
            raise Wrong(f"rsync_filter: {name} does not exist")


def commands(config: dict[str, Any]) -> list[str]:
    return [command for phase in COMMANDS for command in config.get(phase) or []]


def check_command(command: str, config: dict[str, Any]) -> None:
    """Checks that bash parses the command and that its files, variables, requirements and Ray options exist."""
    check_shell(command)
    check_variables(command)
    check_paths(command, config["file_mounts"])
    for call in calls(command):
        if call[0] == "ray":
            check_ray_call(call[1:])
        for requirement in installed(call):
            try:
                Requirement(requirement)
            except InvalidRequirement as refusal:
                raise Wrong(f"{requirement}: {str(refusal).splitlines()[0]}") from None


def check_paths(command: str, mounts: Mapping[str, str]) -> None:
    """Checks that each visible path in the home directory is copied there from this repository."""
    for path in re.findall(r"(?:~|\$HOME)/(\w[\w./-]*)", command):
        folder, _, rest = path.partition("/")
        if folder.startswith("ray_bootstrap_"):
            continue
        if f"~/{folder}" not in {mount.rstrip("/") for mount in mounts}:
            raise Wrong(f"~/{path}: nothing is copied to ~/{folder}")
        if not (REPOSITORY / mounts[f"~/{folder}"] / rest).exists():
            raise Wrong(f"~/{path}: the repository has no {rest}")


def check_environment(config: dict[str, Any]) -> None:
    """Checks the variables that the set-up writes on the head, and that a second `ray up` changes nothing."""
    once, twice = (home_after(config, times) for times in (1, 2))
    for name in (".bashrc", ".mvae.env"):
        if twice[name] != once[name]:
            raise Wrong(f"a second `ray up` changes ~/{name}: {twice[name]!r}")
    said = environment(config)
    for variable, value in HEAD.items():
        if said.get(variable) != value:
            raise Wrong(f"the head's {variable} is {said.get(variable)}, not {value}")
    if not re.fullmatch(r"(s3|gs)://[a-z0-9.-]+/.+|/.+", said.get("MVAE_STORAGE", "")):
        raise Wrong(f"the head's MVAE_STORAGE is {said.get('MVAE_STORAGE')}, neither a URI nor an absolute path")
    if said.get("RAY_AUTH_MODE") not in ("token", "disabled"):
        raise Wrong("the head's RAY_AUTH_MODE is not set: set it, because Ray's default depends on earlier runs")


def environment(config: dict[str, Any]) -> dict[str, str]:
    """MVAE_, RAY_ and MLFLOW_ variables of a login shell on the head after the set-up."""
    variables = dict(line.split("=", 1) for line in home_after(config, 1)["env"].split("\0") if "=" in line)
    return {name: value for name, value in variables.items() if name.startswith(("MVAE_", "RAY_", "MLFLOW_"))}


def home_after(config: dict[str, Any], times: int) -> dict[str, str]:
    """Runs the commands about ~/.mvae.env in a temporary home directory.

    Returns:
        Contents of `.bashrc` and `.mvae.env`, and `env`: the variables that a shell then exports, nul-separated.
    """
    about = [one for phase in COMMANDS[:3] for one in config.get(phase) or [] if ".mvae.env" in one]
    script = "\n".join([*about * times, ". ~/.bashrc", "env -0 > ~/env"])
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / ".bashrc").touch()
        bare = {"HOME": home, "PATH": os.environ["PATH"]}
        ran = subprocess.run(["bash", "-e", "-c", script], env=bare, capture_output=True, encoding="utf-8", timeout=60)
        if ran.returncode != 0:
            raise Wrong(f"the commands about ~/.mvae.env fail with exit code {ran.returncode}: {ran.stderr.strip()}")
        missing = [name for name in (".bashrc", ".mvae.env") if not (Path(home) / name).is_file()]
        if missing:
            raise Wrong(f"no command writes ~/{missing[0]}")
        return {name: (Path(home) / name).read_text(encoding="utf-8") for name in (".bashrc", ".mvae.env", "env")}


def join_with_python(version: str, head: str) -> None:
    """Runs the check with which Ray lets a machine into a cluster.

    Args:
        version: the machine's version of Python.
        head: the head's version of Python.
    Raises:
        RuntimeError: the versions differ too much.
    """
    utils = importlib.import_module("ray._private.utils")
    with patch.object(utils, "compute_version_info", lambda: (ray.__version__, version)):
        utils.check_version_info({"ray_version": ray.__version__, "python_version": head}, "this machine")


def check_ray_pin(config: dict[str, Any]) -> None:
    """Checks that cloud machines install one exact Ray with the project's extras; local machines need no pin."""
    named = [Requirement(word) for command in commands(config) for call in calls(command) for word in installed(call)]
    pins = [requirement for requirement in named if requirement.name == "ray"]
    if not pins and config["provider"]["type"] != "local":
        raise Wrong("no command pins Ray, so the autoscaler's default would install a nightly build")
    for pin in pins:
        if pin.extras != wanted_ray().extras:
            raise Wrong(f"{pin}: the project needs the extras {sorted(wanted_ray().extras)}")
        versions = [one.version for one in pin.specifier if one.operator == "=="]
        if len(versions) != 1 or str(Version(versions[0])) != versions[0]:
            raise Wrong(f"{pin} pins no version")
        check_ray_version(versions[0])
