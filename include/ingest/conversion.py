"""How values become one of a snapshot's five types.

Owns the casts and what counts as missing, as true and as a time. A cast that would lose more
than the last digits of a float or of a second is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from include.errors import DataError
from include.store.snapshots import ARROW_TYPES, ColumnType

TRUE_TEXTS = ("true", "True", "TRUE")
FALSE_TEXTS = ("false", "False", "FALSE")
_TIMESTAMP = ARROW_TYPES["timestamp"]
_ZONED = r":\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}(?::?\d{2})?)$"


class Misfit(Exception):  # noqa: N818
    """Values do not fit the type their column was taken for; never leaves this room."""


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


def clean_texts(values: pa.Array, missing: Sequence[str]) -> pa.Array:
    """Return texts with None for those that, trimmed, mean missing; the others keep their blanks."""
    trimmed = pc.ascii_trim_whitespace(values)
    gone = pc.is_in(trimmed, value_set=pa.array(missing, values.type))
    return pc.if_else(gone, None, values) if pc.any(gone).as_py() else values


def to_type(values: pa.Array, kind: ColumnType, name: str, pattern: str | None = None) -> pa.Array:
    """Convert values to a snapshot type; NaN becomes missing.

    Args:
        values: Of any Arrow type that `type_of` knows, texts cleaned.
        kind: Wanted type.
        name: The column.
        pattern: strptime format of times that are texts; None means ISO 8601.

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
            return _to_timestamp(values, pattern)
        if kind == "bool" and not pa.types.is_boolean(values.type):
            return _to_bool(values)
        if _is_text(values.type) and kind in ("int", "float"):
            values = pc.ascii_trim_whitespace(values)
            if kind == "int":
                return _texts_to_int(values)
        return _cast(values, wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, OverflowError) as error:
        raise Misfit(f"{name}: {error}") from error


def _cast(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    if wanted == ARROW_TYPES["float"]:
        # Ints beyond 2**53 among floats are rounded, as they are where a text among floats is read.
        return without_nan(values.cast(wanted, safe=_is_text(values.type)))
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
    truths = None
    if _is_text(values.type):
        values = pc.ascii_trim_whitespace(values.cast(pa.string()))
        truths = pa.array(TRUE_TEXTS)
        if not _only(values, pa.array([*TRUE_TEXTS, *FALSE_TEXTS])):
            truths = None
    if truths is None:
        values = without_nan(values.cast(pa.float64()))
        truths = pa.array([1.0])
        if not _only(values, pa.array([1.0, 0.0, -0.0])):
            raise ValueError("neither 0 nor 1")
    return pc.if_else(values.is_valid(), pc.is_in(values, value_set=truths), None)


def _only(values: pa.Array, known: pa.Array) -> bool:
    return bool(pc.all(pc.is_in(values.drop_null(), value_set=known), min_count=0).as_py())


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
