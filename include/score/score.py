"""Score: the champion's predictions for one partition of rows.

Owns the order of things: read, predict and write to local files piece by piece, so that memory stays bounded and
nothing is seen before everything was computed; then the output, in one step; then the prediction log. Each step can
be repeated: a task that is killed anywhere is simply run again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq

from include.errors import DataError
from include.score.answers import ask
from include.score.log import Entry, LogFile, request_prefix, write_log
from include.score.output import output_rows, output_schema
from include.score.rows import Rows, Wanted, to_inputs
from include.score.targets import FILE, Destination
from include.serving.engine import Engine
from include.spec.schema import Spec
from include.store import parts
from include.store.files import Store


@dataclass(frozen=True)
class Work:
    """What a scoring works with.

    Attributes:
        spec: Names the model, its key and its time.
        engine: The version.
        rows: The partition's rows, not read yet.
        store: Where the prediction log is.
        partition: Its name.
        at: Event time of the rows of a model without a time column, aware.
        now: The time, aware.
        folder: Empty folder for what is not finished; removed afterwards by the caller.
        progress: Called with the number of rows done so far.
    """

    spec: Spec
    engine: Engine
    rows: Rows
    store: Store
    partition: str
    at: datetime
    now: datetime
    folder: Path
    progress: Callable[[int], None] = lambda _: None


@dataclass(frozen=True)
class Scored:
    """One partition, scored.

    Attributes:
        version: The version that said it.
        rows: How many.
        uri: Where the predictions are.
        source: Digest of the rows as they were read.
    """

    version: str
    rows: int
    uri: str
    source: str


def score(work: Work, destination: Destination) -> Scored:
    """Score a partition and put the predictions in their place. Safe to repeat.

    Raises:
        DataError: A column is missing, a value is of another type, a row has no time, or the model has no answer
            for a row: nothing was written.
        SpecError: Two columns of the output would have one name.
        ServiceError: The target or the store is away.
    """
    destination.check()
    engine, wanted = work.engine, Wanted.of(work.spec, work.engine)
    asked = request_prefix(work.spec.model, work.partition, engine.version)
    entry = Entry(asked, "batch", work.at, work.now)
    path, done = work.folder / FILE, 0
    with ExitStack() as stack:
        log = stack.enter_context(LogFile(work.folder / "log.parquet", engine, wanted, entry))
        writer: pq.ParquetWriter | None = None
        for piece in wanted.pieces(work.rows):
            if writer is None:
                schema = output_schema(engine, wanted, piece)
                made = pq.ParquetWriter(path, schema, **parts.write_options(schema))
                writer = stack.enter_context(made)
            inputs = to_inputs(piece, wanted)
            for answer in ask(engine, inputs, 0, piece.num_rows) if piece.num_rows else ():
                if answer.prediction is None:
                    raise DataError(
                        work.rows.where,
                        f"version {engine.version} must have an answer for every row, got none for row "
                        f"{done + answer.first}: {answer.error}",
                        "Correct the row at the source: none is left out.",
                    )
                some = piece.slice(answer.first, answer.count)
                writer.write_table(output_rows(engine, wanted, some, answer.prediction, schema))
                log.add(some, done, inputs, answer)
            done += piece.num_rows
            work.progress(done)
    uri = destination.write(work.partition, path)
    write_log(work.store, work.spec.model, log.path)
    return Scored(engine.version, done, uri, work.rows.digest())


def partition_time(partition: str, zone: str, otherwise: datetime) -> datetime:
    """Return the event time of a partition's rows where the model has no time column.

    Args:
        partition: Its name.
        zone: IANA time zone.
        otherwise: The time for a name that is no date, aware.

    Returns:
        Midnight of the date that is its name, else `otherwise`.
    """
    try:
        moment = datetime.strptime(partition, "%Y-%m-%d")
    except ValueError:
        return otherwise
    return moment.replace(tzinfo=ZoneInfo(zone))
