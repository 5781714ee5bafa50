"""Which packages of mvae and sweeps may import which: a room imports only rooms below it, and no file in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

# From bottom to top; rooms on one line do not import each other.
FLOORS = {
    "mvae": (
        "refusal home limits streams workers decimals",
        "hyperparameters",
        "settings",
        "measure supervision storage",
        "sampling",
        "data",
        "networks",
        "models",
        "likelihood gaussian",
        "trial",
        "evaluation plugins",
        "training",
    ),
    "sweeps": (
        "store",
        "cli",
        "planning",
        "table",
        "tracking trials sweep",
        "engine",
        "driver",
        "grid search",
        "main",
        "start",
        "commands",
    ),
}
HOMES = {"ray": "sweeps/engine", "mlflow": "sweeps/tracking/mirror", "optuna": "sweeps/search"}


def modules(package: str) -> dict[str, Path]:
    """Dotted module name to file."""
    paths = (path.relative_to(PROJECT) for path in (PROJECT / package).rglob("*.py"))
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Modules that a file imports anywhere, also inside TYPE_CHECKING blocks."""
    for node in ast.walk(ast.parse((PROJECT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in known else node.module


def room(module: str) -> str:
    return [*module.split("."), ""][1]


@pytest.mark.parametrize("package", FLOORS)
def test_a_room_imports_only_rooms_below_it(package: str) -> None:
    floor = {name: level for level, names in enumerate(FLOORS[package]) for name in names.split()}
    known = modules(package)
    assert {room(module) for module in known} - {""} == floor.keys()
    upwards = {
        f"{module} imports {target}"
        for module, path in known.items()
        for target in imports(path, known)
        if target.startswith(f"{package}.") and room(target) != room(module)
        if floor[room(target)] >= floor[room(module)]
    }
    assert not upwards


def test_mvae_never_imports_sweeps_and_ray_mlflow_and_optuna_have_one_room_each() -> None:
    wrong = []
    for package in ("mvae", "sweeps", "pipelines", "docs"):
        for module, path in modules(package).items():
            for target in imports(path, {}):
                top = target.split(".")[0]
                elsewhere = top in HOMES and not path.is_relative_to(HOMES[top])
                if elsewhere or (package == "mvae" and top in ("sweeps", "pipelines")):
                    wrong.append(f"{module} imports {target}")
    assert not wrong


def test_no_file_imports_another_in_a_circle() -> None:
    known = {module: path for package in ("mvae", "sweeps", "pipelines") for module, path in modules(package).items()}
    order = TopologicalSorter({module: {*imports(path, known)} - {module} for module, path in known.items()})
    assert {*order.static_order()} >= known.keys()  # raises CycleError, which names the files


def test_no_file_is_longer_than_350_lines_and_no_test_than_400() -> None:
    folders = ("mvae", "sweeps", "pipelines", "docs", "benchmarks", "tests")
    lengths = {path: len(path.read_bytes().splitlines()) for one in folders for path in (PROJECT / one).rglob("*.py")}
    assert len(lengths) > 300
    tests = PROJECT / "tests"
    too_long = {path for path, lines in lengths.items() if lines > (400 if path.is_relative_to(tests) else 350)}
    assert not too_long


@pytest.mark.parametrize("package", FLOORS)
def test_the_maps_name_every_file_and_every_room(package: str) -> None:
    for init in sorted((PROJECT / package).rglob("__init__.py")):
        above = [init, *(folder / "__init__.py" for folder in init.parent.parents if (folder / "__init__.py").exists())]
        maps = "\n".join(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "" for path in above)
        files = {path.name for path in init.parent.glob("*.py")} - {"__init__.py", "__main__.py"}
        rooms = {f"{path.parent.name}/" for path in init.parent.glob("*/__init__.py")}
        assert {name for name in files | rooms if name not in maps} == set(), init
