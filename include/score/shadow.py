"""Shadow: what a challenger would have said about a partition, for the log only.

Owns that its rows stand beside the champion's: the same rows, under the same request id and places. So a model
without live traffic has the evidence that a staged promotion is judged by.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from include.errors import ConflictError
from include.score.answers import ask
from include.score.log import Entry, LogFile, request_prefix, write_log
from include.score.rows import Wanted, to_inputs
from include.score.score import Work
from include.serving.engine import Engine

_MOST_FAILED = 1000  # it has shown enough; each further row would be asked on its own


@dataclass(frozen=True)
class Shadowed:
    """What a challenger did with a partition.

    Attributes:
        version: The challenger.
        rows: How many it was asked about.
        failed: Those of them it has no answer for.
    """

    version: str
    rows: int
    failed: int


def shadow(work: Work, *, champion: str, source: str) -> Shadowed:
    """Score a partition with a challenger. Safe to repeat.

    Rows it has no answer for are logged as its failures; after a thousand of them it is not asked any more.

    Args:
        work: With the challenger's engine.
        champion: The version that scored the partition.
        source: Digest of the rows it saw.

    Raises:
        DataError: A column the challenger needs is missing, or a value is of another type: as champion it could
            not score this source.
        ConflictError: The source does not hold the rows the champion saw: nothing was logged.
        ServiceError: The store is away.
    """
    engine, wanted = work.engine, Wanted.of(work.spec, work.engine)
    asked = request_prefix(work.spec.model, work.partition, champion)
    entry = Entry(asked, "shadow", work.at, work.now)
    done = tried = failed = 0
    with LogFile(work.folder / "log.parquet", engine, wanted, entry) as log:
        for piece in wanted.pieces(work.rows):  # to the end, for the digest
            if failed < _MOST_FAILED:
                failures = _try(log, engine, wanted, piece, done, _MOST_FAILED - failed)
                failed, tried = failed + failures, tried + piece.num_rows
            done += piece.num_rows
            work.progress(done)
    if work.rows.digest() != source:
        raise ConflictError(
            work.rows.where,
            f"must hold the rows that version {champion} scored, in their order, got others",
            "Score the partition again; give an SQL query an ORDER BY.",
        )
    write_log(work.store, work.spec.model, log.path)
    return Shadowed(engine.version, tried, failed)


def _try(
    log: LogFile, engine: Engine, wanted: Wanted, piece: pa.Table, done: int, most: int
) -> int:
    """Log what the challenger says about a piece; return on how many rows it failed, at most `most`."""
    inputs, failed = to_inputs(piece, wanted), 0
    for answer in ask(engine, inputs, 0, piece.num_rows) if piece.num_rows else ():
        log.add(piece.slice(answer.first, answer.count), done, inputs, answer)
        failed += answer.prediction is None
        if failed == most:
            break
    return failed
