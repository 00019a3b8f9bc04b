"""Labels from a spec's own source: the truth about earlier predictions, brought into the store.

Owns which rows of the source are labels of a stretch of time, and that the same ones are never stored twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from include.errors import DataError, SpecError
from include.ingest.column_types import Rules, Votes, first_misfit
from include.ingest.conversion import Misfit, clean_texts, to_type
from include.ingest.origins import nothing_matches
from include.ingest.readers import Reader
from include.ingest.rows import Drop
from include.ingest.sources import Access, open_source
from include.spec.schema import Spec
from include.spec.sources import Source
from include.store import duck, parts
from include.store.features import category_texts, no_column
from include.store.files import Store
from include.store.labels import LABELS, read_labels, write_labels

_TIME = LABELS.field("time").type
_EVER = datetime(1970, 1, 1, tzinfo=UTC)
_FRESH = """
    SELECT found.* FROM (
        SELECT * FROM found QUALIFY row_number() OVER (PARTITION BY key, time ORDER BY n DESC) = 1
    ) AS found
    LEFT JOIN stored ON found.key = stored.key AND found.time IS NOT DISTINCT FROM stored.time
    WHERE found.label IS DISTINCT FROM stored.label
"""


def ingest_labels(
    spec: Spec,
    store: Store,
    start: datetime,
    end: datetime,
    *,
    now: datetime,
    sql_url: str | None = None,
    s3_options: Mapping[str, Any] | None = None,
) -> int:
    """Copy the labels of a stretch of time from `monitor.labels.source` into the store. Safe to repeat.

    The source has the columns of the training data's key, time and target. Rows without a key or a target are no
    labels yet and are left out. Where the spec names no time column, all rows are taken.

    Args:
        spec: Names the source and the columns.
        store: Where the labels go.
        start: First time of a label, aware.
        end: Time before which it lies, aware. A query may use both as :window_start and :window_end.
        now: When the labels arrive, aware.
        sql_url: SQLAlchemy URL of an `sql` source; None means the environment variable the spec names.
        s3_options: Further arguments of `boto3.client` for an `s3` source; None means boto3's own chain.

    Returns:
        How many labels are new or changed; 0 where the spec has no source, or no file is there yet.

    Raises:
        SpecError: The spec names no key to join by, or a function or query is wrong.
        DataError: A file is damaged, a column is missing, or a time or a number is none.
        ServiceError: S3 or the database is away.
    """
    source = spec.monitor.labels.source if spec.monitor.labels else None
    if source is None:
        return 0
    if spec.ingest.key is None:
        raise SpecError(
            f"model {spec.model}: monitor.labels.source",
            "needs ingest.key to join labels with predictions, got none",
            "Name the key, or post labels by request id to serving.",
        )
    asked = _asking(spec, source, start, end)
    with tempfile.TemporaryDirectory(prefix="evergreen-labels-") as folder:
        drop = Drop(frozenset(spec.ingest.drop))
        access = Access(end, Path(folder), sql_url, s3_options, drop)
        try:
            reader, where = open_source(asked, access)
        except DataError as error:
            if error.rule != nothing_matches("").rule:
                raise
            return 0  # none has come yet; a window that stays without labels is reported as such
        found = pa.concat_tables(
            [LABELS.empty_table(), *_labels(asked, reader, where, start, end, now)]
        )
    whole = (start, end) if spec.ingest.time else (_EVER, None)  # without a time, filed by arrival
    fresh = _unknown(found, read_labels(store, spec.model, *whole))
    return write_labels(store, spec.model, fresh, batch=now.isoformat()) if fresh.num_rows else 0


def _asking(spec: Spec, source: Source, start: datetime, end: datetime) -> Spec:
    """Return the spec with the labels' source in place of the data's, and the stretch of time as its window."""
    ingest = spec.ingest.model_copy(update={"source": source, "window": end - start})
    return spec.model_copy(update={"ingest": ingest})


def _labels(
    spec: Spec, reader: Reader, where: str, start: datetime, end: datetime, now: datetime
) -> Iterator[pa.Table]:
    """Yield the rows of the source that are labels of the stretch of time."""
    ingest, rules = spec.ingest, Rules.of(spec, None)
    roles = {"key": ingest.key, "time": ingest.time, "target": ingest.target}
    named = {role: name for role, name in roles.items() if name is not None}
    for role, name in named.items():
        if name not in reader.names:
            what = f"model {spec.model}: monitor.labels.source {where}"
            raise no_column(what, role, name, reader.names)
    votes = {role: Votes(reader.text) for role in named}
    for columns in _columns(reader, named, rules):
        for role, values in columns.items():
            votes[role].add(values, rules, named[role])
    types = {role: vote.decide(rules, named[role]) for role, vote in votes.items()}
    types |= {"time": "timestamp"} if ingest.time else {}
    for columns in _columns(reader, named, rules):
        typed = {}
        for role, values in columns.items():
            try:
                typed[role] = to_type(
                    values, types[role], named[role], rules.format_of(named[role])
                )
            except Misfit as error:
                bad = first_misfit(values, types[role], rules, named[role])
                raise DataError(
                    f"model {spec.model}: monitor.labels.source {where}",
                    f"{named[role]!r} must be a {types[role]} in every row, got {bad!r}",
                    "Correct the labels (or ingest.time_format).",
                ) from error
        yield _rows(spec, typed, start, end, now)


def _columns(
    reader: Reader, named: Mapping[str, str], rules: Rules
) -> Iterator[dict[str, pa.Array]]:
    for batch in reader.batches(None):
        columns = {}
        for role, name in named.items():
            place = batch.schema.get_field_index(name)
            values = batch.column(place) if place >= 0 else pa.nulls(batch.num_rows)
            if reader.text and pa.types.is_string(values.type):
                values = clean_texts(values, rules.missing)
            columns[role] = values
        yield columns


def _rows(
    spec: Spec, typed: Mapping[str, pa.Array], start: datetime, end: datetime, now: datetime
) -> pa.Table:
    """Return one batch in the form of the store, without what is no label of the stretch of time."""
    time = typed.get("time", pa.nulls(len(typed["key"]), _TIME))
    kept = pc.and_(pc.is_valid(typed["key"]), pc.is_valid(typed["target"]))
    if "time" in typed:
        inside = pc.and_(
            pc.greater_equal(time, pa.scalar(start, _TIME)), pc.less(time, pa.scalar(end, _TIME))
        )
        kept = pc.and_(kept, inside)
    kept = pc.fill_null(kept, False)
    time, key, target = (v.filter(kept) for v in (time, typed["key"], typed["target"]))
    label = _texts(target)
    if spec.task == "regression":
        label = _numbers(spec, target)
    none = pa.nulls(len(key))
    columns = [
        none.cast(pa.string()),
        none.cast(pa.int32()),
        _texts(key),
        time.cast(_TIME),
        label,
        pa.array([now] * len(key), _TIME),
    ]
    return pa.Table.from_arrays(columns, schema=LABELS)


def _texts(values: pa.Array) -> pa.Array:
    if pa.types.is_string(values.type):
        return values
    return pa.array(category_texts(pd.Series(values.to_pandas())), pa.string())


def _numbers(spec: Spec, values: pa.Array) -> pa.Array:
    if pa.types.is_string(values.type) or pa.types.is_timestamp(values.type):
        got = values[0].as_py() if len(values) else values.type
        raise DataError(
            f"model {spec.model}: monitor.labels.source",
            f"{spec.ingest.target!r} must hold numbers, got {got!r}",
            "Correct the labels.",
        )
    return pa.array([repr(float(v)) for v in values.to_pylist()], pa.string())


def _unknown(found: pa.Table, stored: pa.Table) -> pa.Table:
    """Return the labels that are not stored yet, or were another label; of doubles in the source the last."""
    numbered = found.append_column("n", pa.array(range(found.num_rows), pa.int64()))
    with parts.scratch() as work, duck.connect(work) as connection:
        connection.register("found", numbered)
        connection.register("stored", stored)
        fresh = connection.sql(_FRESH).to_arrow_table()
    return fresh.select(LABELS.names).cast(LABELS)
