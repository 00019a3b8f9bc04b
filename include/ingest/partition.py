"""Rows of one partition of `score.source`: read once, of the types the model was trained on.

Owns what a value must be to be scored; nothing is left out and nothing is guessed: a value of another type ends the
reading with its row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from include.errors import DataError, EvergreenError, SpecError
from include.ingest.column_types import Rules, first_misfit
from include.ingest.conversion import Misfit, clean_texts, to_type, type_of
from include.ingest.readers import Reader
from include.ingest.rows import Drop
from include.ingest.sources import Access, open_source
from include.spec.schema import Spec
from include.store.snapshots import ARROW_TYPES, ColumnType

_NO_WINDOW = datetime.max.replace(tzinfo=UTC)  # a partition is asked for by name, not by time


class PartitionRows:
    """The rows of a partition; open them with `open_partition`.

    Attributes:
        where: Where they come from, for messages.
        names: All columns but the dropped ones.
    """

    def __init__(self, spec: Spec, reader: Reader, source: str) -> None:
        self.where = f"model {spec.model}: score.source {source}"
        self.names = reader.names
        self._reader, self._rules = reader, Rules.of(spec, None)
        self._digest = hashlib.sha256()

    def batches(self, types: Mapping[str, ColumnType | None]) -> Iterator[pa.RecordBatch]:
        """Yield all rows, in the source's order; at least one batch, which may be empty.

        Args:
            types: Type of each wanted column, by name; None leaves it as the source has it. A column that some of
                the files do not have is missing there.

        Raises:
            DataError: A file is damaged, or a value is not of its column's type.
        """
        with _named():
            kinds = {name: kind or self._own_type(name) for name, kind in types.items()}
            schema = pa.schema([(name, ARROW_TYPES[kind]) for name, kind in kinds.items()])
            rows = 0
            for batch in self._reader.batches(None):
                self._count(batch)
                columns = [self._column(batch, n, kind, rows) for n, kind in kinds.items()]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)
                rows += batch.num_rows
            if not rows:
                yield pa.RecordBatch.from_pylist([], schema)

    def digest(self) -> str:
        """Return what identifies the rows read so far: values, names and order; 64 hex digits."""
        return self._digest.hexdigest()

    def _own_type(self, name: str) -> ColumnType:
        given = {
            type_of(batch.schema.field(name).type, name)
            for batch in self._reader.sample()
            if name in batch.schema.names and not pa.types.is_null(batch.schema.field(name).type)
        }
        return given.pop() if len(given) == 1 else "string"

    def _count(self, batch: pa.RecordBatch) -> None:
        """Take rows into the digest; a dictionary would be left out of a batch's bytes."""
        plain = [
            column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
            for column in batch.columns
        ]
        named = pa.RecordBatch.from_arrays(plain, batch.schema.names)
        self._digest.update(repr(named.schema.names).encode())
        self._digest.update(named.serialize())

    def _column(self, batch: pa.RecordBatch, name: str, kind: ColumnType, before: int) -> pa.Array:
        place = batch.schema.get_field_index(name)
        values = batch.column(place) if place >= 0 else pa.nulls(batch.num_rows)
        if self._reader.text and pa.types.is_string(values.type):
            values = clean_texts(values, self._rules.missing)
        try:
            return to_type(values, kind, name, self._rules.format_of(name))
        except Misfit as error:
            bad = first_misfit(values, kind, self._rules, name)
            row = before + values.index(pa.scalar(bad, values.type)).as_py()
            raise DataError(
                self.where,
                f"{name!r} must be a {kind} in every row, as in training, got {bad!r} in row {row}",
                "Correct the data (or ingest.time_format).",
            ) from error


def open_partition(
    spec: Spec,
    partition: str,
    *,
    folder: Path,
    sql_url: str | None = None,
    s3_options: Mapping[str, Any] | None = None,
) -> PartitionRows:
    """Open a partition of `score.source`.

    Args:
        spec: Names the source.
        partition: Its name.
        folder: Empty folder for rows that can be had only once; removed afterwards by the caller.
        sql_url: SQLAlchemy URL of an `sql` source; None means the environment variable the spec names.
        s3_options: Further arguments of `boto3.client` for an `s3` source; None means boto3's own chain.

    Raises:
        SpecError: The spec has no section `score`, or a function or query is wrong.
        DataError: There is nothing to read, or it is damaged.
        ServiceError: S3 or the database is away.
    """
    if spec.score is None:
        raise SpecError(
            f"model {spec.model}: score", "must be there to score, got none", "Add the section."
        )
    changes = {"source": spec.score.for_partition(partition), "window": None}
    asked = spec.model_copy(update={"ingest": spec.ingest.model_copy(update=changes)})
    drop = Drop(frozenset(spec.ingest.drop))
    access = Access(_NO_WINDOW, folder, sql_url, s3_options, drop, partition)
    with _named():
        reader, source = open_source(asked, access)
    return PartitionRows(asked, reader, source)


@contextmanager
def _named() -> Iterator[None]:
    """Name the section that the user wrote in errors of the rooms that training uses as well."""
    try:
        yield
    except EvergreenError as error:
        texts = (text.replace("ingest.source", "score.source") for text in error.args)
        raise type(error)(*texts) from error
