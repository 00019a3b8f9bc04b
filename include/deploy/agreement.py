"""How far two versions agree about the very same rows, beyond what chance gives: 1 always, 0 no more than by chance.

PSI tells whether answers are as frequent as before, not whether the same rows get them: `1 - score` may have the same
distribution. For numbers it is the rank correlation, which neither another calibration nor a few extreme values move;
for classes Cohen's kappa.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from include.scoring.metrics import Floats


@dataclass(frozen=True)
class Agreement:
    """Of two versions.

    Attributes:
        value: From -1 (opposites) over 0 (nothing to do with each other) to 1; nan where it cannot be told.
        error: Its standard error, for so many independent rows.
    """

    value: float
    error: float


def of_scores(theirs: Floats, ours: Floats, units: int) -> Agreement:
    """Compare numbers by their order.

    Args:
        theirs: The champion's, shape (n,).
        ours: The challenger's of the same rows, shape (n,).
        units: How many independent observations stand behind them.
    """
    known = np.isfinite(theirs) & np.isfinite(ours)
    theirs, ours = theirs[known], ours[known]
    if len(theirs) < 2:
        return Agreement(math.nan, math.nan)
    if np.ptp(theirs) == 0:  # it tells no row from another, so no order can contradict it
        return Agreement(1.0, 0.0)
    if np.ptp(ours) == 0:
        return Agreement(0.0, _error(0.0, units))
    value = float(stats.spearmanr(theirs, ours).statistic)
    return Agreement(value, _error(value, units))


def _error(value: float, units: int) -> float:
    """Source: Bonett & Wright (2000), https://doi.org/10.1007/BF02294183 (Fisher's z of a rank correlation)."""
    if units <= 3:
        return math.inf
    return (1 - value**2) * math.sqrt((1 + value**2 / 2) / (units - 3))


def of_classes(pairs: Mapping[tuple[str, str], int], units: int) -> Agreement:
    """Compare classes by how often (champion's, challenger's) were answered; see `of_scores`.

    Source: Cohen (1960), https://doi.org/10.1177/001316446002000104
    """
    total = sum(pairs.values())
    if not total:
        return Agreement(math.nan, math.nan)
    first, second = Counter[str](), Counter[str]()
    for (theirs, ours), count in pairs.items():
        first[theirs] += count
        second[ours] += count
    if len(first) == 1:
        return Agreement(1.0, 0.0)
    same = sum(count for (theirs, ours), count in pairs.items() if theirs == ours) / total
    chance = sum(first[name] * second[name] for name in first) / total**2
    number = max(1, min(units, total))
    # Nobody differs (or everybody) on a few rows: one more row of the other kind is always possible.
    spread = (same * number + 0.5) / (number + 1)
    error = math.sqrt(spread * (1 - spread) / number) / (1 - chance)
    return Agreement((same - chance) / (1 - chance), error)
