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

    The two-sample form of scaling PSI by the sample sizes: under equal distributions
    PSI / (1/n + 1/m) follows the same chi-square distribution, but less well where bins are thin. Bins too
    thin for either are put together.

    Args:
        reference: Rows by bin, shape (b,).
        current: Rows by bin, shape (b,).

    Source: Yurdakul (2018), https://scholarworks.wmich.edu/dissertations/3208
    """
    both = reference + current
    share = min(reference.sum(), current.sum()) / max(both.sum(), 1)
    thin = both * share < _LEAST_EXPECTED
    table = np.array([reference[~thin], current[~thin]])
    rest = np.array([[reference[thin].sum()], [current[thin].sum()]])
    if rest.sum():
        table = np.hstack([table, rest])
    if table.shape[1] < 2:
        return 1.0
    return float(stats.chi2_contingency(table, correction=False).pvalue)


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
