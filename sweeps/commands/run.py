"""`mvae run PIPELINE`: runs a pipeline's file, with the same options, output and exit codes as `python FILE`."""

import ast
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from mvae.refusal import Refusal
from sweeps.cli.output import outliving_readers
from sweeps.cli.programs import installed, started_by
from sweeps.store.provenance import ROOT

PIPELINES = ROOT / "pipelines"
"""Folder of the pipelines, in a clone or where this project is installed."""


def main(typed: Sequence[str]) -> int:
    """Runs the pipeline in this process and returns its exit code.

    Args:
        typed: a pipeline's name, or the path of your own file; then the pipeline's options.
    Raises:
        Refusal: the pipeline does not exist.
    """
    if not typed or typed[0] in ("-h", "--help"):
        with outliving_readers(""):
            print(page())
        return 0
    name, *options = typed
    path = file_of(name)
    started_by(installed("mvae"), "run", name)
    sys.argv = [str(path), *options]
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def file_of(name: str) -> Path:
    """Returns the file of a pipeline.

    Args:
        name: name of a pipeline of this project, or the path of a Python file.
    Raises:
        Refusal: the pipeline or file does not exist.
    """
    if name.endswith(".py"):
        path = Path(name).expanduser().absolute()
        if not path.is_file():
            raise Refusal(f"the file {path} does not exist: write a pipeline's name, or the path of your own file")
        return path
    if name not in names():
        raise Refusal(f"unknown pipeline {name}: choose one of {', '.join(names())}, or write the path of a file")
    return PIPELINES / f"{name}.py"


def names() -> list[str]:
    """Returns the names of this project's pipelines."""
    return sorted(path.stem for path in PIPELINES.glob("[a-z]*.py"))


def page() -> str:
    """Returns the help page: every pipeline with the first line of its docstring."""
    lines = []
    for name in names():
        text = ast.get_docstring(ast.parse((PIPELINES / f"{name}.py").read_text(encoding="utf-8"))) or ""
        lines.append(f"  {name:<20} {text.partition(chr(10))[0]}")
    ends = "mvae run PIPELINE --help lists a pipeline's options. PIPELINE may also be the path of your own file."
    return "\n".join(["usage: mvae run PIPELINE [options]", "", *lines, "", ends])
