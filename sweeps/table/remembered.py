"""Caches statistics, so that an unchanged report does not import scipy, which takes a second.

A report's record (sweeps/table/files.py) stores the statistics. The next command on the same report loads them.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")

KNOWN: dict[str, Any] = {}
"""Cached results by function and arguments, in a form that JSON can store."""


def remembered(function: Callable[Arguments, Answer]) -> Callable[Arguments, Answer]:
    """Caches the results of a pure function. The results must be values that JSON can store."""

    @wraps(function)
    def call(*arguments: Arguments.args, **named: Arguments.kwargs) -> Answer:
        question = f"{function.__name__}{arguments!r}{named or ''}"
        if question not in KNOWN:
            KNOWN[question] = function(*arguments, **named)
        return cast(Answer, KNOWN[question])

    return call
