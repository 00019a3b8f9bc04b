"""Predictions and the truth that came later: which label belongs to which logged prediction.

Owns the rule. A label that names a request and a row belongs to that prediction. Otherwise a dated label belongs to its
key's newest prediction at or before it, where it came true within the labels' delay; of several the earliest counts,
which is the prediction's own time's where there is one. A label without a time belongs to every prediction of its key.
"""

# ruff: noqa: S608  queries are put together from positions and numbers, never from names or values of the data

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from include.scoring.rows import Rows

SAMPLE_ROWS = 100_000
#: Columns of the log a label is joined by, and those a metric may need.
_BY = ("_request_id", "_row", "_key", "_time", "_error")
_ANSWERS = ("_score", "_prediction", "_probability")


@dataclass(frozen=True)
class Labelled:
    """A window's predictions with their labels.

    Attributes:
        predictions: Answers the window holds; requests that failed are not among them.
        labelled: How many of them have a label.
        rows: `label` (text), `_score`, `_prediction` and, where asked for, `_probability` of the labelled ones, at
            most `SAMPLE_ROWS` drawn at random.
    """

    predictions: int
    labelled: int
    rows: pa.Table

    @property
    def coverage(self) -> float | None:
        """Share of the predictions that have a label; None where there are no predictions."""
        return self.labelled / self.predictions if self.predictions else None


def join_labels(
    path: Path,
    labels: pa.Table,
    delay: timedelta,
    *,
    probability: bool = False,
    seed: int = 0,
    by_arrival: bool = False,
) -> Labelled:
    """Join a window of the prediction log with labels, as of each prediction's time.

    Args:
        path: Parquet file with the columns of the prediction log.
        labels: Columns `request_id`, `row`, `key`, `time`, `label`, `received_at`; more of them than belong here
            do no harm.
        delay: How long after a prediction its label may be dated.
        probability: Whether `_probability` is wanted, which takes memory.
        seed: Seed of the sample.
        by_arrival: Order rows by when both prediction and label were there, and keep the first ones, no sample: so
            the first n stay the same while more arrive. A corrected label counts from its correction on.

    Raises:
        DataError: The file cannot be read.
    """
    wanted = _ANSWERS if probability else _ANSWERS[:-1]
    with Rows([path]) as rows:
        rows.offer("given", labels)
        total = int(
            rows.one(f"SELECT count(*) FROM {rows.source} WHERE {rows.at['_error']} IS NULL")[0]
        )
        found = rows.table(_query(rows, wanted, round(delay.total_seconds() * 1e6), by_arrival))
    labelled = found.num_rows
    if by_arrival:
        found = found.slice(0, SAMPLE_ROWS)
    elif labelled > SAMPLE_ROWS:
        chosen = np.random.default_rng(seed).choice(labelled, SAMPLE_ROWS, replace=False)
        found = found.take(pa.array(np.sort(chosen)))
    return Labelled(total, labelled, found)


def _query(rows: Rows, wanted: tuple[str, ...], delay_us: int, by_arrival: bool) -> str:
    """Return the join. Rows come in an order of their own, so that a sample is the same every time."""
    log = {name: rows.at[name] for name in (*_BY, *wanted)}
    logged = f", {rows.at['_logged_at']} AS logged" if by_arrival else ""
    came = "coalesce(by_place.came, dated.came, by_entity.came)"
    arrived = f", greatest({came}, logged) AS arrived" if by_arrival else ""
    order = "arrived, moment, request, place" if by_arrival else "moment, request, place"
    answers = "".join(f", {log[name]} AS {name}" for name in wanted)
    return f"""
        WITH log AS (
            SELECT {log["_request_id"]} AS request, {log["_row"]} AS place, {log["_key"]} AS entity,
                epoch_us({log["_time"]}) AS moment{answers}{logged}
            FROM {rows.source} WHERE {log["_error"]} IS NULL
        ), by_place AS (
            SELECT request_id AS request, coalesce("row", 0) AS place, arg_max(label, received_at) AS label,
                max(received_at) AS came
            FROM given WHERE request_id IS NOT NULL AND label IS NOT NULL GROUP BY ALL
        ), by_time AS (
            SELECT key AS entity, epoch_us("time") AS moment, arg_max(label, received_at) AS label,
                max(received_at) AS came
            FROM given WHERE key IS NOT NULL AND "time" IS NOT NULL AND label IS NOT NULL GROUP BY ALL
        ), by_entity AS (
            SELECT key AS entity, arg_max(label, received_at) AS label,
                max(received_at) AS came
            FROM given WHERE key IS NOT NULL AND "time" IS NULL AND label IS NOT NULL GROUP BY ALL
        ), moments AS (
            SELECT entity, moment, lead(moment) OVER (PARTITION BY entity ORDER BY moment) AS following
            FROM (SELECT DISTINCT entity, moment FROM log WHERE entity IS NOT NULL)
        ), dated AS (
            SELECT moments.entity, moments.moment, by_time.label, by_time.came
            FROM moments
            ASOF JOIN by_time ON moments.entity = by_time.entity AND moments.moment <= by_time.moment
            WHERE by_time.moment <= moments.moment + {delay_us:d}
                AND (following IS NULL OR by_time.moment < following)
        ), joined AS (
            SELECT log.*, coalesce(by_place.label, dated.label, by_entity.label) AS label{arrived}
            FROM log
            LEFT JOIN dated ON log.entity = dated.entity AND log.moment = dated.moment
            LEFT JOIN by_place ON log.request = by_place.request AND log.place = by_place.place
            LEFT JOIN by_entity ON log.entity = by_entity.entity
        )
        SELECT label, {", ".join(wanted)} FROM joined WHERE label IS NOT NULL
        ORDER BY {order}
    """
