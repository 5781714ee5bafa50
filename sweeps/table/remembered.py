"""Remembers statistics that need scipy, whose import takes a second: an unchanged report then needs no scipy.

A report's record (sweeps/table/files.py) keeps the statistics. The next command on the same report recalls them.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")

KNOWN: dict[str, Any] = {}
"""Answers by function and arguments, as JSON can store them."""


def remembered(function: Callable[Arguments, Answer]) -> Callable[Arguments, Answer]:
    """Returns a pure function that computes each answer once. Arguments and answers must survive JSON."""

    @wraps(function)
    def call(*arguments: Arguments.args, **named: Arguments.kwargs) -> Answer:
        question = f"{function.__name__}{arguments!r}"
        if question not in KNOWN:
            KNOWN[question] = function(*arguments, **named)
        return cast(Answer, KNOWN[question])

    return call
