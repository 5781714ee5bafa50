"""Runs each command of the documents as far as possible without training or starting machines.

python pipelines/X.py ...     runs with --plan, which looks everything up and starts nothing. If the raw files of its
                              data set are missing, it must end with the error that says so.
python docs/examples/X.py ... the same as for pipelines/X.py
python -m benchmarks.X ...    its options are parsed
python -m docs.report ...     runs with --check or --names
make X ...                    make prints what it would do
ray ...                       Ray's command line parses it; files, variables and a submitted pipeline's options are
                              checked
mlflow ...                    MLflow's command line parses it
bash cluster/X.sh ...         the script exists and knows the word after it
mvae run X ...                the same as for pipelines/X.py
mvae X ...                    its options are parsed
ssh ...                       ssh parses its options
sbatch ... cluster/slurm.sh   its options are among those that cluster/slurm.sh lists; the pipeline is tried as above
scancel, tail, ...            bash parses the line
"""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from unittest import mock

import click
from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from docs.report.__main__ import main as documents_main
from mvae.data import MissingFiles, training_examples
from mvae.refusal import Refusal
from sweeps.cli.options import CommonOptions, read
from sweeps.commands.entry import COMMANDS
from sweeps.main import main as sweep_main
from tests.command_checks import REPOSITORY, Wrong, calls, check_ray_line, check_shell, check_variables

PYTHON = ("python", ".venv/bin/python")
ACTIVATION = ". .venv/bin/activate"


def run(line: str, scratch: Path) -> None:
    """Runs a line as far as possible.

    Args:
        scratch: an empty folder, for storage and converted data.
    Raises:
        Wrong: the command does not work, or is of an unknown kind.
    """
    check_shell(line)
    check_variables(line)
    for words in calls(line):
        if words[0] in PYTHON and len(words) > 1 and words[1].startswith(("pipelines/", "docs/examples/")):
            _pipeline(words[1], words[2:], scratch)
        elif words[0] in PYTHON and words[1:2] == ["-m"]:
            _module(words[2], words[3:])
        elif words[0] == "make":
            _make(words)
        elif words[0] == "ray":
            check_ray_line(line)
        elif words[0] == "mlflow":
            _mlflow(words[1:])
        elif words[0] == "mvae":
            _mvae(words[1:], scratch)
        elif words[0] == "bash":
            _script(words[1:])
        elif words[0] == "ssh":
            _ssh(words[1:])
        elif words[0] == "benchmarks/gpu":
            _gpu(words[1:])
        elif words[0] == "sbatch":
            _batch(words[1:], scratch)
        elif line != ACTIVATION and words[0] not in ("scancel", "tail", "export", "apptainer"):
            raise Wrong(f"{line}: tests/typed_commands.py cannot try {words[0]}")


def _pipeline(script: str, arguments: list[str], scratch: Path) -> None:
    if not (REPOSITORY / script).is_file():
        raise Wrong(f"the repository has no {script}")
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    ours = ["--plan", "--storage", str(scratch / "runs"), "--cache", str(scratch / "cache")]
    try:
        options = read(
            getattr(module, "Options", CommonOptions),
            [*(word for word in arguments if word not in ("--report", "--resume")), *ours],
        )
        assert isinstance(options, CommonOptions)
        training_examples(options.dataset, options.data_root)
        module.sweep(options)
    except MissingFiles:
        return
    except Refusal as refusal:
        raise Wrong(f"{script} {' '.join(arguments)}: {refusal}") from None
    with mock.patch("sweeps.planning.probe.probed", return_value=None):  # each probe would take seconds
        code = sweep_main(lambda: module.sweep(options), options)
    if code:
        raise Wrong(f"{script} {' '.join(arguments)} --plan: exit code {code}")


def _module(name: str, arguments: list[str]) -> None:
    if name == "docs.report":
        _documents(arguments)
        return
    if name == "tests.histories":
        try:
            importlib.import_module("tests.histories.__main__").parser().parse_args(arguments)
        except SystemExit:
            raise Wrong(f"python -m tests.histories {' '.join(arguments)}: no such option") from None
        return
    if name in ("pytest", "mkdocs"):
        raise Wrong(f"python -m {name}: use a make target instead")
    try:
        module = importlib.import_module(name)
        CliApp.run(module.Options, cli_args=arguments)
    except (ImportError, AttributeError):
        raise Wrong(f"python -m {name}: no such module, or it has no options") from None
    except (ValidationError, SettingsError, SystemExit) as refusal:
        raise Wrong(f"python -m {name} {' '.join(arguments)}: {refusal}") from None


def _batch(words: list[str], scratch: Path) -> None:
    script = words.index("cluster/slurm.sh") if "cluster/slurm.sh" in words else len(words)
    names = {word.partition("=")[0] for word in words[:script]}
    listed = re.findall(r"SBATCH (--[a-z-]+)", (REPOSITORY / "cluster" / "slurm.sh").read_text(encoding="utf-8"))
    if script == len(words) or not names <= {"--nodes", *listed}:
        raise Wrong(f"sbatch {' '.join(words)}: unknown option, or not cluster/slurm.sh")
    _pipeline(words[script + 1], words[script + 2 :], scratch)


def _documents(arguments: list[str]) -> None:
    if "--storage" in arguments:  # the storage need not exist
        arguments = [*arguments, "--help"]
    elif not {"--names", "--check"} & set(arguments):
        arguments = [*arguments, "--check"]
    try:
        code = documents_main(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    if code:
        raise Wrong(f"python -m docs.report {' '.join(arguments)}: exit code {code}")


@cache
def _targets() -> set[str]:
    phony = next(
        line
        for line in (REPOSITORY / "Makefile").read_text(encoding="utf-8").splitlines()
        if line.startswith(".PHONY:")
    )
    return set(phony.removeprefix(".PHONY:").split())


def _make(words: list[str]) -> None:
    targets = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
    if unknown := set(targets) - _targets():
        raise Wrong(f"{' '.join(words)}: the Makefile has no target {', '.join(unknown)}")
    variables = [word.partition("=")[0] for word in words[1:] if "=" in word]
    if unset := [
        name for name in variables if f"\n{name} ?=" not in (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    ]:
        raise Wrong(f"{' '.join(words)}: the Makefile does not read {', '.join(unset)}")
    said = subprocess.run(["make", "-n", *words[1:]], cwd=REPOSITORY, capture_output=True, encoding="utf-8", timeout=60)
    if said.returncode != 0:
        raise Wrong(f"{' '.join(words)}: {said.stderr.strip()}")


def _mlflow(words: list[str]) -> None:
    from mlflow.cli import cli

    command = cli.get_command(click.Context(cli), words[0])  # type: ignore[no-untyped-call]
    if command is None:
        raise Wrong(f"mlflow {words[0]}: MLflow has no such command")
    try:
        command.make_context(words[0], list(words[1:]))
    except click.UsageError as refusal:
        raise Wrong(f"mlflow {words[0]}: {refusal.format_message()}") from None


def _mvae(words: list[str], scratch: Path) -> None:
    if words[0] == "run":
        _pipeline(f"pipelines/{words[1]}.py", words[2:], scratch)
        return
    if words[0] not in COMMANDS:
        raise Wrong(f"mvae {words[0]}: no such command")
    try:
        importlib.import_module(f"sweeps.commands.{words[0]}").parser().parse_args(words[1:])
    except Refusal as refusal:
        raise Wrong(f"mvae {' '.join(words)}: {refusal}") from None


def _script(words: list[str]) -> None:
    path = REPOSITORY / words[0]
    if not path.is_file():
        raise Wrong(f"bash {words[0]}: the repository has no such script")
    text = path.read_text(encoding="utf-8")
    for word in words[1:]:
        if f"\n{word})" not in text:
            raise Wrong(f"{words[0]} {word}: the script has no such command")


def _ssh(words: list[str]) -> None:
    """Checks options and forwards: ssh -G prints the settings that a command line gives, and connects to nothing."""
    if shutil.which("ssh") is None:
        return
    ran = subprocess.run(["ssh", "-F", "none", "-G", *words], capture_output=True, encoding="utf-8", timeout=60)
    if ran.returncode != 0:
        raise Wrong(f"ssh {' '.join(words)}: {ran.stderr.strip()}")


def _gpu(words: list[str]) -> None:
    from benchmarks.gpu_runs.command import _parser

    try:
        _parser().parse_args(words)
    except SystemExit:
        raise Wrong(f"benchmarks/gpu {' '.join(words)}: invalid arguments") from None
