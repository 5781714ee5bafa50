"""docs/extend/stable-names.md: every name, signature and field exists, and the examples import nothing else."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from mvae.data import load, source
from mvae.models import arm
from mvae.trial import Trial
from tests.plugin_files import EXAMPLES
from tests.sweeping import ROOT

PAGE = (ROOT / "docs" / "extend" / "stable-names.md").read_text(encoding="utf-8")


def table(heading: str) -> list[tuple[str, list[str]]]:
    """First and second cell of every row below a heading, the second as its code."""
    section = re.split(r"^## ", PAGE.partition(f"## {heading}\n")[2], flags=re.MULTILINE)[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return [(first.strip().rstrip(" *").strip("`"), re.findall(r"`([^`]+)`", second)) for first, second in rows]


NAMES = {(module, name) for module, names in table("Names") for name in names}
SIGNATURES = [code for heading in ("Functions", "Methods") for code, _ in table(heading)]
FIELDS = table("Fields")


@cache
def found(name: str) -> Any:
    """A stable name, alone or after its module."""
    module, _, last = name.rpartition(".")
    (owner,) = {known for known, each in NAMES if each == last and module in ("", known)}
    return getattr(importlib.import_module(owner), last)


def test_the_page_has_tables() -> None:
    assert len(NAMES) > 80 and len(SIGNATURES) > 30 and len(FIELDS) > 15


@pytest.mark.parametrize("module", sorted({module for module, _ in NAMES}))
def test_every_stable_name_can_be_imported(module: str) -> None:
    names = {name for owner, name in NAMES if owner == module}
    assert {name for name in names if not hasattr(importlib.import_module(module), name)} == set()


@pytest.mark.parametrize("code", SIGNATURES)
def test_every_stable_function_has_the_parameters_on_the_page(code: str) -> None:
    name, _, parameters = code.rstrip(")").partition("(")
    if name.startswith("mvae."):
        function = found(name)
    else:
        owner, _, method = name.partition(".")
        function = getattr(found(owner), method) if method else found(owner)
    own = [each for each in inspect.signature(function).parameters if each not in ("self", "cls")]
    assert own == [each for each in parameters.split(", ") if each]


@pytest.fixture(scope="module")
def made(cache: Path) -> dict[str, Any]:
    """Objects whose fields only exist once they are made."""
    data, chosen = load("digits", cache=cache), arm("mopoe")
    trial = Trial.create(dataset="digits", model="mopoe")
    model: nn.Module = chosen.build(trial, source("digits").modalities)
    assert chosen.learner is not None
    return {"Multimodal": model, "ElboLearner": chosen.learner(model, trial, data)}


@pytest.mark.parametrize(("name", "listed"), FIELDS, ids=[name for name, _ in FIELDS])
def test_every_stable_field_exists(name: str, listed: list[str], made: dict[str, Any]) -> None:
    kind = found(name)
    known = {field.name for field in fields(kind)} if is_dataclass(kind) else set()
    known |= set(dir(made.get(name, kind))) | set(inspect.get_annotations(kind))
    assert [field for field in listed if field not in known] == []


def imported(path: Path) -> set[tuple[str, str]]:
    """Names of this project that a file imports, with their modules; of a module, the attributes that it uses."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    taken = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("mvae", "sweeps"):
            taken |= {(str(node.module), alias.name) for alias in node.names}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value).split(".")[0] in ("mvae", "sweeps"):
            taken.add((ast.unparse(node.value), node.attr))
    modules = {f"{module}.{name}" for module, name in taken} & {module for module, _ in NAMES}
    return {(module, name) for module, name in taken if f"{module}.{name}" not in modules}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_imports_only_stable_names(path: Path) -> None:
    taken = imported(path)
    assert taken
    assert {f"{module}.{name}" for module, name in taken - NAMES} == set()


def test_no_example_uses_a_private_method() -> None:
    for path in EXAMPLES.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        assert [name for name in used if name.startswith("_") and not name.endswith("__")] == [], path
