"""Hashes that are the same on every machine and in every version of every library.

Owns the digest that names a snapshot and the hash that puts a row into the holdout. Both are plain 64-bit
arithmetic written out here, because the hashes of DuckDB, Arrow and pandas may change between releases.
They guard against accidents, not against an adversary who may choose the rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Hashes = npt.NDArray[np.uint64]

_VERSION = 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LANES = (np.uint64(0x243F6A8885A308D3), np.uint64(0x13198A2E03707344))
_NULL = np.uint64(0xA4093822299F31D0)
_NAN = np.uint64(0x7FF8000000000000)
_CHUNK = 1 << 14  # what fits the processor's cache is done several times as fast
_MOST_WORDS = 1 << 18


def mix(values: Hashes) -> Hashes:
    """Scramble 64-bit values, one to one.

    Args:
        values: uint64, any shape.

    Returns:
        uint64 of the same shape.

    Source: the finaliser of SplitMix64, Steele, Lea & Flood 2014, https://doi.org/10.1145/2660193.2660195
    """
    result = values ^ (values >> np.uint64(30))
    result *= np.uint64(0xBF58476D1CE4E5B9)
    result ^= result >> np.uint64(27)
    result *= np.uint64(0x94D049BB133111EB)
    result ^= result >> np.uint64(31)
    return result


def hash_text(texts: pa.Array) -> Hashes:
    """Hash strings.

    Args:
        texts: Arrow array of strings, shape (n,).

    Returns:
        uint64, shape (n,); missing values have a hash of their own.
    """
    if len(texts) > _CHUNK:
        starts = range(0, len(texts), _CHUNK)
        return np.concatenate([hash_text(texts.slice(start, _CHUNK)) for start in starts])
    encoded = pc.dictionary_encode(texts)
    unique = _hash_distinct_texts(encoded.dictionary.cast(pa.large_string()))
    places = encoded.indices.fill_null(len(unique)).to_numpy()
    hashes: Hashes = np.append(unique, _NULL)[places]
    return hashes


def _hash_distinct_texts(texts: pa.Array) -> Hashes:
    """Hash strings without missing values by their bytes, eight at a time, and their length."""
    if len(texts) == 0:
        return np.empty(0, np.uint64)
    _, raw_offsets, data = texts.buffers()
    offsets = np.frombuffer(raw_offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    lengths = np.diff(offsets)
    words = max(1, -(-int(lengths.max()) // 8))
    if len(texts) > 1 and len(texts) * words > _MOST_WORDS:
        half = len(texts) // 2
        parts = (texts.slice(0, half), texts.slice(half))
        return np.concatenate([_hash_distinct_texts(part) for part in parts])
    padded = np.zeros((len(texts), words * 8), np.uint8)
    if offsets[-1] > offsets[0]:
        inside = np.arange(words * 8) < lengths[:, None]
        padded[inside] = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
    places = np.arange(1, words + 1, dtype=np.uint64) * _GOLDEN
    scrambled = mix(padded.view("<u8").astype(np.uint64) + places)
    # A text counts only its own words, not the padding that longer neighbours bring.
    scrambled[np.arange(words) * 8 >= lengths[:, None]] = 0
    return mix(scrambled.sum(axis=1, dtype=np.uint64) + lengths.astype(np.uint64) * _GOLDEN)


def hash_numbers(values: npt.NDArray[Any]) -> Hashes:
    """Hash numbers by value: -0.0 as 0.0, every NaN alike.

    Args:
        values: int64, bool or float64, shape (n,).

    Returns:
        uint64, shape (n,).
    """
    hashes = np.empty(len(values), np.uint64)
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK]
        if part.dtype.kind == "f":
            bits = (part.astype(np.float64) + 0.0).view(np.uint64)
            bits[np.isnan(part)] = _NAN
        else:
            bits = part.astype(np.int64).view(np.uint64)
        hashes[start : start + _CHUNK] = mix(bits + _GOLDEN)
    return hashes


def hash_values(values: pa.Array) -> Hashes:
    """Hash an Arrow array of one of the five snapshot types by value.

    Args:
        values: int64, float64, bool, string or timestamp, shape (n,).

    Returns:
        uint64, shape (n,); missing values have a hash of their own.
    """
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return hash_text(values)
    if pa.types.is_timestamp(values.type):
        values = values.view(pa.int64())
    elif pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    nulls = values.null_count
    plain = (values.fill_null(0) if nulls else values).to_numpy()
    hashes = hash_numbers(plain)
    if nulls:
        hashes[values.is_null().to_numpy(zero_copy_only=False)] = _NULL
    return hashes


def _column_factor(name: str) -> np.uint64:
    """Return an odd number that stands for the column, so that its place among the others does not matter."""
    return np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") | 1)


def hash_rows(columns: Mapping[str, Hashes]) -> Hashes:
    """Combine the hashes of a row's values into one per row, whatever the columns' order.

    Args:
        columns: Hashes of each column's values by its name, each of shape (n,); at least one column.

    Returns:
        uint64, shape (n,).
    """
    total: Hashes | None = None
    for name, hashes in columns.items():
        part = hashes * _column_factor(name)
        total = part if total is None else total + part
    if total is None:
        raise ValueError("needs at least one column")
    return total


class RowDigest:
    """Digest of a bag of rows: feed it in any order and in any chunks, the result is the same.

    Each row becomes one 64-bit number; two different scramblings of it are summed up mod 2^64.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._sums = [0] * len(_LANES)

    def update(self, columns: Mapping[str, Hashes]) -> None:
        """Add rows, given as the hashes of their values by column."""
        rows = hash_rows(columns)
        self.rows += len(rows)
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            for lane, salt in enumerate(_LANES):
                self._sums[lane] += int(mix(part ^ salt).sum(dtype=np.uint64))

    def snapshot_id(self, types: Mapping[str, str]) -> str:
        """Return the digest of the rows so far and their columns' types; 32 hex digits."""
        content = {
            "version": _VERSION,
            "types": dict(sorted(types.items())),
            "rows": self.rows,
            "sums": [total % 2**64 for total in self._sums],
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]
