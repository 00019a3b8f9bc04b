"""Rows of the prediction log: their columns, and how parts of it become one file.

Owns the SQL. Columns are addressed by position: DuckDB's names ignore case, those of features do not.
"""

# ruff: noqa: S608  queries are put together from positions, numbers and escaped paths, never from the data

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from include.store import duck, parts

TIME = pa.timestamp("us", tz="UTC")
#: The columns of every part, before the features.
PREDICTIONS = pa.schema(
    [
        ("_request_id", pa.string()),
        ("_row", pa.int32()),
        ("_key", pa.string()),
        ("_time", TIME),
        ("_logged_at", TIME),
        ("_version", pa.string()),
        ("_arm", pa.string()),
        ("_prediction", pa.string()),
        ("_score", pa.float64()),
        ("_probability", pa.list_(pa.float64())),
        ("_latency_ms", pa.float64()),
        ("_error", pa.string()),
    ]
)
_SYSTEM = {name: place for place, name in enumerate(PREDICTIONS.names)}
_BATCH_ROWS = 65_536


def prediction_schema(numeric: Sequence[str], categorical: Sequence[str]) -> pa.Schema:
    """Return the columns of a part: the log's own, then numbers as double and categories as string.

    A feature with the name of one of the log's own columns is left out.
    """
    typed = [(name, pa.float64()) for name in numeric]
    typed += [(name, pa.string()) for name in categorical]
    fields = [pa.field(name, kind) for name, kind in typed if name not in _SYSTEM]
    return pa.schema([*PREDICTIONS, *fields])


def copy_rows(paths: Sequence[Path], where: str, out: Path, work: Path) -> int:
    """Stream the rows of some parts that fulfil `where` ({name} stands for a column of the log) into a file.

    Args:
        paths: The parts.
        where: SQL condition.
        out: The file.
        work: Folder for what does not fit into memory.

    Returns:
        The number of rows; each prediction is there once.
    """
    schemas = [pq.read_schema(path) for path in paths]
    whole = _joined(schemas)
    if not paths:
        pq.write_table(whole.empty_table(), out)
        return 0
    groups: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    for path, schema in zip(paths, schemas, strict=True):
        groups.setdefault(tuple((f.name, str(f.type)) for f in schema), []).append(path)
    selects = [_select(list(g), files, whole, where) for g, files in groups.items()]
    with duck.connect(work) as connection:
        connection.execute(f"CREATE VIEW rows AS {' UNION ALL '.join(selects)}")
        reader = connection.sql(_without_doubles(connection, whole)).to_arrow_reader(_BATCH_ROWS)
        rows = 0
        with pq.ParquetWriter(out, whole, **parts.write_options(whole)) as writer:
            for batch in reader:
                arrays = [a.cast(f.type) for a, f in zip(batch.columns, whole, strict=True)]
                writer.write_batch(pa.record_batch(arrays, schema=whole))
                rows += batch.num_rows
    return rows


def _joined(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return the log's own columns, then every feature; text where parts differ in its type."""
    kinds: dict[str, pa.DataType] = {}
    for schema in schemas:
        for field in schema:
            if field.name not in _SYSTEM:
                same = kinds.setdefault(field.name, field.type) == field.type
                kinds[field.name] = field.type if same else pa.string()
    return pa.schema([*PREDICTIONS, *(pa.field(name, kind) for name, kind in kinds.items())])


def _select(
    columns: list[tuple[str, str]], files: Sequence[Path], whole: pa.Schema, where: str
) -> str:
    at = {name: f"c{place}" for place, (name, _) in enumerate(columns)}
    kinds = dict(columns)
    wanted = []
    for place, field in enumerate(whole):
        here = at.get(field.name, "NULL")
        if field.name not in _SYSTEM and kinds.get(field.name) != str(field.type):
            here = f"CAST({here} AS {'VARCHAR' if field.type == pa.string() else 'DOUBLE'})"
        wanted.append(f"{here} AS o{place}")
    names = ", ".join(at.values())
    condition = where.format_map({name: at[name] for name in _SYSTEM})
    return f"SELECT {', '.join(wanted)} FROM {duck.source(files)} AS t({names}) WHERE {condition}"


def _without_doubles(connection: duckdb.DuckDBPyConnection, whole: pa.Schema) -> str:
    """Return the query for every prediction once; only requests that occur twice are looked at closely.

    The event's time tells a delivery repeated from another prediction: many callers use one id for everything.
    """
    identity = ", ".join(f"o{_SYSTEM[name]}" for name in ("_request_id", "_row", "_time"))
    connection.execute(
        f"CREATE TEMP TABLE twice AS SELECT {identity} FROM rows GROUP BY ALL HAVING count(*) > 1"
    )
    if not connection.execute("SELECT 1 FROM twice LIMIT 1").fetchall():
        return "SELECT * FROM rows"
    own = ["_key", "_version", "_error"]
    same = [f"o{n}" for n, name in enumerate(whole.names) if name in own or name not in _SYSTEM]
    return (
        f"SELECT * FROM rows ANTI JOIN twice USING ({identity}) UNION ALL "
        f"SELECT * FROM rows SEMI JOIN twice USING ({identity}) "
        f"QUALIFY row_number() OVER (PARTITION BY {identity}, {', '.join(same)} "
        f"ORDER BY o{_SYSTEM['_logged_at']}) = 1"
    )
