"""How far apart two samples of one column are: Evidently's statistics, on samples made fit for them.

Evidently's own handling of raw columns goes wrong where live data is not well behaved, so it is prepared first:

* PSI and Jensen-Shannon put numbers into bins of equal width; one outlier or a long tail then puts nearly all rows
  into one bin and hides any drift. Here the bins are the reference's deciles, and a value that makes up a tenth of
  the reference has a bin of its own.
* A bin that is empty on one side is filled with 0.0001, or with a millionth of the smallest share when that is
  below 0.0001, so that PSI jumps with the sample's size. Here it counts as one row of the smaller sample, and as
  0.0001 in samples so large that this is more.
* The Wasserstein distance is divided by the standard deviation, but by at least 0.001, which hides any drift of a
  feature on a small scale. Here the sample is brought to the reference's scale first.
* Its Kolmogorov-Smirnov value is a p-value, which falls with drift and with the sample's size. Here it is the
  statistic D.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from include.scoring.metrics import Floats
from include.scoring.significance import homogeneity, same_distribution

if TYPE_CHECKING:
    from evidently.legacy.calculations.stattests import StatTest

Method = Literal["psi", "jensenshannon", "ks", "wasserstein"]
METHOD_NAMES: Mapping[Method, str] = {
    "psi": "PSI",
    "jensenshannon": "Jensen-Shannon distance",
    "ks": "Kolmogorov-Smirnov D",
    "wasserstein": "Wasserstein distance in standard deviations",
}
_BINS = 10
_LEAST_SHARE = 1e-4
_MOST_CATEGORIES = 30
_RARE = 0.01  # share of the reference below which a category shares a bin with others


@dataclass(frozen=True)
class Distance:
    """How far apart two samples are.

    Attributes:
        value: In the method's unit; 0 is the same.
        chance: p-value of the two samples coming from the same distribution.
    """

    value: float
    chance: float


@dataclass(frozen=True)
class Pair:
    """One column of reference and window, both with at least one value and none missing or infinite.

    Attributes:
        kind: Numbers (float64), or texts (object) as `pooled` returns them.
        reference: shape (n,).
        current: shape (m,).
    """

    kind: Literal["numeric", "categorical"]
    reference: NDArray[Any] = field(repr=False)
    current: NDArray[Any] = field(repr=False)

    @property
    def constant(self) -> bool:
        """True where every row of both has the same value."""
        first = self.reference[0]
        return bool((self.reference == first).all() and (self.current == first).all())


def pinned(method: Method, kind: Literal["numeric", "categorical"]) -> Method:
    """Return the method of a column: numbers take the spec's, categories PSI or Jensen-Shannon."""
    if kind == "categorical" and method != "psi":
        return "jensenshannon"
    return method


def distance(pair: Pair, method: Method) -> Distance:
    """Measure how far apart two samples are.

    Args:
        pair: The samples.
        method: As `pinned` returns it.
    """
    if method in ("psi", "jensenshannon"):
        codes = bins(pair)
        counts = np.array([np.bincount(side, minlength=max(map(max, codes)) + 1) for side in codes])
        return Distance(_measure(method, *map(_series, _filled(*codes))), homogeneity(*counts))
    statistic, chance = same_distribution(pair.reference, pair.current)
    if method == "ks":
        return Distance(statistic, chance)
    scaled = map(_series, _scaled(pair.reference, pair.current))
    return Distance(_measure(method, *scaled), chance)


def bins(pair: Pair) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of each row's bin, by the reference's deciles or categories."""
    both = np.concatenate([pair.reference, pair.current])
    if pair.kind == "categorical":
        codes = pd.factorize(both, sort=True)[0].astype(np.int64)
    else:
        codes = np.searchsorted(_edges(pair.reference), both, side="left").astype(np.int64)
    return codes[: len(pair.reference)], codes[len(pair.reference) :]


def pooled(
    reference: NDArray[Any], current: NDArray[Any]
) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Return categories with the reference's rare ones, and those it never had, put together.

    They are spread over a group per tenth of the reference's rows that they make up (at least one), by a
    fixed hash: a column of very many categories still shows when some of them become frequent, and the
    values that any new sample of it brings are not taken for drift.

    Args:
        reference: Texts, shape (n,), n >= 1.
        current: Texts, shape (m,).
    """
    counts = pd.Series(reference).value_counts()
    often = {
        str(c) for c, n in counts.iloc[:_MOST_CATEGORIES].items() if n >= _RARE * len(reference)
    }
    share = 1 - sum(counts[c] for c in often) / len(reference)
    groups = max(1, round(_BINS * share))

    def name(text: str) -> str:
        return text if text in often else f"(others {zlib.crc32(text.encode()) % groups + 1})"

    before, now = (pd.Series(side).map(name).to_numpy(object) for side in (reference, current))
    return before, now


def register() -> dict[Method, str]:
    """Make the methods known to Evidently's reports; returns the name it knows each by."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    known: dict[Method, str] = {}
    kinds = {ColumnType.Numerical: "numeric", ColumnType.Categorical: "categorical"}
    for method, name in METHOD_NAMES.items():
        test = StatTest(f"evergreen_{method}", name, list(kinds))
        register_stattest(test, _for_reports(method, kinds))
        known[method] = test.name
    return known


def _for_reports(
    method: Method, kinds: Mapping[Any, Any]
) -> Callable[[Any, Any, Any, float], tuple[float, bool]]:
    def compute(
        reference: Any, current: Any, feature_type: Any, threshold: float
    ) -> tuple[float, bool]:
        pair = Pair(kinds[feature_type], reference.to_numpy(), current.to_numpy())
        value = distance(pair, method).value
        return value, value >= threshold

    return compute


def _measure(method: Method, reference: pd.Series[Any], current: pd.Series[Any]) -> float:
    from evidently.legacy.calculations import stattests
    from evidently.legacy.core import ColumnType

    tests: dict[Method, StatTest] = {
        "psi": stattests.psi_stat_test,
        "jensenshannon": stattests.jensenshannon_stat_test,
        "wasserstein": stattests.wasserstein_stat_test,
    }
    kind = ColumnType.Numerical if method == "wasserstein" else ColumnType.Categorical
    return float(tests[method](reference, current, kind, 0.0).drift_score)


def _series(values: NDArray[Any]) -> pd.Series[Any]:
    return pd.Series(values)


def _edges(reference: Floats) -> Floats:
    """Return upper ends of bins: the deciles, and both sides of each value as frequent as a whole bin."""
    deciles = np.quantile(reference, np.linspace(0, 1, _BINS + 1)[1:-1])
    values, counts = np.unique(reference, return_counts=True)
    heavy = values[counts >= len(reference) / _BINS]
    return np.unique(np.concatenate([deciles, heavy, np.nextafter(heavy, -np.inf)]))


def _filled(
    reference: NDArray[np.int64], current: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Add rows to each bin that is empty on one side only: as small a share as the smaller side can show."""
    share = max(_LEAST_SHARE, 1 / min(len(reference), len(current)))

    def filled(side: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.append(side, np.repeat(np.setdiff1d(other, side), round(share * len(side))))

    return filled(reference, current), filled(current, reference)


def _scaled(reference: Floats, current: Floats) -> tuple[Floats, Floats]:
    """Bring both to a reference of standard deviation 1 around its median."""
    largest = max(np.abs(reference).max(), np.abs(current).max()) or 1.0
    reference, current = reference / largest, current / largest  # so that nothing overflows
    centre, spread = np.median(reference), np.std(reference) or 1.0
    return (reference - centre) / spread, (current - centre) / spread
