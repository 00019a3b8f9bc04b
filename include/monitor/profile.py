"""What a champion's training data looked like, column by column, over all of its rows.

Small and plain: it is stored with the version as JSON and is all that checks of quality need.
"""

# ruff: noqa: S608  queries are put together from positions and numbers, never from names or values of the data

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from include.scoring.rows import Rows
from include.store.features import Features, category_text
from include.store.snapshots import Manifest

Kind = Literal["numeric", "categorical"]
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
MOST_CATEGORIES = 10_000  # with more, a value never seen before says nothing


@dataclass(frozen=True)
class ColumnProfile:
    """One feature as the champion's training data had it.

    Attributes:
        name: As in the data.
        kind: How the model uses it.
        null_share: Share of rows without a value.
        infinite_share: Share of rows with an infinity.
        low: Smallest finite value; None for categories and where there is none.
        high: Largest, likewise.
        quantiles: Approximate values at `QUANTILES`; empty for categories and where there are none.
        categories: Rows by category, most frequent first; None for numbers, and where there are more
            than `MOST_CATEGORIES`.
    """

    name: str
    kind: Kind
    null_share: float
    infinite_share: float = 0.0
    low: float | None = None
    high: float | None = None
    quantiles: tuple[float, ...] = ()
    categories: Mapping[str, int] | None = None

    @property
    def unseen_share(self) -> float:
        """Share of rows to expect with a category never seen before, in data of the same kind.

        Source: Good (1953), https://doi.org/10.1093/biomet/40.3-4.237 (share of the values seen once)
        """
        if not self.categories:
            return 0.0
        return sum(n == 1 for n in self.categories.values()) / sum(self.categories.values())

    def bounds(self) -> tuple[float, float] | None:
        """Return how far numbers may range: the training data's range, widened by itself on both sides.

        A column that held one value may move by as much as that value (at least 1). None where there is
        no range, or where its ends are too far apart to be widened.
        """
        if self.low is None or self.high is None:
            return None
        width = (self.high - self.low) or max(abs(self.high), 1.0)
        ends = self.low - width, self.high + width
        return ends if all(map(math.isfinite, ends)) else None


@dataclass(frozen=True)
class Profile:
    """The champion's training data.

    Attributes:
        rows: Number of rows.
        rows_per_day: Mean over the time the data spans; None without a time column.
        columns: The features, in the order of the model's input.
    """

    rows: int
    rows_per_day: float | None
    columns: tuple[ColumnProfile, ...]

    def column(self, name: str) -> ColumnProfile | None:
        """Return the feature of that name, or None."""
        return next((c for c in self.columns if c.name == name), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Profile:
        """Read what `to_dict` returned."""
        columns = tuple(
            ColumnProfile(**{**column, "quantiles": tuple(column["quantiles"])})
            for column in data["columns"]
        )
        return cls(data["rows"], data["rows_per_day"], columns)


def build_profile(paths: Sequence[Path], manifest: Manifest, features: Features) -> Profile:
    """Describe the features of a snapshot over all of its rows.

    Args:
        paths: The snapshot's files.
        manifest: Its manifest.
        features: The model's input.

    Raises:
        DataError: A file cannot be read.
    """
    with Rows(paths) as rows:
        total = rows.count()
        numbers = _numbers(rows, features.numeric, total)
        texts = [_texts(rows, name, total) for name in features.categorical]
    return Profile(total, _rows_per_day(manifest), (*numbers, *texts))


def _numbers(rows: Rows, names: Sequence[str], total: int) -> list[ColumnProfile]:
    parts = {}
    for name in names:
        finite = rows.finite(name)
        parts[name] = [
            f"count(*) FILTER ({rows.missing(name)})",
            f"count({rows.at[name]}) FILTER (isinf({rows.at[name]}::DOUBLE))",
            f"min({finite})",
            f"max({finite})",
            f"approx_quantile({finite}, {list(QUANTILES)})",
        ]
    found = rows.per_column(names, parts)
    return [
        ColumnProfile(
            name,
            "numeric",
            nulls / max(total, 1),
            infinite / max(total, 1),
            low,
            high,
            tuple(quantiles) if low is not None else (),
        )
        for name, (nulls, infinite, low, high, quantiles) in found.items()
    ]


def _texts(rows: Rows, name: str, total: int) -> ColumnProfile:
    there = f"SELECT {rows.at[name]} AS v FROM {rows.source} WHERE NOT {rows.missing(name)}"
    groups = rows.all(
        f"SELECT v, count(*) AS n FROM ({there}) GROUP BY v ORDER BY n DESC, v LIMIT {MOST_CATEGORIES + 1}"
    )
    nulls = total - int(rows.one(f"SELECT count(*) FROM ({there})")[0])
    categories = {str(category_text(value)): int(number) for value, number in groups}
    return ColumnProfile(
        name,
        "categorical",
        nulls / max(total, 1),
        categories=categories if len(groups) <= MOST_CATEGORIES else None,
    )


def _rows_per_day(manifest: Manifest) -> float | None:
    if manifest.time_start is None or manifest.time_end is None:
        return None
    start, end = map(datetime.fromisoformat, (manifest.time_start, manifest.time_end))
    days = (end - start).total_seconds() / 86_400
    return manifest.rows / days if days > 0 else None


def dump(value: Mapping[str, Any]) -> str:
    """Write a mapping as JSON without NaN."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1)
