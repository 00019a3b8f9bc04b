"""Which type each column has, decided over all rows, and how values become it.

Owns the rules: a text column is the first of int, float, bool, timestamp, string that every one of its values
fits; a typed column (Parquet, SQL, DataFrames) keeps its type, except that texts which are all ISO times become
timestamps; where files differ, ints join floats, and anything else becomes string. The champion's types are
preferred where every value fits them without loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from include.errors import DataError
from include.spec.schema import Spec
from include.store.snapshots import ARROW_TYPES, ColumnType, Manifest

TRUE_TEXTS = ("true", "True", "TRUE")
FALSE_TEXTS = ("false", "False", "FALSE")
_ANY: tuple[ColumnType, ...] = ("int", "float", "bool", "timestamp", "string")
_TIMESTAMP = ARROW_TYPES["timestamp"]
_ZONED = r":\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}(?::?\d{2})?)$"
_EXACT_IN_FLOAT = 2**53
_INT_BITS = 63


class Misfit(Exception):  # noqa: N818
    """Values do not fit the type their column was taken for; never leaves this room."""


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
        self._narrow(fits, to_type(values, "float", rules, name) if numeric else None)

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
        to_type(values, kind, rules, name)
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


def type_of(given: pa.DataType, name: str) -> ColumnType:
    """Return the snapshot type of an Arrow type.

    Raises:
        DataError: The type is nested, binary or otherwise nothing a table of values holds.
    """
    if pa.types.is_dictionary(given):
        given = given.value_type
    if pa.types.is_boolean(given):
        return "bool"
    if pa.types.is_integer(given) or (pa.types.is_decimal(given) and given.scale == 0):
        return "int"
    if pa.types.is_floating(given) or pa.types.is_decimal(given):
        return "float"
    if pa.types.is_timestamp(given) or pa.types.is_date(given):
        return "timestamp"
    if _is_text(given):
        return "string"
    raise DataError(
        f"column {name!r}",
        f"must hold numbers, texts, booleans or times, got {given}",
        "Convert it at the source, or list it under ingest.drop.",
    )


def _is_text(given: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(given)
        or pa.types.is_large_string(given)
        or pa.types.is_string_view(given)
    )


# --- conversion -----------------------------------------------------------------------------------------


def clean_texts(values: pa.Array, missing: Sequence[str]) -> pa.Array:
    """Return texts with None for those that, trimmed, mean missing; the others keep their blanks."""
    trimmed = pc.ascii_trim_whitespace(values)
    gone = pc.is_in(trimmed, value_set=pa.array(missing, values.type))
    return pc.if_else(gone, None, values) if pc.any(gone).as_py() else values


def to_type(values: pa.Array, kind: ColumnType, rules: Rules, name: str) -> pa.Array:
    """Convert values to a snapshot type; NaN becomes missing.

    Args:
        values: Of any Arrow type that `type_of` knows, texts cleaned.
        kind: Wanted type.
        rules: For the time column's format.
        name: The column.

    Raises:
        Misfit: Some value does not fit.
    """
    wanted = ARROW_TYPES[kind]
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    try:
        if pa.types.is_null(values.type):
            return pa.nulls(len(values), wanted)
        if kind == "timestamp":
            return _to_timestamp(values, rules.format_of(name))
        if kind == "bool" and not pa.types.is_boolean(values.type):
            return _to_bool(values)
        if _is_text(values.type) and kind in ("int", "float"):
            values = pc.ascii_trim_whitespace(values)
            if kind == "int":
                return _texts_to_int(values)
        return without_nan(values.cast(wanted)) if kind == "float" else _cast(values, wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, OverflowError) as error:
        raise Misfit(f"{name}: {error}") from error


def _cast(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_floating(values.type) and pa.types.is_integer(wanted):
        values = without_nan(values)
    return values if values.type == wanted else values.cast(wanted)


def without_nan(values: pa.Array) -> pa.Array:
    """Return floats with None for NaN: missing is missing."""
    nan = pc.is_nan(values)
    return pc.if_else(nan, None, values) if pc.any(nan).as_py() else values


def _texts_to_int(texts: pa.Array) -> pa.Array:
    try:
        return texts.cast(pa.int64())
    except pa.ArrowInvalid:
        return without_nan(texts.cast(pa.float64())).cast(pa.int64())


def _to_bool(values: pa.Array) -> pa.Array:
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        truth, lies = pa.array([1], values.type), pa.array([0], values.type)
    else:
        values = pc.ascii_trim_whitespace(values)
        truth, lies = pa.array([*TRUE_TEXTS, "1"]), pa.array([*FALSE_TEXTS, "0"])
    yes, no = pc.is_in(values, value_set=truth), pc.is_in(values, value_set=lies)
    if pc.any(pc.and_(values.is_valid(), pc.invert(pc.or_(yes, no)))).as_py():
        raise ValueError("not a boolean")
    return pc.if_else(values.is_valid(), yes, None)


def _to_timestamp(values: pa.Array, pattern: str | None) -> pa.Array:
    kind = values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        if kind == _TIMESTAMP:
            return values
        if pa.types.is_date(kind):
            values = values.cast(pa.timestamp("us"))
        # Nanoseconds are cut to microseconds; a time without a zone is UTC.
        if values.type.tz is None:
            return pc.assume_timezone(values.cast(pa.timestamp("us"), safe=False), "UTC")
        return values.cast(_TIMESTAMP, safe=False)
    if pa.types.is_floating(kind) or pa.types.is_boolean(kind) or not (pattern or _is_text(kind)):
        raise ValueError("a number is no time")
    texts = pc.ascii_trim_whitespace(values.cast(pa.string()))
    return _parse_pattern(texts, pattern) if pattern else _parse_iso(texts)


def _parse_pattern(texts: pa.Array, pattern: str) -> pa.Array:
    encoded = texts.dictionary_encode()
    parsed = pd.to_datetime(encoded.dictionary.to_pandas(), format=pattern, utc=True, exact=True)
    moments = pa.array(parsed, pa.timestamp("ns", tz="UTC")).cast(_TIMESTAMP, safe=False)
    return moments.take(encoded.indices)


def _parse_iso(texts: pa.Array) -> pa.Array:
    try:
        return pc.assume_timezone(_cast_time(texts, None), "UTC")
    except pa.ArrowInvalid:  # some have a zone, or some are no times
        zoned = pc.match_substring_regex(texts, _ZONED)
    with_zone = _cast_time(pc.if_else(zoned, texts, None), "UTC")
    plain = pc.assume_timezone(_cast_time(pc.if_else(zoned, None, texts), None), "UTC")
    return pc.coalesce(with_zone, plain)


def _cast_time(texts: pa.Array, zone: str | None) -> pa.Array:
    try:
        return texts.cast(pa.timestamp("us", tz=zone))
    except pa.ArrowInvalid:  # more than six digits of a second
        return texts.cast(pa.timestamp("ns", tz=zone)).cast(pa.timestamp("us", tz=zone), safe=False)


def first_misfit(values: pa.Array, kind: ColumnType, rules: Rules, name: str) -> object:
    """Return the first value that does not fit the type, for an error message; None if all fit."""
    for value in values.drop_null().unique():
        if not _fits(pa.array([value.as_py()], values.type), kind, rules, name):
            return value.as_py()
    return None
