"""Live traffic for tests: predictions a version would have made of simulated days, as serving logs them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from include.registry.gateway import Registry
from include.simulator.churn import NO_DRIFT, Drift, daily_batch
from include.store.features import category_text, model_frame
from include.store.files import Store
from include.store.labels import LABELS, write_labels
from include.store.predictions import PREDICTIONS, prediction_schema, write_part
from tests.models import START

SHIFT = Drift(charges=1.8, calls=4.0)  # nobody could miss it


def day(number: int) -> date:
    """Return a day of the tests' world; `tests.models` trains on the first ones."""
    return START + timedelta(days=number)


def end_of(number: int) -> str:
    """Return the moment a day's window ends, as a run's parameter."""
    return f"{day(number + 1).isoformat()}T00:00:00Z"


def log_day(
    store: Store,
    registry: Registry,
    cache: Path,
    model: str,
    number: int,
    *,
    version: str = "1",
    rows: int = 300,
    drift: Drift = NO_DRIFT,
    labels: bool = False,
) -> int:
    """Log a day's predictions of a version; the labels of the day as well where asked. Safe to repeat.

    Returns:
        How many.
    """
    found = registry.get_version(model, version)
    assert found is not None
    package = registry.load(found, cache)
    frame = daily_batch(day(number), rows=rows, seed=7, drift=drift)
    inputs = model_frame(frame, package.features)
    scores = package.pipeline.predict_proba(inputs)[:, 1]
    texts = [category_text(value) for value in package.classes]
    times = [moment.to_pydatetime() for moment in frame["observed_at"]]
    columns: dict[str, Any] = {
        "_request_id": list(frame["customer_id"]),
        "_row": [0] * rows,
        "_key": list(frame["customer_id"]),
        "_time": times,
        "_logged_at": times,
        "_version": [version] * rows,
        "_arm": ["champion"] * rows,
        "_prediction": [texts[int(score >= 0.5)] for score in scores],
        "_score": list(map(float, scores)),
        "_probability": [None] * rows,
        "_latency_ms": [1.0] * rows,
        "_error": [None] * rows,
    }
    assert list(columns) == PREDICTIONS.names
    schema = prediction_schema(package.features.numeric, package.features.categorical)
    for name in schema.names[len(columns) :]:
        values = inputs[name]
        missing = values.isna()
        columns[name] = [None if gone else v for v, gone in zip(values, missing, strict=True)]
    write_part(store, model, pa.table(columns, schema=schema))
    if labels:
        late = [moment + timedelta(hours=6) for moment in times]
        truth = {
            "request_id": [None] * rows,
            "row": [None] * rows,
            "key": columns["_key"],
            "time": late,
            "label": [category_text(value) for value in frame["churned"]],
            "received_at": [datetime.now(UTC)] * rows,
        }
        write_labels(store, model, pa.table(truth, schema=LABELS))
    return rows
