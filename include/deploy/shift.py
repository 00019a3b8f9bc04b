"""How differently two versions predict: PSI over the first one's deciles or classes, beside what chance alone gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.scoring.metrics import Floats
from include.scoring.significance import homogeneity

_BINS = 10
_CLASSES = 50  # the most frequent ones; the others share a bin


@dataclass(frozen=True)
class Shift:
    """The difference of two sets of predictions.

    Attributes:
        psi: Population stability index; 0 is the same.
        expected: What PSI comes to on average where the two are samples of the same predictions.
        chance: p-value of that being so.
    """

    psi: float
    expected: float
    chance: float

    @property
    def beyond_chance(self) -> float:
        """PSI without what chance alone would give."""
        return self.psi - self.expected


def of_scores(first: Floats, second: Floats, units: tuple[int, int]) -> Shift:
    """Compare numbers by the first ones' deciles; a value as frequent as a decile has a bin of its own.

    Args:
        first: shape (n,), n >= 1; values that are not finite share a bin.
        second: shape (m,), m >= 1.
        units: How many independent observations stand behind each: rows of one key are none of their own.
    """
    edges = _edges(first[np.isfinite(first)])
    counts = [
        np.append(
            np.bincount(
                np.searchsorted(edges, side[np.isfinite(side)], side="left"),
                minlength=len(edges) + 1,
            ),
            (~np.isfinite(side)).sum(),
        )
        for side in (first, second)
    ]
    return _compare(np.array(counts), units)


def of_classes(
    first: Mapping[str, int], second: Mapping[str, int], units: tuple[int, int]
) -> Shift:
    """Compare answered classes by their counts; see `of_scores`."""
    whole = {name: first.get(name, 0) + second.get(name, 0) for name in {*first, *second}}
    ranked = sorted(whole, key=lambda name: (-whole[name], name))
    often, rare = ranked[:_CLASSES], ranked[_CLASSES:]
    counts = [
        [*(side.get(n, 0) for n in often), sum(side.get(n, 0) for n in rare)]
        for side in (first, second)
    ]
    return _compare(np.array(counts), units)


def _edges(values: Floats) -> Floats:
    """Return upper ends of bins; both sides of a frequent value are one."""
    if not len(values):
        return np.empty(0)
    deciles = np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1], method="lower")
    distinct, counts = np.unique(values, return_counts=True)
    heavy = distinct[counts >= len(values) / _BINS]
    return np.unique(np.concatenate([deciles, heavy, np.nextafter(heavy, -np.inf)]))


def _compare(counts: NDArray[Any], units: tuple[int, int]) -> Shift:
    """Return the shift of two rows of counts, each brought down to its number of independent observations.

    Source: Yurdakul (2018), https://scholarworks.wmich.edu/dissertations/3208 (PSI where nothing changed)
    """
    used = counts[:, counts.sum(axis=0) > 0].astype(float)
    rows = used.sum(axis=1)
    n, m = (max(1.0, min(float(u), r)) for u, r in zip(units, rows, strict=True))
    scaled = used * (np.array([n, m]) / rows)[:, None]
    shares = (scaled + 0.5) / (scaled + 0.5).sum(axis=1, keepdims=True)
    psi = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
    expected = (used.shape[1] - 1) * (1 / n + 1 / m)
    chance = homogeneity(*np.rint(scaled).astype(np.int64))
    return Shift(psi, expected, chance)
