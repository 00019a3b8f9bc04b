"""Where rows come from: turns a spec's source into a reader.

Owns the choice by kind, and the spool: rows that can be had only once, or whose columns show only at the end
(SQL, functions, JSON lines), are written to Parquet files in the work folder first, without the dropped columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.json as pajson
import pyarrow.parquet as pq

from include.errors import DataError
from include.ingest.function import call_function
from include.ingest.origins import Origin, find_files, find_objects, reading
from include.ingest.readers import CsvReader, ParquetReader, Reader
from include.ingest.rows import Drop, batch_of
from include.ingest.sql import query_batches
from include.spec.schema import Spec
from include.spec.sources import FileSource, S3Source, SqlSource
from include.store.databases import describe_url, resolve_url

_JSON_BLOCK_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Access:
    """What a source may need besides the spec.

    Attributes:
        now: The run's time.
        folder: Empty folder for spooled rows, removed afterwards by the caller.
        sql_url: SQLAlchemy URL; None means the environment variable the spec names.
        s3_options: Further arguments of `boto3.client`; None means boto3's own chain.
        drop: Columns to leave out; knows afterwards which of them there were.
        partition: What a query or function for scoring is asked for; None otherwise.
    """

    now: datetime
    folder: Path
    sql_url: str | None = None
    s3_options: Mapping[str, Any] | None = None
    drop: Drop = field(default_factory=lambda: Drop(frozenset()))
    partition: str | None = None


def open_source(spec: Spec, access: Access) -> tuple[Reader, str]:
    """Open a spec's source.

    Returns:
        The reader, and where the rows come from in words for people, without any password.

    Raises:
        DataError: There is nothing to read, it is damaged, or a query or function is wrong.
        ServiceError: S3 or the database is away.
    """
    source, drop = spec.ingest.source, access.drop
    if isinstance(source, FileSource):
        paths = (source.path,) if isinstance(source.path, str) else source.path
        return _files(find_files(source), spec, access), ", ".join(paths)
    if isinstance(source, S3Source):
        return _files(find_objects(source, access.s3_options), spec, access), source.path
    start = access.now - spec.ingest.window if spec.ingest.window else None
    if isinstance(source, SqlSource):
        url = resolve_url(
            "ingest.source", access.sql_url, url_env=source.url_env, connection=source.connection
        )
        rows = query_batches(
            url, source.query, drop, start=start, end=access.now, partition=access.partition
        )
        return _spooled(rows, access.folder), describe_url(url)
    where = f"model {spec.model}: ingest.source.call {source.call}"
    rows = call_function(
        source, where, drop, start=start, end=access.now, partition=access.partition
    )
    return _spooled(rows, access.folder), source.call


def _files(origins: list[Origin], spec: Spec, access: Access) -> Reader:
    drop, kind = access.drop, origins[0].format
    if kind == "csv":
        return CsvReader(origins, drop, getattr(spec.ingest.source, "missing", ("",)))
    if kind == "parquet":
        return ParquetReader(origins, drop)
    rows = (batch for origin in origins for batch in _json_batches(origin, drop))
    return _spooled(rows, access.folder)


def _spooled(batches: Iterable[pa.RecordBatch], folder: Path) -> Reader:
    """Write batches to Parquet files, a new one whenever the columns or types change, and read those."""
    paths: list[Path] = []
    writer: pq.ParquetWriter | None = None
    try:
        for batch in batches:
            if writer is None or writer.schema != batch.schema:
                if writer is not None:
                    writer.close()
                paths.append(folder / f"rows-{len(paths):06d}.parquet")
                writer = pq.ParquetWriter(paths[-1], batch.schema, compression="lz4")
            writer.write_batch(batch)
    finally:
        if writer is not None:
            writer.close()
    return ParquetReader([Origin(str(p), "parquet", _opener(p)) for p in paths], Drop(frozenset()))


def _opener(path: Path) -> Callable[[], Any]:
    return lambda: pa.OSFile(str(path))


# --- JSON lines -----------------------------------------------------------------------------------------


def _json_batches(origin: Origin, drop: Drop) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file with one flat JSON object per line."""
    texts: set[str] = set()
    for block, first_line in _line_blocks(origin):
        try:
            table = _parse_block(block, texts)
        except pa.ArrowInvalid:  # a damaged line, or a key that is now a text and now a number
            yield _parse_lines(block, first_line, origin.name, drop)
            continue
        for batch in table.combine_chunks().to_batches():
            yield batch.select(drop.kept(batch.schema.names))


def _parse_block(block: bytes, texts: set[str]) -> pa.Table:
    """Parse many lines at once; Arrow would take some texts for times, so `texts` collects those."""
    options = pajson.ParseOptions(
        explicit_schema=pa.schema([(n, pa.string()) for n in sorted(texts)])
    )
    table = pajson.read_json(pa.BufferReader(block), parse_options=options)
    times = {f.name for f in table.schema if pa.types.is_timestamp(f.type)}
    if not times:
        return table
    texts |= times
    return _parse_block(block, texts)


def _parse_lines(block: bytes, first_line: int, name: str, drop: Drop) -> pa.RecordBatch:
    rows = []
    for number, line in enumerate(block.split(b"\n"), first_line):
        if not line.strip():
            continue
        with reading(f"{name} line {number}"):
            row = orjson.loads(line)
        if not isinstance(row, dict):
            raise DataError(
                f"{name} line {number}",
                "must be one JSON object, got another value",
                "Correct the file.",
            )
        rows.append(row)
    names = dict.fromkeys(key for row in rows for key in row)
    return batch_of({n: [row.get(n) for row in rows] for n in names}, drop)


def _line_blocks(origin: Origin) -> Iterator[tuple[bytes, int]]:
    """Yield whole lines of a file in blocks, each with the number of its first line."""
    rest, line = b"", 1
    with reading(origin.name), origin.open() as stream:
        while chunk := bytes(stream.read(_JSON_BLOCK_BYTES)):
            whole, newline, rest_of_chunk = (rest + chunk).rpartition(b"\n")
            rest = rest_of_chunk
            if newline and whole.strip():
                yield whole, line
            line += whole.count(b"\n") + len(newline)
    if rest.strip():
        yield rest, line
