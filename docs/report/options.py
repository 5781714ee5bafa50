"""The options of all pipelines as one table, from what their `--help` says."""

from __future__ import annotations

import importlib
import pkgutil

import pipelines
from docs.report.sources import Sources, Value
from sweeps.cli.options import CommonOptions
from sweeps.table.markdown import markdown_table

EVERYWHERE = "all"


def figures(_: Sources | None = None) -> dict[str, Value]:
    """Returns options.table."""
    lines = [[f"`{option}`", meaning, where] for option, meaning, where in rows()]
    return {"options.table": markdown_table(["option", "meaning", "pipeline"], [], lines)}


def rows() -> list[tuple[str, str, str]]:
    """Option, its help, and the pipelines that have it with this help; the options of all pipelines come first."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, options in _classes().items():
        for field, about in options.model_fields.items():
            assert about.description, f"{name}: --{field} has no help"
            option = f"--{'no-' if about.default is True else ''}{field.replace('_', '-')}"
            found.setdefault((option, about.description), []).append(name)
    every = {key for key, where in found.items() if len(where) == len(names())}
    ordered = sorted(found, key=lambda key: (key not in every, key[0]))
    return [(*key, EVERYWHERE if key in every else ", ".join(found[key])) for key in ordered]


def names() -> list[str]:
    """Names of the pipelines."""
    return list(_classes())


def _classes() -> dict[str, type[CommonOptions]]:
    modules = {
        one.name: importlib.import_module(f"pipelines.{one.name}") for one in pkgutil.iter_modules(pipelines.__path__)
    }
    found = {name: getattr(module, "Options", object) for name, module in modules.items()}
    return {name: options for name, options in found.items() if issubclass(options, CommonOptions)}
