"""The one exception that means a user's mistake. Every other exception is a bug and keeps its traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


class Refusal(ValueError):
    """A user's mistake, in one line: what is wrong with which value, then what to do.

    `sweeps.main.main` prints the line and returns exit code 2.
    """


def first_mistake(error: ValidationError) -> ErrorDetails:
    """The first thing that pydantic finds wrong with a value.

    Raises:
        Exception: a validator raised it, and it is no Refusal: a bug, which pydantic takes for a user's mistake.
    """
    first = error.errors()[0]
    raised = first.get("ctx", {}).get("error")
    if isinstance(raised, Exception) and not isinstance(raised, Refusal):
        raise raised
    return first
