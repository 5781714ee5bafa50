"""Private names of Ray: only one file uses them, and the installed version of Ray has them."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.engine.private import trainer_without_datasets
from sweeps.engine.start_worker import rays_own

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
    from ray._private import node, ray_constants, utils, worker

    for owner, attributes in (
        (node.Node, ("start_monitor", "start_log_monitor")),
        (utils, ("get_dashboard_dependency_error", "set_sigterm_handler")),
        (worker, ("print_to_stdstream",)),
    ):
        assert [name for name in attributes if not callable(getattr(owner, name, None))] == []
    assert (Path(node.__file__).parent / "workers" / ray_constants.SETUP_WORKER_FILENAME) == Path(rays_own())


@pytest.mark.slow
def test_ray_train_starts_no_data_set_process() -> None:
    from ray.train.torch import TorchTrainer

    plain: Any = TorchTrainer(print)
    ours: Any = trainer_without_datasets()(print)
    kept = [type(one).__name__ for one in plain._create_default_callbacks()]
    left = [type(one).__name__ for one in ours._create_default_callbacks()]
    assert "DatasetsCallback" in kept
    assert left == [name for name in kept if name != "DatasetsCallback"]
