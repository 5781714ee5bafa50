"""Refusals and bugs: a Refusal is a user's mistake and one line; any other exception is a bug with a traceback."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import pytest
from pydantic import AfterValidator, model_validator

from mvae.refusal import Refusal
from mvae.trial import Trial
from pipelines.weak_supervision import Options
from sweeps.cli.options import parse, read
from sweeps.cli.values import Written
from sweeps.main import BAD_INPUT, main

ROOT = Path(__file__).resolve().parents[1]

CALLERS_MISTAKES = {
    "product": "models call it with the prior, which is an expert of every product",
    "product_without_prior_expert": "check_source refuses a single modality, and elbo_terms makes no empty term",
    "elbo_terms": "Trial refuses k > 0 with fewer than 3 modalities",
    "VAE.infer_at": "our own measures choose the modalities to infer from, none is typed",
    "JMVAE.infer_at": "our own measures choose the modalities to infer from, none is typed",
    "CVAE.infer_at": "our own measures choose the modalities to infer from, none is typed",
    "by_position": "no option names the modalities of an inference",
    "Split.redrawn": "commands load grey values if Trial.needs_grey says so; Trial refuses a data set without any",
}
"""Functions of mvae that raise a plain ValueError, and why no user's option or file can cause it."""


def mistaken(*_: object) -> Any:
    """A bug whose exception comes from NumPy, with no message of ours."""
    return np.zeros(3) + np.zeros(4)


def test_a_numpy_error_while_making_cells_keeps_its_traceback(storage: Path) -> None:
    options = read(Options, ("--storage", str(storage)))
    with pytest.raises(ValueError, match="operands could not be broadcast") as kept:
        main(mistaken, options)
    assert [frame.name for frame in kept.traceback][-1] == "mistaken"


def test_a_refusal_while_making_cells_is_one_line(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> Any:
        raise Refusal("arm 'x' has no seed: give --seeds 0")

    assert main(refused, read(Options, ("--storage", str(storage)))) == BAD_INPUT
    assert capsys.readouterr().err == "arm 'x' has no seed: give --seeds 0\n"


def test_a_numpy_error_in_an_options_check_keeps_its_traceback() -> None:
    class Broken(Options):
        """An option whose check has a bug"""

        wave: Annotated[str, AfterValidator(lambda _: mistaken()), Written("X")] = ""
        """Anything."""

    with pytest.raises(ValueError, match="operands could not be broadcast") as kept:
        parse(Broken, ("--wave", "1"))
    assert not isinstance(kept.value, Refusal)


def test_a_numpy_error_in_a_trials_check_keeps_its_traceback() -> None:
    class Broken(Trial):
        @model_validator(mode="after")
        def check(self) -> Self:
            mistaken()
            return self

    with pytest.raises(ValueError, match="operands could not be broadcast") as kept:
        Broken.create(dataset="digits", model="nn")
    assert not isinstance(kept.value, Refusal)


def test_an_invalid_field_of_a_trial_is_a_refusal() -> None:
    known: dict[str, Any] = {"dataset": "digits", "model": "nn"}
    for wrong in ({"epochs": 0}, {"model": "gan"}, {"image_network": "dcgan"}):
        with pytest.raises(Refusal):
            Trial.create(**{**known, **wrong})


def plain_value_errors(floor: str) -> dict[str, str]:
    """Functions of a package that raise a plain ValueError, as Class.method, by path:line."""

    def raised(node: ast.AST, function: str) -> Iterator[tuple[int, str]]:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            function = f"{function}.{node.name}".lstrip(".")
        if isinstance(node, ast.Raise) and node.exc is not None:
            error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(error, ast.Name) and error.id == "ValueError":
                yield node.lineno, function
        for child in ast.iter_child_nodes(node):
            yield from raised(child, function)

    return {
        f"{path.relative_to(ROOT)}:{line}": function
        for path in sorted((ROOT / floor).rglob("*.py"))
        for line, function in raised(ast.parse(path.read_text(encoding="utf-8")), "")
    }


@pytest.mark.parametrize("floor", ["sweeps", "pipelines", "benchmarks"])
def test_no_command_raises_a_plain_value_error_for_a_users_mistake(floor: str) -> None:
    assert plain_value_errors(floor) == {}, "main prints a traceback for these: raise Refusal for a user's mistake"


def test_mvae_raises_a_plain_value_error_only_for_a_callers_mistake() -> None:
    found = plain_value_errors("mvae")
    unknown = {place: function for place, function in found.items() if function not in CALLERS_MISTAKES}
    assert unknown == {}, (
        "raise Refusal for a user's mistake; for a caller's, say in CALLERS_MISTAKES why no user can cause it"
    )
    assert CALLERS_MISTAKES.keys() - found.values() == set(), "these no longer raise a plain ValueError: remove them"


@pytest.mark.parametrize("floor", ["mvae", "sweeps", "pipelines", "benchmarks"])
def test_a_docstring_mentions_a_plain_value_error_only_if_one_is_raised(floor: str) -> None:
    raising = {function.rpartition(".")[2] for function in plain_value_errors(floor).values()}
    promising = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / floor).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name not in raising
        if re.search(r"^\s*ValueError:", ast.get_docstring(node) or "", re.MULTILINE)
    ]
    assert promising == [], "a user's mistake is a Refusal: document that under Raises"
