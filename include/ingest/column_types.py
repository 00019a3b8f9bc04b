"""Which type each column has, decided over all rows.

Owns the rules: a text column is the first of int, float, bool, timestamp, string that every one of its values
fits; a typed column (Parquet, SQL, DataFrames) keeps its type, except that texts which are all ISO times become
timestamps; where files differ, ints join floats, and anything else becomes string. The champion's types are
preferred where every value fits them without loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.ingest.conversion import FALSE_TEXTS, TRUE_TEXTS, Misfit, to_type, type_of
from include.spec.schema import Spec
from include.store.snapshots import ColumnType, Manifest

_ANY: tuple[ColumnType, ...] = ("int", "float", "bool", "timestamp", "string")
_EXACT_IN_FLOAT = 2**53
_INT_BITS = 63


@dataclass(frozen=True)
class Rules:
    """What the spec and the champion say about types.

    Attributes:
        preferred: The types a text column may have, by column; others may have any.
        expected: The champion's types.
        time: Name of the time column.
        time_format: Its strptime format; None means ISO 8601.
        missing: Trimmed texts that mean missing.
    """

    preferred: Mapping[str, tuple[ColumnType, ...]]
    expected: Mapping[str, ColumnType]
    time: str | None
    time_format: str | None
    missing: tuple[str, ...]

    @classmethod
    def of(cls, spec: Spec, expected: Manifest | None) -> Rules:
        """Collect the rules of a spec and of the champion's manifest."""
        ingest = spec.ingest
        preferred: dict[str, tuple[ColumnType, ...]] = {
            ingest.target: ("int", "float", "bool", "string")
        }
        if ingest.features is not None:
            # The text of a category is its identity: 007 must not become 7.
            preferred |= {n: ("bool", "string") for n in ingest.features.categorical}
            preferred |= {n: ("int", "float", "bool", "string") for n in ingest.features.numeric}
        if ingest.key:
            preferred[ingest.key] = ("string",)
        if ingest.time:
            preferred[ingest.time] = ("timestamp", "string")
        missing = tuple(text.strip() for text in getattr(ingest.source, "missing", ()))
        types = dict(expected.types) if expected else {}
        return cls(preferred, types, ingest.time, ingest.time_format, missing)

    def format_of(self, name: str) -> str | None:
        """Return the time format of a column; None means ISO 8601."""
        return self.time_format if name == self.time else None


@dataclass
class Votes:
    """What one column's values could be, after all values seen so far.

    Attributes:
        text: Whether the source gives texts only, such as CSV.
        possible: Types all values fit as they are.
        lossless: Types all values fit only by a cast that loses nothing: floats without fraction, 0 and 1.
        given: Types the source gave; for a source of texts `string` once there was a value.
        values: Whether there was any value.
    """

    text: bool
    possible: set[ColumnType] = field(default_factory=lambda: set(_ANY))
    lossless: set[ColumnType] = field(default_factory=lambda: {"int", "bool"})
    given: set[ColumnType] = field(default_factory=set)
    values: bool = False

    def add(self, values: pa.Array, rules: Rules, name: str) -> None:
        """Take further values into account; texts must have been cleaned."""
        if pa.types.is_null(values.type):
            return
        values = values.drop_null()
        self.values = self.values or len(values) > 0
        if not self.text:
            self._add_typed(values, rules, name)
        elif len(values):
            self._add_texts(values, rules, name)

    def _add_typed(self, values: pa.Array, rules: Rules, name: str) -> None:
        kind = type_of(values.type, name)
        self.given.add(kind)
        fits: set[ColumnType] = {kind, "string"}
        if kind == "int":
            fits |= {"float"}
            if values.type.bit_width > _INT_BITS and not _fits(values, "int", rules, name):
                fits -= {"int"}
        parsed = kind == "string" or (kind == "int" and rules.format_of(name))
        if parsed and "timestamp" in self.possible and _fits(values, "timestamp", rules, name):
            fits |= {"timestamp"}
        self._narrow(fits, values if kind in ("int", "float") else None)

    def _add_texts(self, values: pa.Array, rules: Rules, name: str) -> None:
        self.given.add("string")
        fits: set[ColumnType] = {
            t for t in self.possible if t == "string" or _text_is(values, t, rules, name)
        }
        numeric = "float" in fits and self.lossless
        self._narrow(fits, to_type(values, "float", name) if numeric else None)

    def _narrow(self, fits: set[ColumnType], numbers: pa.Array | None) -> None:
        self.possible &= fits
        if not self.lossless:
            return
        if numbers is None:
            self.lossless = set()
            return
        plain = numbers.drop_null().cast(pa.float64(), safe=False).to_numpy()
        plain = plain[~np.isnan(plain)]
        if not np.all((plain == np.trunc(plain)) & (np.abs(plain) < _EXACT_IN_FLOAT)):
            self.lossless = set()
        elif not np.isin(plain, (0, 1)).all():
            self.lossless.discard("bool")

    def decide(self, rules: Rules, name: str) -> ColumnType:
        """Return the column's type; without any value, the first it may have."""
        expected = None if name == rules.time else rules.expected.get(name)
        if not self.given and expected is not None:
            return expected
        # A typed source that now says int where it said string has changed: validate must see that.
        wanted = self.possible if self.text else self.possible - ({"string"} - self.given)
        if self.given == {"int"} and "int" not in self.lossless:
            wanted = wanted - {"float"}  # it would round some of them
        if expected is not None and expected in wanted | self.lossless:
            return expected
        order = rules.preferred.get(name, _ANY)
        if not self.text and name != rules.time:
            order = tuple(t for t in _ANY if t != "timestamp" or "timestamp" in order)
            if not self.values and self.given == {"string"}:
                return "string"
        return next((t for t in order if t in self.possible), "string")


def _fits(values: pa.Array, kind: ColumnType, rules: Rules, name: str) -> bool:
    try:
        to_type(values, kind, name, rules.format_of(name))
    except Misfit:
        return False
    return True


def _text_is(values: pa.Array, kind: ColumnType, rules: Rules, name: str) -> bool:
    """Tell whether texts are of a type as they stand: 1.0 is no int and 1 is no bool, though casts allow it."""
    trimmed = pc.ascii_trim_whitespace(values)
    if kind == "bool":
        known = pa.array([*TRUE_TEXTS, *FALSE_TEXTS])
        return bool(pc.all(pc.is_in(trimmed, value_set=known)).as_py())
    if kind != "int":
        return _fits(values, kind, rules, name)
    try:
        trimmed.cast(pa.int64())
    except pa.ArrowInvalid:
        return False
    return True


def first_misfit(values: pa.Array, kind: ColumnType, rules: Rules, name: str) -> object:
    """Return the first value that does not fit the type, for an error message; None if all fit."""
    for value in values.drop_null().unique():
        if not _fits(pa.array([value.as_py()], values.type), kind, rules, name):
            return value.as_py()
    return None
