"""Refusal: the only exception that reports a user's mistake. Any other exception is a bug and keeps its traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


class Refusal(ValueError):
    """A user's mistake. The message is one line: what is wrong with which value, then what to do.

    `sweeps.main.main` prints the message and returns exit code 2.
    """


def first_mistake(error: ValidationError) -> ErrorDetails:
    """Returns the first error that pydantic found in a value.

    Raises:
        Exception: a validator raised an exception other than Refusal. This exception is a bug in the validator, but
            pydantic reports it as an invalid value.
    """
    first = error.errors()[0]
    raised = first.get("ctx", {}).get("error")
    if isinstance(raised, Exception) and not isinstance(raised, Refusal):
        raise raised
    return first
