"""What a rollout's step has shown so far, read from the prediction log: all replicas' rows, as durable as the log.

Owns the queries. Rows count by when they were logged, so that events dated otherwise are evidence too, and once, however
often a batch was scored. A request is the rows of one answer, or the one row of a failure; what the caller did wrong is
neither.
"""

# ruff: noqa: S608  queries are put together from names of the log's own columns, numbers and escaped text

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from include.deploy import agreement
from include.deploy.agreement import Agreement
from include.deploy.labelled import compare_labelled
from include.errors import DataError
from include.scoring.bootstrap import Interval
from include.scoring.metrics import Floats
from include.spec.schema import Spec
from include.store import duck, parts
from include.store.files import Store
from include.store.predictions import PREDICTIONS, predictions_root
from include.store.recent import recent_parts

SAMPLE = 50_000  # latencies and scores of each side, drawn at random where there are more
#: HTTP statuses of a version's own failures: no finite answer, it raised, it never came back.
FAILURES = ("422", "500", "504")
_MEMORY_MB = 512
_MOST_CLASSES = 1000


def _none() -> Floats:
    return np.empty(0)


@dataclass(frozen=True)
class Side:
    """What one version did since the step began.

    Attributes:
        requests: Answered ones and failures.
        failures: Requests it had no answer to.
        rows: Predictions.
        units: Different keys (for rows without one: requests) behind them.
        latencies: Milliseconds of live requests, a sample; none where only batches were scored.
        scores: Of the predictions, a sample; none for classes without a probability.
        classes: How often each was answered; none for numbers.
    """

    requests: int = 0
    failures: int = 0
    rows: int = 0
    units: int = 0
    latencies: Floats = field(default_factory=_none, repr=False)
    scores: Floats = field(default_factory=_none, repr=False)
    classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """Both sides of a rollout's step.

    Attributes:
        champion: The version that answers the rest.
        challenger: The one on trial.
        paired: Both sides answered the very same requests.
        agreement: How far they agree about those; None where not paired.
        disagree: Share of those that got another class; None where not paired, and for numbers.
        mirrored: Share of the champion's live answers that the challenger was asked for, too; None where not paired,
            or where there are none.
        labels: Improvement of the challenger in the primary metric, on labelled rows of each side; None without.
        doubt: Why there is no `labels`.
        problem: Why the log cannot be read; then nothing else counts.
    """

    champion: Side
    challenger: Side
    paired: bool = False
    agreement: Agreement | None = None
    disagree: float | None = None
    mirrored: float | None = None
    labels: Interval | None = None
    doubt: str = ""
    problem: str = ""


def unreadable(problem: str) -> Evidence:
    """Return what is known where the log cannot be read: nothing."""
    return Evidence(Side(), Side(), problem=problem)


def gather(
    spec: Spec, store: Store, *, mode: str, champion: str, challenger: str, since: datetime
) -> Evidence:
    """Read the log since a moment.

    Args:
        spec: The model's spec.
        store: Where the log is.
        mode: canary, shadow or ab.
        champion: Version.
        challenger: Version.
        since: When the step began, aware; rows logged earlier do not count.

    Raises:
        ServiceError: The store is away, or the log does not hold still.
        DataError: A part cannot be read.
    """
    root = predictions_root(spec.model)

    def read() -> Evidence:
        keys = recent_parts(store, spec.model, since)
        with parts.scratch() as work:
            paths = [parts.local_part(store, key, work) for key in keys]
            if not paths:
                return Evidence(Side(), Side(), paired=mode == "shadow")
            return _read(spec, store, paths, work, mode, (champion, challenger), since)

    try:
        return parts.read_stable(root, read)
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise DataError(
            root,
            f"must be Parquet that can be read, got {str(error).splitlines()[0]}",
            "Look which part is damaged; `evergreen status` names the store.",
        ) from error


def _read(
    spec: Spec,
    store: Store,
    paths: list[Path],
    work: Path,
    mode: str,
    versions: tuple[str, str],
    since: datetime,
) -> Evidence:
    champion, challenger = versions
    paired = mode == "shadow"
    with duck.connect(work, memory_mb=_MEMORY_MB) as db:
        _views(db, paths, since)
        arm = "shadow" if paired else "challenger"
        _keep(db, "ours", f"_version = {_text(challenger)} AND _arm = '{arm}'")
        arms = (
            "'champion', 'batch'" if paired else "'champion'"
        )  # a batch is no part of split traffic
        _keep(db, "theirs", f"_version = {_text(champion)} AND _arm IN ({arms})")
        numbers = spec.task != "multiclass"
        agreed, disagree, mirrored = None, None, None
        if not paired:
            sides = [_side(db, name, name, numbers) for name in ("theirs", "ours")]
        else:
            _pair(db)
            sides = [
                _side(db, "theirs_paired", "theirs_paired", numbers),
                _side(db, "ours", "ours_paired", numbers),
            ]
            agreed = _agreement(db, min(side.units for side in sides))
            disagree, mirrored = _disagree(db, spec.task), _mirrored(db)
        labels, doubt = None, "the spec names no labels"
        if spec.monitor.labels is not None:
            tables = []
            for name in ("theirs_paired" if paired else "theirs", "ours"):
                path = work / f"{name}.parquet"
                wanted = ", ".join(PREDICTIONS.names)
                db.execute(f"COPY (SELECT {wanted} FROM {name}) TO {_text(path)} (FORMAT parquet)")
                tables.append(path)
            labels, doubt = compare_labelled(spec, store, tables[0], tables[1])
    return Evidence(sides[0], sides[1], paired, agreed, disagree, mirrored, labels, doubt)


def _views(db: duckdb.DuckDBPyConnection, paths: list[Path], since: datetime) -> None:
    """Make `log` of the parts' own columns, by position: names of features differ and may collide."""
    groups: dict[tuple[str, ...], list[Path]] = {}
    for path in paths:
        groups.setdefault(tuple(pq.read_schema(path).names), []).append(path)
    selects = []
    for names, files in groups.items():
        at = {name: f"c{place}" for place, name in enumerate(names)}
        own = ", ".join(f"{at[name]} AS {name}" for name in PREDICTIONS.names)
        selects.append(f"SELECT {own} FROM {duck.source(files)} AS t({', '.join(at.values())})")
    moment = int(since.astimezone(UTC).timestamp() * 1e6)
    db.execute(
        f"CREATE VIEW log AS SELECT * FROM ({' UNION ALL '.join(selects)}) "
        f"WHERE epoch_us(_logged_at) >= {moment}"
    )


def _keep(db: duckdb.DuckDBPyConnection, name: str, where: str) -> None:
    statuses = ", ".join(_text(status) for status in FAILURES)
    failed = f"coalesce(left(_error, 3) IN ({statuses}), false)"
    # A partition scored again is the same rows again; after a merge of parts its first ones are there, too.
    db.execute(
        f"CREATE TEMP TABLE {name} AS "
        f"SELECT DISTINCT ON (_request_id, _row, _time, _version, _arm, _key) *, {failed} AS failed FROM log "
        f"WHERE {where} AND (_error IS NULL OR {failed}) ORDER BY _logged_at"
    )


def _pair(db: duckdb.DuckDBPyConnection) -> None:
    """Keep of both sides the rows that the other one answered, too, one to one: callers may use one id for all."""
    for name in ("theirs", "ours"):
        db.execute(
            f"CREATE TEMP TABLE {name}_once AS SELECT DISTINCT ON (_request_id, _row, _time) * FROM {name} "
            f"WHERE NOT failed ORDER BY _logged_at"
        )
    db.execute(
        f"CREATE TEMP TABLE theirs_paired AS SELECT * FROM theirs_once SEMI JOIN ours_once {_SAME}"
    )
    # A batch keeps nobody waiting: its latency is no request's.
    db.execute(
        f"CREATE TEMP TABLE ours_paired AS SELECT o.* REPLACE (t._arm AS _arm) FROM ours_once o "
        f"JOIN theirs_once t {_SAME}"
    )


_SAME = "USING (_request_id, _row, _time)"


def _agreement(db: duckdb.DuckDBPyConnection, units: int) -> Agreement:
    """Return how far both say the same about the same rows: by scores, or classes where there are none."""
    both = f"theirs_paired t JOIN ours_paired o {_SAME}"
    pairs = db.sql(
        f"SELECT first, second FROM (SELECT t._score AS first, o._score AS second FROM {both} "
        f"WHERE t._score IS NOT NULL AND o._score IS NOT NULL) "
        f"USING SAMPLE reservoir({SAMPLE} ROWS) REPEATABLE (7)"
    ).to_arrow_table()
    if pairs.num_rows:
        theirs, ours = (column.to_numpy().astype(float) for column in pairs.columns)
        return agreement.of_scores(theirs, ours, min(units, pairs.num_rows))
    counted = db.sql(
        f"SELECT coalesce(t._prediction, ''), coalesce(o._prediction, ''), count(*) FROM {both} GROUP BY ALL"
    ).fetchall()
    return agreement.of_classes({(first, second): n for first, second, n in counted}, units)


def _disagree(db: duckdb.DuckDBPyConnection, task: str) -> float | None:
    if task == "regression":
        return None
    (differing,) = _one(
        db,
        f"SELECT avg((t._prediction IS DISTINCT FROM o._prediction)::INT) FROM theirs_paired t "
        f"JOIN ours_paired o {_SAME}",
    )
    return None if differing is None else float(differing)


def _mirrored(db: duckdb.DuckDBPyConnection) -> float | None:
    """Return how many of the champion's live answers got as far as the challenger, which may have failed on them."""
    answers, asked = _one(
        db,
        "SELECT count(*), count(*) FILTER ((_request_id, _logged_at) IN (SELECT (_request_id, _logged_at) FROM ours)) "
        "FROM theirs WHERE NOT failed AND _row = 0 AND _arm = 'champion'",
    )
    return float(asked / answers) if answers else None


def _side(db: duckdb.DuckDBPyConnection, asked: str, answered: str, numbers: bool) -> Side:
    """Return one side: requests and failures of relation `asked`, answers of relation `answered`."""
    requests, failures = _one(
        db, f"SELECT count(*) FILTER (_row = 0), count(*) FILTER (failed) FROM {asked}"
    )
    rows, units = _one(
        db,
        f"SELECT count(*), approx_count_distinct(coalesce('k' || _key, 'r' || _request_id)) "
        f"FROM {answered} WHERE NOT failed",
    )
    live = f"{answered} WHERE NOT failed AND _row = 0 AND _arm <> 'batch'"
    scores = _sample(db, "_score", f"{answered} WHERE NOT failed") if numbers else _none()
    counts = {}
    if not len(scores):
        counts = dict(
            db.sql(
                f"SELECT coalesce(_prediction, ''), count(*) FROM {answered} WHERE NOT failed "
                f"GROUP BY 1 ORDER BY 2 DESC LIMIT {_MOST_CLASSES}"
            ).fetchall()
        )
    return Side(requests, failures, rows, units, _sample(db, "_latency_ms", live), scores, counts)


def _sample(db: duckdb.DuckDBPyConnection, column: str, relation: str) -> Floats:
    query = (
        f"SELECT v FROM (SELECT {column} AS v FROM {relation} AND {column} IS NOT NULL) "
        f"USING SAMPLE reservoir({SAMPLE} ROWS) REPEATABLE (7)"
    )
    values: Floats = db.sql(query).to_arrow_table().column(0).to_numpy().astype(float)
    return values


def _one(db: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    return tuple(db.sql(query).fetchall()[0])


def _text(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"
