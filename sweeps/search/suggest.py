"""Settings as Optuna suggests them: its sampler, its distributions, its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mvae.streams import numpy_generator
from sweeps.search.space import Span

if TYPE_CHECKING:
    import optuna


AT_RANDOM = 8
"""Trials whose settings are drawn at random, before the sampler has something to go by."""


def _sampler(seed: int, number: int) -> optuna.samplers.BaseSampler:
    import optuna

    own = int(numpy_generator(seed, "search", number).integers(2**31))
    return optuna.samplers.TPESampler(seed=own, n_startup_trials=AT_RANDOM, constant_liar=True)


def _distribution(span: Span | tuple[Any, ...]) -> optuna.distributions.BaseDistribution:
    from optuna import distributions

    if not isinstance(span, Span):
        return distributions.CategoricalDistribution(span)
    if span.whole:
        return distributions.IntDistribution(int(span.low), int(span.high), log=span.log)
    return distributions.FloatDistribution(span.low, span.high, log=span.log)


def _suggested(asked: optuna.Trial, name: str, span: Span | tuple[Any, ...]) -> Any:
    if not isinstance(span, Span):
        return asked.suggest_categorical(name, span)
    if span.whole:
        return asked.suggest_int(name, int(span.low), int(span.high), log=span.log)
    return asked.suggest_float(name, span.low, span.high, log=span.log)
