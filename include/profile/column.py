"""What is known of one column; `columns` finds it out, the rest of the room decides by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from include.profile.dates import DateFormat

Type = Literal["int", "float", "bool", "string", "timestamp", "other"]


@dataclass(frozen=True)
class Column:
    """What is known of one column after every value was looked at.

    Args:
        ref: Name in the DuckDB table, safe to use in SQL.
        name: Name in the file.
        type: What its values are once missing markers are gone.
        rows: Rows of the table.
        nulls: Rows without a value, markers included.
        distinct: Distinct values; exact below 10,000 and where it equals the rows, else within a few percent.
        low: Smallest number or earliest time (ISO); None for other types.
        high: Largest number or latest time (ISO); None for other types.
        infinite: Rows that hold an infinity; it is neither low nor high.
        values: The most frequent values with their counts, at most 40, missing left out; of more than
            10,000 distinct ones the first 40, uncounted.
        markers: Missing markers found with their counts, blanks (`""`) and sentinels included.
        doubtful: Texts among words that may mean missing and may be values, with their counts.
        date: How a text column writes its dates; None where it holds none.
        length: Mean length of the texts; None for other types.
        leading_zeros: Some whole numbers start with a zero: they are codes.
        counts_rows: The values count the rows: 1, 2, 3, ...
    """

    ref: str
    name: str
    type: Type
    rows: int
    nulls: int = 0
    distinct: int = 0
    low: float | str | None = None
    high: float | str | None = None
    infinite: int = 0
    values: tuple[tuple[Any, int], ...] = ()
    markers: tuple[tuple[str, int], ...] = ()
    doubtful: tuple[tuple[str, int], ...] = ()
    date: DateFormat | None = None
    length: float | None = None
    leading_zeros: bool = False
    counts_rows: bool = False

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers."""
        return self.type in ("int", "float")

    @property
    def unique(self) -> bool:
        """Whether every row has a value of its own."""
        return self.nulls == 0 and self.distinct == self.rows

    @property
    def null_share(self) -> float:
        """Share of rows without a value."""
        return self.nulls / self.rows
