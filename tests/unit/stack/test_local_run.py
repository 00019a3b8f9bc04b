import fcntl
import json

import pytest

from include.errors import ConflictError
from include.settings import Settings
from include.stack.layout import Layout
from include.stack.local_run import read_events, run_dag


def _line(second: int, event: str, **more: object) -> str:
    entry = {"timestamp": f"2026-01-01T00:00:{second:02}Z", "level": "info", "event": event}
    return json.dumps(entry | more)


LINES = [
    "not JSON at all",
    "3",
    _line(0, "Filling up the DagBag"),
    _line(1, "[DAG TEST] starting task_id=ingest map_index=-1"),
    _line(1, "Task instance state updated", rows_affected=1),
    _line(4, "Task instance state updated", new_state="success"),
    _line(4, "[DAG TEST] end task task_id=ingest map_index=-1"),
    _line(5, "[DAG TEST] starting task_id=train.tune map_index=1"),
    _line(
        6,
        "Task failed with exception",
        level="error",
        exception=[{"exc_type": "DataError", "exc_value": "churn: no rows."}],
    ),
    _line(6, "XCom not found", level="error"),
    _line(7, "Task instance state updated", new_state="failed"),
    _line(7, "[DAG TEST] end task task_id=train.tune map_index=1"),
]


def test_tasks_are_read_from_the_log() -> None:
    seen = [(task.name, task.state, task.seconds, task.error) for task in read_events(LINES)]
    assert seen == [
        ("ingest", "running", None, ""),
        ("ingest", "success", 3.0, ""),
        ("train.tune [1]", "running", None, ""),
        ("train.tune [1]", "failed", 2.0, "DataError: churn: no rows."),
    ]


def test_one_local_run_of_a_model_at_a_time(settings: Settings, layout: Layout) -> None:
    with (layout.run / "churn__train.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ConflictError, match="run of churn__train: must be the only one here"):
            run_dag(settings, "churn__train", {})
