"""The search space and the order in which it is searched.

Owns reproducibility: what a trial tries depends on the seed, its position and the history only, so a search that was
killed and resumed tries what it would have tried anyway.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial

from include.spec.schema import Candidate, Search
from include.train.study import valid_trials

Space = dict[str, BaseDistribution]


def make_space(candidate: Candidate) -> Space:
    """Return Optuna's distributions for a candidate's search, sorted by name."""
    return {name: _distribution(s) for name, s in sorted(candidate.search.items())}


def _distribution(search: Search) -> BaseDistribution:
    if search.choices is not None:
        return CategoricalDistribution(search.choices)
    if isinstance(search.low, int) and isinstance(search.high, int):
        return IntDistribution(search.low, search.high, log=search.log)
    return FloatDistribution(float(search.low or 0), float(search.high or 0), log=search.log)


def combinations(space: Space, limit: int, seed: int) -> list[dict[str, Any]] | None:
    """List every combination of a small space, in seeded random order.

    Args:
        space: The distributions; an empty space has one combination.
        limit: Most combinations worth listing.
        seed: Of the order.

    Returns:
        The combinations, or None when there are more than `limit` (or infinitely many).
    """
    sizes = [_size(d) for d in space.values()]
    if math.prod(sizes) > limit:
        return None
    values = [_values(d) for d in space.values()]
    found = [dict(zip(space, combo, strict=True)) for combo in itertools.product(*values)]
    random.Random(seed).shuffle(found)  # noqa: S311 - an order, not a secret
    return found


def _size(distribution: BaseDistribution) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return int(distribution.high - distribution.low + 1)
    return math.inf


def _values(distribution: BaseDistribution) -> Sequence[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    return range(distribution.low, distribution.high + 1)


class SeededSampler(BaseSampler):  # type: ignore[misc]  # optuna is not followed by mypy
    """TPE that starts anew for every trial, seeded by the trial's position.

    The first trial takes the estimator's own defaults where they lie in the space: a search that does not at least
    look at them can end below them. A space with no more combinations than trials is listed instead of sampled.

    Args:
        seed: The spec's seed.
        trials: Trials planned.
        space: The distributions.
        defaults: The estimator's arguments before the search.
    """

    def __init__(self, seed: int, trials: int, space: Space, defaults: Mapping[str, Any]) -> None:
        self._seed, self._space = seed, space
        # With TPE's own 10 random trials first, a search of 10 trials would be a random one.
        self._startup = min(10, max(3, trials // 3))
        self.listed = combinations(space, trials, seed)
        self._first = {
            n: defaults[n] for n, d in space.items() if n in defaults and _holds(d, defaults[n])
        }
        self._current: tuple[int, TPESampler] | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Space:
        """Return what `sample_relative` decides jointly."""
        position = self._position(study, trial)
        if self.listed is not None:
            return self._space
        if position == 0:
            return {n: self._space[n] for n in self._first}
        space: Space = self._tpe(study, trial).infer_relative_search_space(study, trial)
        return space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: Space
    ) -> dict[str, Any]:
        """Return the values decided jointly."""
        position = self._position(study, trial)
        if self.listed is not None:
            return self.listed[position % len(self.listed)]
        if position == 0:
            return self._first
        values: dict[str, Any] = self._tpe(study, trial).sample_relative(study, trial, search_space)
        return values

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a value for an argument that was not decided jointly."""
        return self._tpe(study, trial).sample_independent(
            study, trial, param_name, param_distribution
        )

    def _tpe(self, study: optuna.Study, trial: FrozenTrial) -> TPESampler:
        if self._current is None or self._current[0] != trial.number:
            position = self._position(study, trial)
            seed = (self._seed + position) % 2**32
            self._current = (
                trial.number,
                TPESampler(seed=seed, n_startup_trials=self._startup),
            )
        return self._current[1]

    @staticmethod
    def _position(study: optuna.Study, trial: FrozenTrial) -> int:
        return sum(t.number < trial.number for t in valid_trials(study))


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if isinstance(distribution, IntDistribution) and not float(value).is_integer():
        return False
    return bool(distribution.low <= value <= distribution.high)
