"""Runs every command in README.md and docs/ as far as possible without training or starting machines."""

from __future__ import annotations

import importlib
import re
from functools import cache
from pathlib import Path

import pytest
from ray.scripts.scripts import cli as ray_cli

from docs.report.__main__ import documents
from docs.report.sources import option_rows
from sweeps.commands.entry import COMMANDS as COMMANDS_OF_MVAE
from tests.command_checks import REPOSITORY, Wrong
from tests.document_checks import inline, split
from tests.typed_commands import _targets, run

PAGES = documents(REPOSITORY)
COMMANDS = {
    command: f"{page.relative_to(REPOSITORY)}:{line}"
    for page in PAGES
    for block in split(page.read_text(encoding="utf-8"))[1]
    for line, command in block.commands
}
"""Each command once, with one place where it occurs."""


def test_commands_are_found_in_the_readme_and_in_the_pages() -> None:
    assert "make demo" in COMMANDS
    assert {place.partition(":")[0] for place in COMMANDS.values()} >= {"README.md", "docs/cluster.md", "docs/speed.md"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_documented_command_works_as_far_as_it_can_be_tried(
    command: str, tmp_path: Path, no_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    run(command, tmp_path)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("python pipelines/weak_supervision.py --fraction 0.1", "did you mean --fractions"),
        ("python pipelines/weak_supervision.py --arms mvea", "mvea"),
        ("python pipelines/strong_supervision.py", "the repository has no"),
        ("python -m benchmarks.trainings", "no such module"),
        ("python -m benchmarks.training --outt x", "outt"),
        ("python -m docs.report --chek", "exit code 2"),
        ("make demos", "no target demos"),
        ("make demo ARG=--plan", "does not read ARG"),
        ("ray submitt cluster/local.yaml", "no such command"),
        ("ray submit cluster/local.yaml pipelines/train.py --worker 2", "did you mean --workers"),
        ("mvae lst", "mvae lst: no such command"),
        ("mvae verify none", "write a whole number of at least 1"),
        ("mvae run table5", "the repository has no"),
        ("mlflow uii", "no such command"),
        ("mlflow ui --backend-uri x", "backend-uri"),
        ("MVAE_STORE=x make demo", "no program reads"),
        ("pyton x.py", "cannot try pyton"),
        ("make demo && (", "bash cannot parse"),
    ],
)
def test_a_command_that_would_not_run_is_found(
    command: str, said: str, tmp_path: Path, no_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(Wrong, match=said):
        run(command, tmp_path)


@cache
def _flags() -> set[str]:
    """Every option of a pipeline, and the other commands' options that the text names."""
    found = {"--help", "--help-all", "--out", "--check", "--names", "--sweeps", "--extra-index-url"}
    found |= {"--no-restart", "--working-dir", "--tmux", "--batch", "--signal", "--overlap"}  # of Ray and SLURM
    for command in COMMANDS_OF_MVAE.keys() - {"run"}:
        parser = importlib.import_module(f"sweeps.commands.{command}").parser()
        found |= {flag for action in parser._actions for flag in action.option_strings}
    return found | {option for option, _, _ in option_rows()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_options_and_commands_named_in_the_text_exist(page: Path) -> None:
    wrong = []
    for line, code in inline(split(page.read_text(encoding="utf-8"))[0]):
        unknown = set(re.findall(r"(?<!\S)--[a-z][\w-]*", code)) - _flags()
        words = code.split()
        if words[0] == "make" and len(words) > 1 and words[1] not in _targets():
            unknown.add(words[1])
        if words[0] == "ray" and len(words) > 1 and words[1] not in ray_cli.commands:
            unknown.add(words[1])
        wrong += [f"line {line}: {one} in `{code}`" for one in sorted(unknown)]
    assert wrong == []
