"""What the monitor's tasks write, what they start and what they leave; with a real ledger and a real store."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.api.datamodels._generated import DagRunType
from airflow.sdk.exceptions import AirflowSkipException, DagRunTriggerException
from evergreen.operators import monitor_collect
from evergreen.operators.monitor import MonitorOperator, from_window
from evergreen.operators.monitor_checks import PerformanceOperator, QualityOperator
from evergreen.operators.monitor_collect import CollectOperator
from evergreen.operators.monitor_decide import DecideOperator
from evergreen.operators.monitor_retrain import RequestRetrainOperator

from include.errors import ConflictError, DataError, ServiceError
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
        self.runs: dict[str, str] = {}
        self.try_number, self.max_tries = 1, 3

    def get_version(self, model: str, alias: str) -> Any:
        return SimpleNamespace(version=self.champion) if self.champion else None

    def get_dag(self, dag_id: str) -> Any:
        return SimpleNamespace(is_paused=self.paused)

    def get_dr_count(self, dag_id: str, run_ids: list[str], states: list[str] | None = None) -> int:
        assert dag_id == "m__train"
        found = [self.runs[run] for run in run_ids if run in self.runs]
        return sum(states is None or state in states for state in found)

    def answer(self, run_id: str, verdict: str, **options: Any) -> None:
        """Let a training run begin, and be answered."""
        said = self.ledger.decide(
            "m",
            run_key=f"m__train/{run_id}",
            trigger="drift",
            spec_retrain=SPEC.retrain,
            now=NOW,
            **options,
        )
        assert said.verdict == verdict, said
        self.runs[run_id] = "success"

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Take what goes to MLflow."""

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

    def row(
        self,
        version: str = "2",
        wishes: int = 1,
        window: str = WINDOW.key,
        as_of: str | None = None,
    ) -> None:
        """Write down what `decide` says of a window."""
        payload = {
            "window": window,
            "version": version,
            "verdict": "ALERT",
            "rows": 10,
            "as_of": as_of,
            "wishes": [{"source": "drift", "reason": "x" * 900}] * wishes,
        }
        key = f"monitor/{version}/{window}"
        self.ledger.record("m", "monitor", key, payload, "r0", datetime.now(UTC))

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


def test_the_present_and_a_replay_of_the_same_window_know_nothing_of_each_other(task: Task) -> None:
    task.row(as_of="2026-02-28T00:05:00+00:00")
    assert task.request() == "no request to retrain waits for an answer"
    task.params = {"as_of": "2026-02-01T00:05:00Z"}
    assert task.request() == "no request to retrain waits for an answer", "asked for later"
    task.params = {"as_of": "2026-02-28T01:00:00Z"}
    assert task.request() == "retrain__2__20260227T000000Z"
    assert task.started.conf["as_of"] == "2026-02-28T01:00:00+00:00"

    payload = {**task.ledger.events("m", "monitor")[0].payload, "as_of": None}
    now = datetime.now(UTC)
    task.ledger.record("m", "monitor", f"monitor/2/{WINDOW.key}/2", payload, "r1", now)
    task.params = {}
    assert task.request() == RUN
    assert "as_of" not in task.started.conf
    drift = f"drift/2/{WINDOW.key}"
    assert [r.key for r in task.ledger.requests("m")] == [drift, f"{drift}/present"]


def test_a_run_that_was_refused_is_followed_by_another_one(task: Task) -> None:
    task.row()
    task.ledger.freeze("m", "audit", key="f", actor="ann", now=NOW)
    assert task.request({"wishes": [1]}, COLLECTED) == RUN
    task.answer(RUN, "SKIP")
    again = task.request({"wishes": [1]}, COLLECTED)
    assert again == "a request waits: the model is frozen: audit", "no is recorded once"
    assert task.pushed["training_run"]["run_id"] == RUN, "a retry links to it, too"
    task.ledger.unfreeze("m", "done", key="u", actor="ann", now=NOW)
    assert task.request() == f"{RUN}__2"
    task.runs[f"{RUN}__2"] = "queued"
    assert task.request().startswith(f"{RUN}__2 of m__train is there already"), "an answer was lost"
    task.answer(f"{RUN}__2", "RETRAIN")
    assert task.request() == "no request to retrain waits for an answer"


def test_a_run_that_died_before_it_was_answered_is_followed_by_another_one(task: Task) -> None:
    task.row()
    assert task.request() == RUN
    task.runs[RUN] = "failed"
    assert task.request() == f"{RUN}__2"


def test_every_young_row_has_its_requests_filed(task: Task) -> None:
    task.row(window="20260225T000000Z")
    task.row(window="20260226T000000Z", wishes=0)
    old = task.ledger.events("m")[0].payload | {"window": "20260101T000000Z"}
    at = datetime.now(UTC) - timedelta(days=9)
    task.ledger.record("m", "monitor", "monitor/2/20260101T000000Z", old, "r0", at)
    assert task.request() == RUN
    assert [r.key for r in task.ledger.requests("m")] == ["drift/2/20260225T000000Z"]


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


def test_other_versions_push_no_row_out_of_sight(task: Task) -> None:
    task.row(window="20260227T000000Z")
    for number in range(250):
        task.row(version="21", window=f"w{number}")
    operator = task.equip(QualityOperator(task_id="quality", model="m", collected=COLLECTED))
    assert list(operator.passes("2")) == ["20260227T000000Z"]


# --- what a pass writes down ----------------------------------------------------------------------------


def decided(task: Task, *findings: Finding) -> dict[str, Any]:
    """Run `decide` on findings; return what was recorded."""
    collected = {**COLLECTED, "matured": None, "rows": 10}
    operator = DecideOperator(
        task_id="decide", model="m", collected=collected, quality=None, drift=None, performance=None
    )
    equipped = task.equip(operator)
    operator.quality = equipped.keep_findings(task.context, findings)
    said: dict[str, Any] = equipped.work(task.context)
    return said


CALM = Finding("drift", "a", "ok", "calm")
WILD = Finding("drift", "a", "alert", "wild", 0.9, 0.1)


def test_a_cleared_pass_goes_by_its_row_only_where_it_finds_the_same(task: Task) -> None:
    for _ in range(2):
        assert decided(task, CALM)["drifts"] is False
    assert len(task.ledger.events("m", "monitor")) == 1
    for _ in range(2):
        assert decided(task, WILD)["drifts"] is True
    assert decided(task, CALM)["drifts"] is False
    key = f"monitor/2/{WINDOW.key}"
    assert [e.key for e in task.ledger.events("m", "monitor")] == [key, f"{key}/2", f"{key}/3"]
    operator = task.equip(QualityOperator(task_id="quality", model="m", collected=COLLECTED))
    assert operator.passes("2")[WINDOW.key].key == f"{key}/3"


def test_a_replay_judges_no_window_in_the_place_of_the_present(task: Task) -> None:
    operator = task.equip(CollectOperator(task_id="collect", model="m"))
    task.params = {"as_of": "2026-03-01T00:05:00Z"}
    decided(task, CALM)
    task.run_id = "r2"
    assert operator._judged(WINDOW, "2", task.context)
    task.params = {}
    assert not operator._judged(WINDOW, "2", task.context)
    assert decided(task, CALM)["as_of"] is None
    assert not operator._judged(WINDOW, "2", task.context), "its own row"
    task.run_id = "r3"
    assert operator._judged(WINDOW, "2", task.context)


# --- work files and labels ------------------------------------------------------------------------------


class Bucket(FolderStore):
    """A store whose files are elsewhere; what `fetch` brings stays in a cache."""

    def fetch(self, key: str, *, fresh: bool = False) -> Path:
        raise AssertionError(f"{key} would stay in the cache")


def test_a_copy_of_the_log_never_gets_into_the_cache(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("include.store.parts.FolderStore", str)  # no store counts as a folder
    task.store = Bucket(task.store.root)
    task.store.write_bytes("monitor/m/work/x.parquet", b"rows")
    collected = {**COLLECTED, "file": "monitor/m/work/x.parquet"}
    operator = task.equip(QualityOperator(task_id="quality", model="m", collected=collected))
    with operator.window_file() as path:
        assert path.read_bytes() == b"rows"
    assert not path.exists()
    task.store.delete("monitor/m/work/x.parquet")
    with pytest.raises(ConflictError, match="clear its run"), operator.window_file():
        pass


@pytest.mark.parametrize("error", [DataError("labels", "must be, got 'x'", "Do."), None])
def test_labels_that_cannot_be_read_are_a_finding(
    task: Task, monkeypatch: pytest.MonkeyPatch, error: DataError | None
) -> None:
    labels = {"source": {"kind": "file", "path": "l/*.csv"}, "delay": "1d"}
    spec = SPEC.model_dump(exclude_unset=True) | {"monitor": {"labels": labels}}
    operator = task.equip(CollectOperator(task_id="collect", model="m"))
    operator.bench.spec = Spec.model_validate(spec)
    away = error or ServiceError("labels", "must be there, got nothing", "Wait.")

    def refuse(*args: Any, **kwargs: Any) -> int:
        raise away

    monkeypatch.setattr("include.ingest.labels.ingest_labels", refuse)
    monkeypatch.setattr(monitor_collect, "source_options", lambda source: {})
    if error is None:
        with pytest.raises(ServiceError):
            operator._bring_labels(WINDOW, task.context)
        task.try_number = 4  # the last one
    said = operator._bring_labels(WINDOW, task.context)
    assert said == str(away)

    collected = {**COLLECTED, "labels_error": said}
    checks = PerformanceOperator(task_id="performance", model="m", collected=collected)
    [found] = checks._unread()
    assert (found.check, found.status) == ("coverage", "alert")
    assert "'x'" not in found.message, "the ledger keeps it for ever"
