"""Ingest: copies what a source holds into a snapshot.

Owns the order of things: open the source, find the columns' types, write, name, commit. Rows stream through, so
memory stays bounded; nothing is stored before everything was read; and the same rows give the same snapshot id.
"""

from __future__ import annotations

import difflib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from include.errors import DataError, SpecError
from include.ingest.column_types import Rules, Votes, first_misfit
from include.ingest.conversion import Misfit, clean_texts, to_type
from include.ingest.readers import Reader
from include.ingest.rows import Drop
from include.ingest.sources import Access, open_source
from include.ingest.writer import SnapshotWriter, read_back
from include.settings import get_settings
from include.spec.schema import Spec
from include.store.features import no_column
from include.store.files import Store
from include.store.folder import disk_error
from include.store.snapshots import ColumnType, Manifest, commit_snapshot, read_manifest

_LEFTOVER_AGE = timedelta(days=1)


@dataclass(frozen=True)
class IngestResult:
    """What ingest made.

    Attributes:
        manifest: The snapshot's manifest as stored.
        new: False where the same rows were there already.
    """

    manifest: Manifest
    new: bool


def ingest(
    spec: Spec,
    store: Store,
    *,
    now: datetime,
    as_of: datetime | None = None,
    expected: Manifest | None = None,
    sql_url: str | None = None,
    s3_options: Mapping[str, Any] | None = None,
    workdir: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> IngestResult:
    """Copy the rows of a spec's source into a snapshot.

    Args:
        spec: Names the source and what its columns mean.
        store: Where the snapshot goes.
        now: Time of the run, aware.
        as_of: The time to act as if it were, aware, with rows up to it only; None for `now`, with all rows.
        expected: The champion's manifest: its types are used where every value fits without loss.
        sql_url: SQLAlchemy URL of an `sql` source; None means the environment variable the spec names.
        s3_options: Further arguments of `boto3.client` for an `s3` source, such as keys; None means boto3's chain.
        workdir: Folder for temporary files; None means `work` under `EVERGREEN_HOME`.
        progress: Called now and then with the number of rows written so far.

    Raises:
        SpecError: A function or query the spec names is wrong, or `as_of` is given and no time column.
        DataError: Nothing to read, a damaged file, no rows, a column missing, a row without a time.
        ServiceError: S3, a database or the disk did not do its part.
    """
    if as_of is not None and spec.ingest.time is None:
        raise SpecError(
            f"model {spec.model}: ingest.time",
            "must be given to see only the rows of a time before, got none",
            "Name the column of event times, or run without as_of.",
        )
    with _work_folder(workdir or get_settings().home / "work", spec.model) as folder:
        spool = folder / "spool"
        spool.mkdir()
        drop = Drop(frozenset(spec.ingest.drop))
        reader, source = open_source(spec, Access(as_of or now, spool, sql_url, s3_options, drop))
        _check_columns(spec, reader, drop)
        rules = Rules.of(spec, expected)
        writer = _write(spec, reader, rules, folder, progress, until=as_of)
        file = writer.file()
        described = writer.columns()
        at = next((c for c in described if c.name == spec.ingest.time), None)
        manifest = Manifest(
            model=spec.model,
            snapshot_id=writer.snapshot_id(),
            rows=writer.rows,
            columns=described,
            files=(file,),
            time_start=str(at.low) if at else None,
            time_end=str(at.high) if at else None,
            source=source,
            created_at=now.astimezone(UTC).isoformat(),
        )
        if commit_snapshot(store, manifest, {file.name: writer.path}):
            return IngestResult(manifest, new=True)
        return IngestResult(read_manifest(store, spec.model, manifest.snapshot_id), new=False)


@contextmanager
def _work_folder(base: Path, model: str) -> Iterator[Path]:
    """Give a fresh folder and remove it afterwards; also what killed runs of the model left a day ago."""
    try:
        base.mkdir(parents=True, exist_ok=True)
        for old in base.glob(f"{model}-*"):
            if time.time() - old.stat().st_mtime > _LEFTOVER_AGE.total_seconds():
                shutil.rmtree(old, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{model}-", dir=base))
    except OSError as error:
        raise disk_error(base, error) from error
    try:
        yield folder
    except OSError as error:  # readers have turned theirs into DataError
        raise disk_error(folder, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_columns(spec: Spec, reader: Reader, drop: Drop) -> None:
    ingest = spec.ingest
    roles = (("target", ingest.target), ("key", ingest.key), ("time", ingest.time))
    for role, name in roles:
        if name is not None and name not in reader.names:
            raise no_column(f"model {spec.model}: ingest.{role}", role, name, reader.names)
    for name in sorted(drop.names - drop.met):
        # The column may be gone at the source; but where a very similar one is there, a typo would leak it.
        if difflib.get_close_matches(name, reader.names, n=1, cutoff=0.8):
            where = f"model {spec.model}: ingest.drop"
            raise no_column(where, "dropped column", name, reader.names)


# --- types and rows -------------------------------------------------------------------------------------


def _write(
    spec: Spec,
    reader: Reader,
    rules: Rules,
    folder: Path,
    progress: Callable[[int], None] | None,
    *,
    until: datetime | None,
) -> SnapshotWriter:
    """Write all rows into one file of the right types.

    The types the first rows suggest are taken for right until a value does not fit; only then are all values
    looked at, which costs a second reading. Both ways give the same types: a type that the first rows need and
    that all rows fit is the one that looking at all of them gives.
    """
    types = _decide(reader, rules, reader.sample())
    limits: dict[str, Any] = {
        "time": spec.ingest.time,
        "window": spec.ingest.window,
        "until": until,
    }
    first, second = folder / "first.parquet", folder / "second.parquet"
    try:
        return _write_as(spec, reader, rules, types, first, progress, limits, eager=True)
    except Misfit:
        first.unlink()
        types = _decide(reader, rules, reader.batches(None))
    try:
        return _write_as(spec, reader, rules, types, second, progress, limits, eager=False)
    except Misfit as error:
        raise DataError(
            f"model {spec.model}: ingest.source",
            f"must not change while it is read, got: {error}",
            "Run again when nobody writes to it.",
        ) from error


def _decide(
    reader: Reader, rules: Rules, batches: Iterator[pa.RecordBatch]
) -> dict[str, ColumnType]:
    votes = {name: Votes(reader.text) for name in reader.names}
    for batch in batches:
        for name in batch.schema.names:
            values = batch.column(name)
            if reader.text:
                values = clean_texts(values, rules.missing)
            votes[name].add(values, rules, name)
            if name == rules.time and "timestamp" not in votes[name].possible:
                raise _no_time(values, rules, name)
    return {name: vote.decide(rules, name) for name, vote in votes.items()}


def _no_time(values: pa.Array, rules: Rules, name: str) -> DataError:
    form = f"the form {rules.time_format!r}" if rules.time_format else "ISO 8601 form"
    return DataError(
        f"ingest.time {name!r}",
        f"must be a time in {form} in every row, got {first_misfit(values, 'timestamp', rules, name)!r}",
        "Correct the data, or set ingest.time_format (strptime).",
    )


def _write_as(
    spec: Spec,
    reader: Reader,
    rules: Rules,
    types: Mapping[str, ColumnType],
    path: Path,
    progress: Callable[[int], None] | None,
    limits: Mapping[str, Any],
    *,
    eager: bool,
) -> SnapshotWriter:
    with SnapshotWriter(path, types, **limits) as writer:
        for batch in reader.batches(types if eager else None):
            writer.add(_converted(batch, reader, rules, types))
            if progress is not None:
                progress(writer.rows)
    if writer.missing_times:
        raise DataError(
            f"model {spec.model}: ingest.time {spec.ingest.time!r}",
            f"every row must have a time, got {writer.missing_times} rows without",
            "Correct the data: such a row can be neither ordered nor held out.",
        )
    if not writer.rows:
        raise DataError(
            f"model {spec.model}: ingest.source",
            "must hold at least one row, got none",
            "Bring data.",
        )
    if not writer.has_old_rows:
        return writer
    again = path.with_name(f"window-{path.name}")
    with SnapshotWriter(again, types, newest=writer.newest, **limits) as kept:
        for batch in read_back(path):
            kept.add(batch)
    path.unlink()
    return kept


def _converted(
    batch: pa.RecordBatch, reader: Reader, rules: Rules, types: Mapping[str, ColumnType]
) -> pa.RecordBatch:
    columns = []
    for name, kind in types.items():
        place = batch.schema.get_field_index(name)
        values = batch.column(place) if place >= 0 else pa.nulls(batch.num_rows)
        if reader.text and pa.types.is_string(values.type):
            values = clean_texts(values, rules.missing)
        columns.append(to_type(values, kind, name, rules.format_of(name)))
    return pa.RecordBatch.from_arrays(columns, list(types))
