"""Could a difference be chance? Tests of two samples, and the correction for making many of them at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from include.scoring.metrics import Floats

_LEAST_EXPECTED = 5.0  # rows a cell should expect for the chi-square distribution to hold


def adjusted(chances: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number: rejecting those below q keeps false discoveries below q.

    Args:
        chances: p-values, in any order; NaN counts as 1.

    Returns:
        Corrected p-values in the same order.

    Source: Benjamini and Hochberg (1995), https://doi.org/10.1111/j.2517-6161.1995.tb02031.x
    """
    if not chances:
        return []
    values = np.nan_to_num(np.asarray(chances, dtype=float), nan=1.0)
    return [float(p) for p in stats.false_discovery_control(values, method="bh")]


def homogeneity(reference: NDArray[np.int64], current: NDArray[np.int64]) -> float:
    """Return the p-value of both counts coming from the same distribution, by Pearson's chi-square test.

    This is PSI's own test: where nothing changed, PSI / (1/n + 1/m) follows the same chi-square
    distribution, but less well where bins are thin. Thin bins are put together here; where they are thin
    even so, they are tested against all others by Fisher's exact test.

    Args:
        reference: Rows by bin, shape (b,), n in all.
        current: Rows by bin, shape (b,), m in all.

    Source: Yurdakul (2018), https://scholarworks.wmich.edu/dissertations/3208
    """
    table = np.array([reference, current])
    share = table.sum(axis=1).min() / max(table.sum(), 1)
    thin = table.sum(axis=0) * share < _LEAST_EXPECTED
    rest = table[:, thin].sum(axis=1, keepdims=True)
    if not rest.sum() or rest.sum() * share >= _LEAST_EXPECTED:
        return _chi_square(np.hstack([table[:, ~thin], rest]))
    exact = stats.fisher_exact(np.hstack([rest, table.sum(axis=1, keepdims=True) - rest])).pvalue
    return min(1.0, 2 * min(float(exact), _chi_square(table[:, ~thin])))


def _chi_square(table: NDArray[np.int64]) -> float:
    there = table[:, table.sum(axis=0) > 0]
    if there.shape[1] < 2 or not there.sum(axis=1).all():
        return 1.0  # one bin, or one side with no rows: nothing to compare
    return float(stats.chi2_contingency(there, correction=False).pvalue)


def same_distribution(reference: Floats, current: Floats) -> tuple[float, float]:
    """Return the Kolmogorov-Smirnov statistic D (0..1) of two samples and its p-value.

    D is the largest gap between the two distribution functions. With ties the p-value is too large, never
    too small.

    Source: https://docs.scipy.org/doc/scipy/reference/generated/scipy.stats.ks_2samp.html
    """
    result = stats.ks_2samp(reference, current, method="asymp")
    return float(result.statistic), float(result.pvalue)


def proportions(hits: int, rows: int, reference_hits: int, reference_rows: int) -> float:
    """Return the two-sided p-value of two shares being the same, by the pooled z test.

    Source: https://www.itl.nist.gov/div898/handbook/prc/section3/prc33.htm
    """
    if not rows or not reference_rows:
        return 1.0
    pooled = (hits + reference_hits) / (rows + reference_rows)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / rows + 1 / reference_rows))
    if not spread:
        return 1.0
    z = (hits / rows - reference_hits / reference_rows) / spread
    return float(2 * stats.norm.sf(abs(z)))
