"""Exact linear combinations: numeric features that add up to the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]

_EXACT = 1e-6  # share of the target's variance that may stay unexplained: rounding, not noise
_STEPS = 16
_HUGE = 1e100  # squares of such numbers overflow
_LEAST_ROWS = 100
_ROWS_PER_FEATURE = 3


@dataclass(frozen=True)
class Combination:
    """`constant` + sum of coefficient x feature equals the target.

    Args:
        terms: Coefficient by feature, the largest contribution first.
        constant: What is added; 0 when it does not matter.
    """

    terms: dict[str, float]
    constant: float

    @property
    def text(self) -> str:
        """The sum as people write it, such as `casual + 2 × registered - 3`."""
        parts = []
        for name, weight in self.terms.items():
            size = "" if abs(weight) == 1 else f"{abs(weight):.6g} × "
            parts.append(("- " if weight < 0 else "+ ") + size + name)
        if self.constant:
            parts.append(f"{'-' if self.constant < 0 else '+'} {abs(self.constant):.6g}")
        return " ".join(parts).removeprefix("+ ")


def find_combination(features: Mapping[str, Floats], target: Floats) -> Combination | None:
    """Look for features that add up to the target exactly.

    Least squares over all of them says whether there is one; orthogonal matching pursuit (Pati et al. 1993,
    doi:10.1109/ACSSC.1993.342465), pruned backwards, says which few.

    Args:
        features: Values by name, shape (rows,), NaN where missing.
        target: Shape (rows,), finite.

    Returns:
        The combination, of at least two features; None when there is none or too few complete rows to tell.
    """
    names, x, y = _complete(features, target)
    if len(names) < 2 or np.ptp(y) == 0 or np.abs(y).max() > _HUGE:
        return None
    usable = np.abs(x).max(axis=0) < _HUGE
    names, x = [n for n, u in zip(names, usable, strict=True) if u], x[:, usable]
    centre: Floats = x.mean(axis=0)
    scale: Floats = x.std(axis=0)
    varies = scale > 1e-12 * np.maximum(np.abs(centre), 1e-300)
    names = [n for n, v in zip(names, varies, strict=True) if v]
    if len(names) < 2:
        return None
    z = (x[:, varies] - centre[varies]) / scale[varies]
    t: Floats = np.asarray((y - y.mean()) / y.std())
    if _unexplained(z, t, list(range(len(names)))) > _EXACT:
        return None
    chosen = _prune(z, t, _pursue(z, t))
    if len(chosen) < 2:
        return None
    return _in_units(x[:, varies][:, chosen], y, [names[i] for i in chosen])


def _complete(features: Mapping[str, Floats], target: Floats) -> tuple[list[str], Floats, Floats]:
    """Return the features with few missing values, on the rows where all of them are known."""
    share = {n: float(np.mean(~np.isfinite(v))) for n, v in features.items()}
    for most in (0.5, 0.1, 0.0):
        names = [n for n, missing in share.items() if missing <= most]
        if not names:
            break
        x = np.column_stack([features[n] for n in names])
        rows = np.isfinite(x).all(axis=1)
        if rows.sum() >= max(_LEAST_ROWS, _ROWS_PER_FEATURE * len(names)):
            return names, x[rows], target[rows]
    return [], np.empty((0, 0)), np.empty(0)


def _solve(z: Floats, t: Floats, chosen: list[int]) -> Floats:
    part = z[:, chosen]
    weights: Floats = np.asarray(np.linalg.lstsq(part.T @ part, part.T @ t, rcond=1e-12)[0])
    return weights


def _unexplained(z: Floats, t: Floats, chosen: list[int]) -> float:
    return float(np.mean((t - z[:, chosen] @ _solve(z, t, chosen)) ** 2))


def _pursue(z: Floats, t: Floats) -> list[int]:
    """Choose features one by one, each time the one closest to what is still unexplained."""
    chosen: list[int] = []
    rest = t
    while len(chosen) < min(_STEPS, z.shape[1]):
        closeness = np.abs(z.T @ rest)
        closeness[chosen] = -1
        chosen.append(int(closeness.argmax()))
        rest = t - z[:, chosen] @ _solve(z, t, chosen)
        if float(np.mean(rest**2)) <= _EXACT:
            return chosen
    return list(range(z.shape[1]))


def _prune(z: Floats, t: Floats, chosen: list[int]) -> list[int]:
    """Leave out what the sum does not need, smallest contribution first."""
    if len(chosen) > _STEPS:
        return chosen
    weights = dict(zip(chosen, np.abs(_solve(z, t, chosen)), strict=True))
    kept = sorted(chosen, key=lambda i: weights[i], reverse=True)
    for index in reversed(list(kept)):
        without = [i for i in kept if i != index]
        if without and _unexplained(z, t, without) <= _EXACT:
            kept = without
    return kept


def _in_units(x: Floats, y: Floats, names: list[str]) -> Combination:
    design = np.column_stack([x, np.ones(len(x))])
    weights = np.linalg.lstsq(design, y, rcond=None)[0]
    terms = {n: _tidy(float(w)) for n, w in zip(names, weights[:-1], strict=True)}
    constant = float(weights[-1])
    return Combination(terms, 0.0 if abs(constant) < 1e-3 * float(y.std()) else _tidy(constant))


def _tidy(weight: float) -> float:
    nearest = round(weight)
    return float(nearest) if nearest and abs(weight - nearest) < 1e-3 * abs(nearest) else weight
