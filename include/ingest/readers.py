"""Readers: streams of rows from CSV and Parquet files, one file after the other.

Owns what a reader is and the dialects of CSV and Parquet. A reader can be read again from the start; dropped
columns are left out while parsing, and values are not yet of the snapshot's types.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from include.errors import DataError
from include.ingest.conversion import FALSE_TEXTS, TRUE_TEXTS, Misfit
from include.ingest.origins import Origin, reading
from include.ingest.rows import Drop
from include.store.snapshots import ARROW_TYPES, ColumnType

_BLOCK_BYTES = 4 * 2**20
_PEEK_BYTES = 2**18
_BATCH_ROWS = 1 << 16
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")


class Reader(Protocol):
    """Rows of a source, to be read as often as needed.

    Attributes:
        text: Whether values are texts whose types are to be found out, as in CSV.
        names: All columns but the dropped ones, in order of appearance.
    """

    text: bool
    names: tuple[str, ...]

    def sample(self) -> Iterator[pa.RecordBatch]:
        """Yield a few rows, or an empty batch with the types where the source knows them."""
        ...

    def batches(self, types: Mapping[str, ColumnType] | None) -> Iterator[pa.RecordBatch]:
        """Yield all rows.

        Args:
            types: What the columns are taken for, to parse them at once where that is faster; None: as they are.

        Raises:
            Misfit: Some value is not what its column was taken for.
            DataError: A file is damaged.
        """
        ...


def checked_names(names: Sequence[Any], where: str) -> list[str]:
    """Return column names as they are used: trimmed, and `column<position>` where empty.

    Raises:
        DataError: A name occurs twice.
    """
    texts = [str(n).strip() or f"column{i}" for i, n in enumerate(names)]
    twice = sorted({n for n in texts if texts.count(n) > 1})
    if twice:
        raise DataError(
            where,
            f"column names must differ, got {', '.join(map(repr, twice))} more than once",
            "Rename the columns at the source.",
        )
    return texts


# --- CSV ------------------------------------------------------------------------------------------------


class CsvReader:
    """CSV in UTF-8 with one header line; comma, semicolon, tab or bar, whichever the header has most."""

    text = True

    def __init__(self, origins: Sequence[Origin], drop: Drop, missing: Sequence[str]) -> None:
        self._origins, self._missing = origins, list(missing)
        self._headers = [_csv_header(origin) for origin in origins]
        every = dict.fromkeys(name for names, _, _ in self._headers for name in names)
        self.names = tuple(drop.kept(every))

    def sample(self) -> Iterator[pa.RecordBatch]:
        """Yield the first rows of the first and of the last file, as texts."""
        for number in sorted({0, len(self._origins) - 1}):
            yield from self._read(number, None, only_first=True)

    def batches(self, types: Mapping[str, ColumnType] | None) -> Iterator[pa.RecordBatch]:
        """Yield all rows; see `Reader`."""
        for number in range(len(self._origins)):
            yield from self._read(number, types)

    def _read(
        self, number: int, types: Mapping[str, ColumnType] | None, *, only_first: bool = False
    ) -> Iterator[pa.RecordBatch]:
        origin, (names, delimiter, skip) = self._origins[number], self._headers[number]
        here = [n for n in names if n in self.names]
        # Times are parsed by `conversion`, which knows all their forms.
        given = types or {}
        parsed = {n: "string" if given.get(n) in (None, "timestamp") else given[n] for n in here}
        options = pacsv.ConvertOptions(
            column_types={n: ARROW_TYPES[t] for n, t in parsed.items()},
            include_columns=here,
            null_values=self._missing,
            true_values=list(TRUE_TEXTS),
            false_values=list(FALSE_TEXTS),
            strings_can_be_null=True,
        )
        with reading(origin.name), origin.open() as stream:
            try:
                reader = pacsv.open_csv(
                    stream,
                    read_options=pacsv.ReadOptions(
                        column_names=names,
                        skip_rows=skip,
                        block_size=_PEEK_BYTES if only_first else _BLOCK_BYTES,
                    ),
                    parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                    convert_options=options,
                )
                for batch in reader:
                    yield batch
                    if only_first:
                        return
            except pa.ArrowInvalid as error:
                message = str(error)
                if "Empty CSV file" in message:
                    return
                if "conversion error" in message and "UTF8" not in message and types:
                    raise Misfit(message) from error
                raise


def _csv_header(origin: Origin) -> tuple[list[str], str, int]:
    """Return the columns of a CSV file, its delimiter and the number of lines before the first row."""
    with reading(origin.name), origin.open() as stream:
        start = bytes(stream.read(_PEEK_BYTES))
        text = start.decode("utf-8-sig", "replace" if len(start) == _PEEK_BYTES else "strict")
    lines = re.split(r"\r\n|\n|\r", text)
    skip = next((i for i, line in enumerate(lines) if line.strip()), None)
    if skip is None or "\0" in text or lines[skip].count('"') % 2:
        raise DataError(
            origin.name,
            "must be UTF-8 text that begins with one header line, got "
            + ("an empty file" if skip is None else "something else"),
            "Replace the file, or take it out of the path.",
        )
    unquoted = re.sub(r'"[^"]*"', "", lines[skip])
    delimiter = max(",;\t|", key=unquoted.count)
    names = next(csv.reader(io.StringIO(lines[skip]), delimiter=delimiter))
    return checked_names(names, origin.name), delimiter, skip + 1


# --- Parquet --------------------------------------------------------------------------------------------


class ParquetReader:
    """Parquet files; each may have its own columns and types."""

    text = False

    def __init__(self, origins: Sequence[Origin], drop: Drop) -> None:
        self._origins = origins
        self._schemas = []
        for origin in origins:
            with reading(origin.name), origin.open() as stream:
                self._schemas.append(pq.read_schema(stream))
        every = dict.fromkeys(
            name
            for schema, origin in zip(self._schemas, origins, strict=True)
            for name in checked_names(schema.names, origin.name)
            if not _PANDAS_INDEX.fullmatch(name)
        )
        self.names = tuple(drop.kept(every))

    def sample(self) -> Iterator[pa.RecordBatch]:
        """Yield every file's types without rows, and the first rows of the first file."""
        for schema in self._schemas:
            yield self._named(pa.RecordBatch.from_pylist([], schema))
        yield from self._read(self._origins[0], only_first=True)

    def batches(self, types: Mapping[str, ColumnType] | None) -> Iterator[pa.RecordBatch]:  # noqa: ARG002
        """Yield all rows; see `Reader`."""
        for origin in self._origins:
            yield from self._read(origin)

    def _named(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        names = checked_names(batch.schema.names, "")
        places = [i for i, name in enumerate(names) if name in self.names]
        return pa.RecordBatch.from_arrays(
            [batch.column(i) for i in places], [names[i] for i in places]
        )

    def _read(self, origin: Origin, *, only_first: bool = False) -> Iterator[pa.RecordBatch]:
        with reading(origin.name), origin.open() as stream:
            file = pq.ParquetFile(stream)
            names = file.schema_arrow.names
            all_kept = all(n in self.names for n in checked_names(names, origin.name))
            wanted = None if all_kept else [n for n in names if n.strip() in self.names]
            rows = 1 << 12 if only_first else _BATCH_ROWS
            for batch in file.iter_batches(rows, columns=wanted):
                yield self._named(batch)
                if only_first:
                    return
