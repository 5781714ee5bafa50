"""Checks of command lines in cluster/; each raises Wrong.

A line is checked against bash, Ray's command line, pip's requirement format, the options of our pipelines, and the
names of the variables that we, Ray and MLflow read.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import click
import ray
from packaging.requirements import Requirement
from ray.scripts.scripts import cli

from mvae.refusal import Refusal
from sweeps.cli.options import read

REPOSITORY = Path(__file__).resolve().parents[1]
RAY = Path(ray.__file__).parent


class Wrong(Exception):
    """A cluster file has an error; the message is one line."""


def check_shell(command: str) -> None:
    checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, encoding="utf-8")
    if checked.returncode != 0:
        raise Wrong(f"bash cannot parse {command!r}: {checked.stderr.strip().splitlines()[0]}")


def calls(command: str) -> list[list[str]]:
    """Splits a line into simple commands, each a list of words, without leading assignments."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("();<>|&"):
            found.append([])
        elif found[-1] or not re.match(r"\w+=", word):
            found[-1].append(word)
    return [call for call in found if call]


def installed(call: list[str]) -> list[str]:
    """Requirements named in a call of `pip install`, without `-e` and other options with values."""
    if "pip" not in call or "install" not in call:
        return []
    words = iter(call[call.index("install") + 1 :])
    named: list[str] = []
    for word in words:
        if word in ("-e", "-r", "--python", "--extra-index-url", "--index-url", "--find-links"):
            next(words)
        elif not word.startswith("-"):
            named.append(word)
    return named


def check_ray_call(words: list[str]) -> None:
    """Checks that Ray's command line accepts these words."""
    try:
        command = cli.commands[words[0]]
        command.make_context(words[0], list(words[1:]))
    except KeyError:
        raise Wrong(f"ray {words[0]}: Ray has no such command") from None
    except click.UsageError as refusal:
        raise Wrong(f"ray {words[0]}: {refusal.format_message()}") from None


def check_variables(text: str) -> None:
    """Checks that we, Ray or MLflow read each MVAE_, RAY_ and MLFLOW_ variable."""
    for name in re.findall(r"\b(?:MVAE|RAY|MLFLOW)_\w+", text):
        if not _is_read(name):
            raise Wrong(f"{name}: no program reads this variable")


@cache
def _is_read(name: str) -> bool:
    if name.startswith("RAY_") and name[4].islower():  # a setting of Ray's C++ part, whose binary holds the name
        return name[4:].encode() in _binary()
    word = re.compile(rf"\b{name}\b")
    return any(word.search(text) for text in _sources(name.partition("_")[0]))


@cache
def _binary() -> bytes:
    return (RAY / "_raylet.so").read_bytes()


@cache
def _sources(prefix: str) -> list[str]:
    if prefix == "MVAE":
        found = [path for folder in ("mvae", "sweeps") for path in (REPOSITORY / folder).rglob("*.py")]
        found.append(REPOSITORY / "tests" / "browsing.py")
    elif prefix == "RAY":
        found = [
            RAY / "_private/ray_constants.py",
            RAY / "_private/utils.py",
            RAY / "autoscaler/_private/util.py",
            RAY / "autoscaler/_private/commands.py",
            *(RAY / "_private/authentication").glob("*.py"),
        ]
    else:
        spec = importlib.util.find_spec("mlflow")
        assert spec is not None and spec.origin is not None
        mlflow = Path(spec.origin).parent
        found = [mlflow / "environment_variables.py", mlflow / "cli/__init__.py", mlflow / "utils/cli_args.py"]
    if prefix != "RAY":
        found.extend((REPOSITORY / "cluster").glob("*.sh"))
    return [path.read_text(encoding="utf-8") for path in found]


@cache
def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


@cache
def wanted_ray() -> Requirement:
    """The Ray requirement of pyproject.toml."""
    return next(one for one in map(Requirement, project()["dependencies"]) if one.name == "ray")


def check_ray_version(version: str) -> None:
    if version not in wanted_ray().specifier:
        raise Wrong(f"Ray {version} is not what pyproject.toml asks for: {wanted_ray()}")


def header(text: str) -> list[str]:
    """Commands in a file's opening comment: lines indented by three spaces, without trailing remarks."""
    opening = re.match(r"(?:#.*\n)+", text)
    lines = opening[0].splitlines() if opening else []
    return [re.split(r"\s{4,}", line[4:])[0].rstrip() for line in lines if re.match(r"#   (?=\S)", line)]


def script_in_header(text: str, opens_with: str) -> str:
    """Shell lines of a file's opening comment, from the first line that starts with `opens_with`."""
    lines = [line[4:] for line in text.splitlines() if line.startswith("#   ")]
    start = next(index for index, line in enumerate(lines) if line.startswith(opens_with))
    return "\n".join(lines[start:])


def check_header(text: str, three: list[str]) -> None:
    """Checks that the opening comment starts with the three commands and that every `ray` line in it is valid."""
    typed = header(text)
    for line in typed[: len(three)]:
        check_shell(line)
    if [" ".join(calls(line)[0][:2]) for line in typed[: len(three)]] != three:
        raise Wrong(f"opens with {typed[: len(three)]}, not with {three}")
    for line in typed:
        if re.match(r"(\w+=\w+ )*ray ", line):
            check_ray_line(line)


def check_ray_line(line: str) -> None:
    """Checks the variables, flags, files and submitted pipeline of a `ray` line."""
    check_shell(line)
    check_variables(line)
    words = calls(line)[0][1:]
    check_ray_call(words)
    for name in words:
        if name.endswith((".yaml", ".py")) and not (REPOSITORY / name).is_file():
            raise Wrong(f"{line}: the repository has no {name}")
    if words[0] == "submit":
        script = next(index for index, word in enumerate(words) if word.endswith(".py"))
        check_pipeline(words[script], words[script + 1 :])


def check_pipeline(script: str, arguments: list[str]) -> None:
    """Checks that a pipeline accepts these options."""
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    try:
        read(module.Options, arguments)
    except Refusal as refusal:
        raise Wrong(f"{script}: {refusal}") from None
