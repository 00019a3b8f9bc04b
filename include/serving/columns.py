"""What one named column of a request may hold.

Owns the type rules: a numeric feature takes numbers, a categorical one takes text or the kind of value it was
trained on; None means missing everywhere. All request protocols (tensors, data frames, fields) go through here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from include.serving.identity import NOBODY, Identity, read_keys, read_times
from include.serving.rejection import bad, listed, quote, suggest
from include.store.inputs import Features

#: By feature: JSON values as they came, None for missing. Batch callers, who have no JSON, may hold NumPy arrays:
#: float64 with NaN, objects with None.
Columns = dict[str, Sequence[Any]]
_NONE = type(None)
_NUMBERS: frozenset[type] = frozenset((int, float, bool, _NONE))
_TEXT: frozenset[type] = frozenset((str, _NONE))
_CATEGORY_TYPES: Mapping[str, frozenset[type]] = {
    "int": frozenset((int, float, _NONE)),
    "float": frozenset((int, float, _NONE)),
    "bool": frozenset((bool, _NONE)),
    "string": _TEXT,
}
_OIP_TYPE = {"int": "INT64", "float": "FP64", "bool": "BOOL", "string": "BYTES"}


@dataclass(frozen=True)
class Schema:
    """The columns a model wants.

    Args:
        features: Names, in the model's order.
        types: Column type of the training snapshot by name: int, float, bool or string.
        key: Name of the column that says who a row is about; None without. Optional in a request, no feature.
        time: Name of the column that says when; likewise.
    """

    features: Features
    types: Mapping[str, str]
    key: str | None = None
    time: str | None = None

    @cached_property
    def numeric(self) -> frozenset[str]:
        """Names of the numeric features."""
        return frozenset(self.features.numeric)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All feature names, in the model's order."""
        return tuple(self.features.names)

    @cached_property
    def beside(self) -> frozenset[str]:
        """Names of the columns that a request may have beside the features."""
        return frozenset(n for n in (self.key, self.time) if n and n not in self.features.names)

    def identity(self, given: Mapping[str, Sequence[Any]], what: str) -> Identity:
        """Return key and time of every row, where they were sent.

        Args:
            given: Plain JSON values by name, one per row; columns that are neither are left alone.
            what: What the request calls a column, for the message.

        Raises:
            RequestError: A value is no key or no time.
        """
        if not given:
            return NOBODY
        keys = times = None
        if self.key in self.beside and self.key in given:
            keys = read_keys(given[self.key], f"{what} {quote(self.key)}")
        if self.time in self.beside and self.time in given:
            times = read_times(given[self.time], f"{what} {quote(self.time)}")
        return Identity(keys, times)

    def datatype(self, name: str) -> str:
        """Return the tensor datatype a feature is advertised with.

        Whole numbers are advertised as FP64, like in the model's MLflow signature: a column of integers with a
        missing value is a column of floats.
        """
        kind = self.types.get(name, "string")
        if name in self.numeric:
            return "BOOL" if kind == "bool" else "FP64"
        return _OIP_TYPE.get(kind, "BYTES")

    def check_names(self, given: Sequence[str], what: str, *, extra_ok: bool = False) -> None:
        """Raise unless `given` are exactly the features.

        Args:
            given: Names in the request.
            what: What the request calls a column: input or column.
            extra_ok: Whether further columns are ignored (as MLflow does).
        """
        present = frozenset(given)
        missing = [name for name in self.names if name not in present]
        unknown = sorted(present.difference(self.names, self.beside))
        if extra_ok and not missing:
            unknown = []
        if not missing and not unknown:
            return
        parts = []
        if missing:
            parts.append(f"missing {listed(missing)}")
        if unknown:
            hints = ", ".join(suggest(name, missing or self.names) for name in unknown[:10])
            parts.append(f"unknown {hints}")
        raise bad(
            f"{what}s",
            f"must be the {len(self.names)} features of the model, got {'; '.join(parts)}",
            f"Send one {what} per feature; GET the model's metadata for the list.",
        )

    def column(self, name: str, values: Sequence[Any], what: str) -> Sequence[Any]:
        """Return one column as it came, checked.

        Args:
            name: A feature.
            values: Plain JSON values, one per row.
            what: What the request calls a column, for the message.

        Raises:
            RequestError: A value is of another kind.
        """
        found = frozenset(map(type, values))
        if name in self.numeric:
            if not found <= _NUMBERS:
                raise self._wrong(name, values, _NUMBERS, what)
            return values
        allowed = _CATEGORY_TYPES.get(self.types.get(name, ""), _TEXT | _NUMBERS) | _TEXT
        if not found <= allowed:
            raise self._wrong(name, values, allowed, what)
        if float in found and self.types.get(name) == "int":
            _whole(name, values, what)
        return values

    def _wrong(
        self, name: str, values: Sequence[Any], allowed: frozenset[type], what: str
    ) -> Exception:
        row = next(i for i, value in enumerate(values) if type(value) not in allowed)
        kind = "numeric" if name in self.numeric else "categorical"
        wanted = "a number" if name in self.numeric else _WANTED[self.types.get(name, "string")]
        return bad(
            f"{what} {quote(name)}",
            f"must hold {wanted} or null in each row ({kind} feature), got {quote(values[row])} in row {row}",
            "Send the values as the training data had them.",
        )


_WANTED = {
    "int": "a whole number or text",
    "float": "a number or text",
    "bool": "true, false or text",
    "string": "text",
}


def _whole(name: str, values: Sequence[Any], what: str) -> None:
    for row, value in enumerate(values):
        if type(value) is float and not value.is_integer():
            raise bad(
                f"{what} {quote(name)}",
                f"must hold whole numbers (a category), got {value!r} in row {row}",
                "Send the values as the training data had them.",
            )
