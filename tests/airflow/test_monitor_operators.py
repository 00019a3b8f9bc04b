"""When the monitor starts a training run, and when it leaves it; with a real ledger and a real store."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.api.datamodels._generated import DagRunType
from airflow.sdk.exceptions import AirflowSkipException, DagRunTriggerException
from evergreen.operators.monitor import MonitorOperator, from_window
from evergreen.operators.monitor_checks import QualityOperator
from evergreen.operators.monitor_decide import RequestRetrainOperator

from include.errors import ConflictError
from include.ledger.ledger import Ledger
from include.monitor.findings import Finding
from include.monitor.windows import latest_window
from include.spec.schema import Spec
from include.store.folder import FolderStore

NOW = datetime(2026, 3, 1, 0, 5, tzinfo=UTC)
WINDOW = latest_window(NOW, timedelta(days=1))
SPEC = Spec.model_validate(
    {
        "model": "m",
        "task": "binary",
        "ingest": {"source": {"kind": "file", "path": "data/*.csv"}, "target": "y"},
        "monitor": {"schedule": "5 0 * * *"},
        "retrain": {"on": ["drift"], "cooldown": "24h"},
    }
)


class Task:
    """What a task has around it: a context that keeps XComs, and a bench of real parts."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
        self.store = FolderStore(folder / "store")
        self.champion, self.paused, self.run_type = "2", False, "manual"
        self.params: dict[str, Any] = {}
        self.pushed: dict[str, Any] = {}
        self.run_id = "r1"

    def get_version(self, model: str, alias: str) -> Any:
        return SimpleNamespace(version=self.champion) if self.champion else None

    def get_dag(self, dag_id: str) -> Any:
        return SimpleNamespace(is_paused=self.paused)

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value

    @property
    def context(self) -> Any:
        run = SimpleNamespace(
            run_after=NOW,
            run_type=DagRunType(self.run_type),
            dag_id="m__monitor",
            run_id=self.run_id,
        )
        return {"params": self.params, "dag_run": run, "ti": self}

    def equip(self, operator: MonitorOperator) -> Any:
        hook = SimpleNamespace(run_url=lambda run_id: f"http://mlflow/{run_id}")
        operator.__dict__["bench"] = SimpleNamespace(
            ledger=self.ledger, store=self.store, registry=self, spec=SPEC, hook=hook
        )
        return operator

    def row(self, version: str = "2", wishes: int = 1, window: str = WINDOW.key) -> None:
        """Write down what `decide` says of a window."""
        payload = {
            "window": window,
            "version": version,
            "verdict": "ALERT",
            "rows": 10,
            "as_of": None,
            "wishes": [{"source": "drift", "reason": "x" * 900}] * wishes,
        }
        self.ledger.record("m", "monitor", f"monitor/{version}/{window}", payload, "r0", NOW)

    def request(self, decided: Any = None, collected: Any = None) -> str:
        """Run `request_retrain`; return the id of the run it starts, or why it does not."""
        operator = RequestRetrainOperator(
            task_id="request_retrain", model="m", collected=collected, decided=decided
        )
        self.pushed = {}
        with pytest.raises((AirflowSkipException, DagRunTriggerException)) as ended:
            self.equip(operator).work(self.context)
        if isinstance(ended.value, AirflowSkipException):
            assert self.pushed["skip_reason"] == str(ended.value)
            return str(ended.value)
        self.started = ended.value
        assert self.started.trigger_dag_id == "m__train"
        assert self.started.skip_when_already_exists
        return str(self.started.dag_run_id)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task(tmp_path)


RUN = f"retrain__2__{WINDOW.key}"
COLLECTED = {"version": "2", "run_id": "abc", "window": from_window(WINDOW)}


def test_a_new_request_starts_a_run(task: Task) -> None:
    task.row()
    assert task.request({"wishes": [1]}, COLLECTED) == RUN
    assert task.started.conf == {"trigger": "drift", "reason": "x" * 500}, "what the Dag accepts"
    assert task.pushed["training_run"] == {"dag_id": "m__train", "run_id": RUN}
    task.params = {"as_of": "2026-02-01T00:05:00Z"}
    task.request({"wishes": [1]}, COLLECTED)
    assert task.started.conf["as_of"] == "2026-02-01T00:05:00+00:00"


def test_a_pass_that_died_after_its_row_is_made_up_for(task: Task) -> None:
    task.row()
    assert task.ledger.requests("m") == []
    assert task.request() == RUN
    assert [r.key for r in task.ledger.requests("m")] == [f"drift/2/{WINDOW.key}"]
    assert task.request() == RUN, "the same one"
    assert len(task.ledger.requests("m")) == 1


def test_nothing_is_started_without_a_request(task: Task) -> None:
    assert task.request() == "no request to retrain waits for an answer"
    task.row(wishes=0)
    assert task.request() == "no request to retrain waits for an answer"
    task.champion = ""
    assert task.request() == "the model has no champion yet"


def test_requests_about_a_version_that_is_gone_start_nothing(task: Task) -> None:
    task.row(version="1")
    task.ledger.request("m", "drift", "old", f"drift/1/{WINDOW.key}", {}, NOW)
    assert task.request() == "no request to retrain waits for an answer"
    task.ledger.request("m", "api", "please", "anybody/1/x", {}, NOW)
    assert task.request() == RUN
    assert task.started.conf == {"trigger": "api", "reason": "please"}


def test_what_the_arbiter_would_refuse_is_asked_once(task: Task) -> None:
    task.row()
    task.ledger.freeze("m", "audit", key="f", actor="ann", now=NOW)
    assert task.request({"wishes": [1]}, COLLECTED) == RUN, "so that the no is recorded"
    assert task.request() == "a request waits: the model is frozen: audit"
    assert task.request({"wishes": []}, COLLECTED) == "a request waits: the model is frozen: audit"
    task.ledger.unfreeze("m", "done", key="u", actor="ann", now=NOW)
    assert task.request() == RUN


def test_a_paused_training_dag_gets_no_run_and_one_row(task: Task) -> None:
    task.row()
    task.paused = True
    for run_id in ("r1", "r2"):
        task.run_id = run_id
        assert task.request({"wishes": [1]}, COLLECTED).startswith("m__train is paused")
    assert len(task.ledger.events("m", "skip")) == 1
    task.paused = False
    assert task.request() == RUN


def test_a_backfill_asks_for_nothing(task: Task) -> None:
    task.row()
    task.run_type = "backfill"
    assert task.request({"wishes": [1]}, COLLECTED) == "a backfill asks for nothing"
    assert task.ledger.requests("m") == []


def test_findings_are_read_as_they_were_written(task: Task) -> None:
    found = [Finding("drift", "ä", "alert", "so", 0.5, 0.2), Finding("volume", None, "ok", "fine")]
    operator = task.equip(QualityOperator(task_id="quality", model="m", collected=COLLECTED))
    kept = operator.keep_findings(task.context, found)
    assert kept["findings"] == {"alert": 1, "ok": 1}
    assert operator.keep_findings(task.context, found) == kept
    assert len(list(task.store.list("monitor/m/work/"))) == 1
    assert operator.read_findings(kept, None) == tuple(found)

    task.store.delete(kept["file"])
    with pytest.raises(ConflictError, match="clear its run from `collect` on"):
        operator.read_findings(kept)


def test_the_newest_row_of_a_window_counts_and_other_versions_do_not(task: Task) -> None:
    task.row(version="1")
    task.row(window="20260227T000000Z")
    task.row(window="20260101T000000Z")
    payload = {**task.ledger.events("m")[1].payload, "rows": 99}
    task.ledger.record("m", "monitor", "monitor/2/20260227T000000Z/forced", payload, "r9", NOW)
    operator = task.equip(QualityOperator(task_id="quality", model="m", collected=COLLECTED))
    passes = operator.passes("2")
    assert list(passes) == ["20260101T000000Z", "20260227T000000Z"]
    assert passes["20260227T000000Z"].payload["rows"] == 99
