"""Private names of Ray: only one file uses them, and the installed version of Ray has them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.engine import idle_agent
from sweeps.engine.idle_agent import announce
from sweeps.engine.machines import PRIVATE
from sweeps.engine.private import TOKEN, guarded, hidden, labelled, read_token, trainer_without_datasets
from sweeps.engine.start_worker import rays_own
from tests.processes import raylet
from tests.tracked import until

PROJECT = Path(__file__).parents[1]

ALLOWED = {
    "sweeps/engine/private.py",
    "tests/test_private_names.py",
    # they check the files in cluster/ with Ray's own launcher, which has no public name
    "tests/cluster_checks.py",
    "tests/test_cluster_aws.py",
    "tests/test_cluster_copies.py",
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def names(tree: ast.AST) -> Iterator[str]:
    """Dotted names below ray that a file imports or reads, and options and attributes that reach into Ray."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{one.name}" for one in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("ray."):
            yield ast.unparse(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
            yield node.value  # as in patches and resources
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("ray."):
            yield from (f"ray.{option.arg}" for option in node.keywords if option.arg)


def private_names(source: str) -> list[str]:
    found = [name for name in names(ast.parse(source)) if name.startswith(("ray.", "node:"))]
    return [name for name in found if "__internal" in name or any(map(is_private, name.split(".")))]


def test_only_one_file_uses_private_names_of_ray() -> None:
    told = subprocess.run(["git", "ls-files", "*.py"], cwd=PROJECT, capture_output=True, encoding="utf-8", check=True)
    files = [name for name in told.stdout.split() if (PROJECT / name).exists()]
    users = {name for name in files if private_names((PROJECT / name).read_text(encoding="utf-8"))}
    assert users == ALLOWED


def test_the_engine_reads_no_attribute_that_starts_with_an_underscore() -> None:
    """The source does not show which object has an attribute, so this includes our own attributes."""
    read = {
        f"{path.name}: {ast.unparse(node)}"
        for path in (PROJECT / "sweeps" / "engine").glob("*.py")
        if path.name != "private.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and is_private(node.attr))
        or (isinstance(node, ast.keyword) and node.arg and is_private(node.arg))
    }
    assert read == set()


@pytest.mark.parametrize(
    "source",
    [
        "from ray._private import worker",
        "import ray.train.v2._internal.constants",
        "from ray import _raylet",
        "import ray; ray._private.utils.set_sigterm_handler(None)",
        "ray.init(_temp_dir='x')",
        "monkeypatch.setattr('ray._private.node.Node', None)",
        "resources = {'node:__internal_head__': 1}",
    ],
)
def test_every_way_to_reach_a_private_name_is_detected(source: str) -> None:
    assert private_names(source)


def test_the_installed_ray_has_every_name_that_is_replaced() -> None:
    import ray._raylet
    from ray._private import node, ray_constants, services, utils, worker
    from ray.air._internal import usage
    from ray.train.torch import config
    from ray.tune.execution import class_cache

    compiled: Any = ray._raylet
    for owner, attributes in (
        (node.Node, ("start_monitor", "start_log_monitor", "start_api_server")),
        (services, ("_build_python_executable_command_memory_profileable",)),
        (usage, ("tag_callbacks",)),
        (utils, ("get_dashboard_dependency_error", "set_sigterm_handler")),
        (worker, ("print_to_stdstream",)),
        (services, ("_is_raylet_process", "_find_address_from_flag")),
        (config, ("_TorchBackend", "_setup_torch_process_group")),
        (compiled.Config, ("initialize",)),
        (compiled.AuthenticationTokenLoader.instance(), ("reset_cache",)),
    ):
        assert [name for name in attributes if not callable(getattr(owner, name, None))] == []
    assert ray_constants.ENABLE_RAY_CLUSTER is True
    assert {"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} < class_cache.ENV_VARS_TO_PROPAGATE
    assert (Path(node.__file__).parent / "workers" / ray_constants.SETUP_WORKER_FILENAME) == Path(rays_own())


def test_auto_finds_every_cluster_of_this_machine_except_private_ones() -> None:
    from ray._private import services

    find: Any = services.find_gcs_addresses

    def found() -> set[str]:
        find.cache_clear()
        return set(find())

    with raylet("127.0.0.1:1", PRIVATE), raylet("10.9.9.9:2", "another/label"):
        assert {"127.0.0.1:1", "10.9.9.9:2"} <= found()
        with hidden(PRIVATE):
            assert "10.9.9.9:2" in found() and not labelled(PRIVATE) & found()
    assert not {"127.0.0.1:1", "10.9.9.9:2"} & found()


def test_each_cluster_gets_a_token_of_its_own_which_replaces_the_users_within_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray._raylet

    compiled: Any = ray._raylet

    def token() -> str:
        read_token()
        header = compiled.AuthenticationTokenLoader.instance().get_token_for_http_header()
        return str(header.get("authorization", ""))

    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the user's")
    seen = [token()]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with guarded(tmp_path / name):
            seen.append(token())
            file = tmp_path / name / TOKEN
            assert (seen[-1], file.stat().st_mode & 0o777) == (f"Bearer {file.read_text(encoding='ascii')}", 0o600)
            assert seen[-1] not in map("Bearer {}".format, os.environ.values())
    seen.append(token())
    assert seen[0] == seen[-1] == "Bearer the user's"
    assert len(set(seen)) == 3
    monkeypatch.undo()
    read_token()


def test_the_idle_agent_writes_what_rays_agent_writes_if_it_offers_nothing(tmp_path: Path) -> None:
    from ray import _raylet

    rays, ours = tmp_path / "rays", tmp_path / "ours"
    for folder in (rays, ours):
        folder.mkdir()
    for name in ("METRICS_AGENT_PORT_NAME", "METRICS_EXPORT_PORT_NAME", "DASHBOARD_AGENT_LISTEN_PORT_NAME"):
        _raylet.persist_port(str(rays), "ab" * 28, getattr(_raylet, name), -1)  # type: ignore[attr-defined]
    announce(str(ours), "ab" * 28)
    assert {path.name: path.read_text(encoding="utf-8") for path in ours.iterdir()} == {
        path.name: path.read_text(encoding="utf-8") for path in rays.iterdir()
    }


def test_the_idle_agent_ends_when_its_raylet_is_killed(tmp_path: Path) -> None:
    agent = [sys.executable, "-S", idle_agent.__file__, f"--session-dir={tmp_path}"]
    code = f"import subprocess, time; print(subprocess.Popen({agent!r}).pid, flush=True); time.sleep(60)"
    raylet = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "RAY_NODE_ID": "a"}
    )
    assert raylet.stdout is not None
    pid = int(raylet.stdout.readline())
    until(lambda: len(list(tmp_path.iterdir())) == 3)
    assert Path(f"/proc/{pid}").exists()
    raylet.kill()
    raylet.wait()
    raylet.stdout.close()
    until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes())


@pytest.mark.slow
def test_ray_train_starts_no_data_set_process() -> None:
    from ray.train.torch import TorchTrainer

    plain: Any = TorchTrainer(print)
    ours: Any = trainer_without_datasets()(print)
    kept = [type(one).__name__ for one in plain._create_default_callbacks()]
    left = [type(one).__name__ for one in ours._create_default_callbacks()]
    assert "DatasetsCallback" in kept
    assert left == [name for name in kept if name != "DatasetsCallback"]
