"""The options of all pipelines as one table, from what their `--help` says."""

from __future__ import annotations

import importlib
import pkgutil

import pipelines
from docs.report.sources import Sources
from sweeps.cli.options import CommonOptions
from sweeps.table.markdown import markdown_table

EVERYWHERE = "all"


def figures(_: Sources) -> dict[str, str]:
    """options.table."""
    lines = [[f"`{option}`", meaning, where] for option, meaning, where in rows()]
    return {"options.table": markdown_table(["option", "meaning", "pipeline"], [], lines)}


def rows() -> list[tuple[str, str, str]]:
    """Option, its help, and the pipelines that have it with this help, those of all pipelines first."""
    classes = {name: importlib.import_module(f"pipelines.{name}").Options for name in names()}
    found: dict[tuple[str, str], list[str]] = {}
    for name, options in classes.items():
        for field, about in options.model_fields.items():
            assert about.description, f"{name}: --{field} has no help"
            found.setdefault((_option(field, about.default), about.description), []).append(name)
    every = {key for key, where in found.items() if len(where) == len(classes)}
    ordered = sorted(found, key=lambda key: (key not in every, key[0]))
    return [(*key, EVERYWHERE if key in every else ", ".join(found[key])) for key in ordered]


def names() -> list[str]:
    """Of the pipelines."""
    modules = [module.name for module in pkgutil.iter_modules(pipelines.__path__)]
    return [name for name in modules if issubclass(getattr(_module(name), "Options", object), CommonOptions)]


def _module(name: str) -> object:
    return importlib.import_module(f"pipelines.{name}")


def _option(field: str, default: object) -> str:
    return f"--{'no-' if default is True else ''}{field.replace('_', '-')}"
