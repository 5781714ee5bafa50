"""Whose mistake an exception is: a Refusal is the user's, in one line; any other is a bug and keeps its traceback."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from pydantic import AfterValidator

from mvae.refusal import Refusal
from mvae.trial import Trial
from pipelines.weak_supervision import Options
from sweeps.main import BAD_INPUT, main
from sweeps.options import parse, read
from sweeps.tokens import Written

ROOT = Path(__file__).resolve().parents[1]


def mistaken(*_: object) -> Any:
    """A bug whose exception NumPy raises, in which no line of ours says what is wrong."""
    return np.zeros(3) + np.zeros(4)


def test_a_numpy_error_in_the_cells_of_a_table_keeps_its_traceback(storage: Path) -> None:
    options = read(Options, ("--storage", str(storage)))
    with pytest.raises(ValueError, match="operands could not be broadcast") as kept:
        main(mistaken, options)
    assert [frame.name for frame in kept.traceback][-1] == "mistaken"


def test_a_refusal_in_the_cells_of_a_table_is_one_line(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> Any:
        raise Refusal("arm 'x' has no seed: give --seeds 0")

    assert main(refused, read(Options, ("--storage", str(storage)))) == BAD_INPUT
    assert capsys.readouterr().err == "arm 'x' has no seed: give --seeds 0\n"


def test_an_error_of_numpy_in_the_check_of_an_option_keeps_its_traceback() -> None:
    class Broken(Options):
        """An option whose check has a bug"""

        wave: Annotated[str, AfterValidator(lambda _: mistaken()), Written("X")] = ""
        """Anything."""

    with pytest.raises(ValueError, match="operands could not be broadcast") as kept:
        parse(Broken, ("--wave", "1"))
    assert not isinstance(kept.value, Refusal)


def test_an_error_of_numpy_in_the_check_of_a_trial_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "_can_be_shared", mistaken)
    with pytest.raises(ValueError, match="operands could not be broadcast") as kept:
        Trial.create(dataset="digits", model="nn")
    assert not isinstance(kept.value, Refusal)


def test_a_field_of_a_trial_that_means_nothing_is_a_refusal() -> None:
    known: dict[str, Any] = {"dataset": "digits", "model": "nn"}
    for wrong in ({"epochs": 0}, {"model": "gan"}, {"image_network": "dcgan"}):
        with pytest.raises(Refusal):
            Trial.create(**{**known, **wrong})


@pytest.mark.parametrize("floor", ["sweeps", "pipelines", "benchmarks"])
def test_no_command_refuses_a_users_mistake_by_a_plain_value_error(floor: str) -> None:
    plain = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / floor).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id == "ValueError"
    ]
    assert plain == [], "main prints a traceback for these: raise Refusal for a user's mistake"
