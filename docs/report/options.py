"""Makes one table of all pipelines' options, from their `--help`."""

from __future__ import annotations

import importlib
import pkgutil

import pipelines
from docs.report.sources import Sources, Value
from sweeps.cli.options import CommonOptions
from sweeps.table.markdown import markdown_table


def figures(_: Sources | None = None) -> dict[str, Value]:
    """Returns the table as `options.table`."""
    lines = [[f"`{option}`", meaning, where] for option, meaning, where in rows()]
    return {"options.table": markdown_table(["option", "meaning", "pipeline"], [], lines)}


def rows() -> list[tuple[str, str, str]]:
    """Returns each option, its help, and the pipelines that share this help; options of all pipelines come first."""
    of_pipelines = classes()
    found: dict[tuple[str, str], list[str]] = {}
    for name, options in of_pipelines.items():
        for field, about in options.model_fields.items():
            assert about.description, f"{name}: --{field} has no help"
            option = f"--{'no-' if about.default is True else ''}{field.replace('_', '-')}"
            found.setdefault((option, about.description), []).append(name)
    where = {key: "all" if len(names) == len(of_pipelines) else ", ".join(names) for key, names in found.items()}
    return [(*key, where[key]) for key in sorted(found, key=lambda key: (where[key] != "all", key[0]))]


def classes() -> dict[str, type[CommonOptions]]:
    """Returns the options class of every pipeline, by the pipeline's name."""
    modules = {
        found.name: importlib.import_module(f"pipelines.{found.name}")
        for found in pkgutil.iter_modules(pipelines.__path__)
    }
    options = {name: getattr(module, "Options", None) for name, module in modules.items()}
    return {name: one for name, one in options.items() if one is not None and issubclass(one, CommonOptions)}
