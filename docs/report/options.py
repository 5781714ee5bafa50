"""The options of all pipelines in one table, from their `--help-all`."""

from __future__ import annotations

import importlib
import pkgutil

import pipelines
from docs.report.sources import Sources, Value
from sweeps.cli.help import explanation
from sweeps.cli.options import CommonOptions
from sweeps.table.markdown import markdown_table


def figures(_: Sources | None = None) -> dict[str, Value]:
    """The table as `options.table`."""
    lines = [[f"`{option}`", meaning, where] for option, meaning, where in ROWS]
    return {"options.table": markdown_table(["option", "meaning", "pipeline"], [], lines)}


def rows() -> list[tuple[str, str, str]]:
    """Option, its help, and the pipelines that have it with this help; the options of all pipelines come first."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, options in classes().items():
        for field, about in options.model_fields.items():
            help_text = " ".join(explanation(options, field).split())
            option = f"--{'no-' if about.default is True else ''}{field.replace('_', '-')}"
            found.setdefault((option, help_text), []).append(name)
    where = {key: "all" if len(names) == len(classes()) else ", ".join(names) for key, names in found.items()}
    return [(*key, where[key]) for key in sorted(found, key=lambda key: (where[key] != "all", key[0]))]


def classes() -> dict[str, type[CommonOptions]]:
    """Options of every pipeline, by its name."""
    found = {}
    for module in pkgutil.iter_modules(pipelines.__path__):
        options = getattr(importlib.import_module(f"pipelines.{module.name}"), "Options", None)
        if options is not None and issubclass(options, CommonOptions):
            found[module.name] = options
    return found


ROWS = rows()
"""Computed at import, before a plug-in of the documents adds arms or data sets."""
