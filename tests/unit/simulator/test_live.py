"""Simulated rows as requests, labels and runs, sent over HTTP to a server that writes down what it gets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from include.errors import ServiceError, SpecError
from include.settings import ROOT, Settings
from include.simulator import live
from include.simulator.live import LiveStage, source_folder
from include.simulator.plan import midnight
from include.simulator.play import Asked
from include.simulator.scenarios import World
from include.spec.loader import load_spec
from include.spec.schema import Spec
from include.spec.sources import PythonSource
from include.stack.airflow_client import AirflowClient
from include.store.files import open_store
from include.store.predictions import prediction_schema, write_part

DAY = date(2026, 3, 5)
WORLD = World("schema_break", DAY, seed=1, rows=450)


@dataclass
class Server:
    """Serving and Airflow in one: answers as told, remembers everything."""

    url: str = ""
    posts: list[tuple[str, Any]] = field(default_factory=list)
    answers: list[tuple[int, Any]] = field(default_factory=list)
    runs: dict[str, dict[str, str]] = field(default_factory=dict)
    paused: bool = False
    outcome: str = "success"

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if method == "POST":
            self.posts.append((path, body))
        if path == "/auth/token":
            return 201, {"access_token": "t"}
        if path.startswith("/v2/"):
            return self.answers.pop(0) if self.answers else (200, {})
        if path.endswith("/details"):
            return 200, {"is_paused": self.paused, "params": {}}
        dag = path.split("/")[4]
        mine = self.runs.setdefault(dag, {})
        if method == "POST":
            known = body["dag_run_id"] in mine
            mine.setdefault(body["dag_run_id"], self.outcome)
            return (409, {"detail": "there"}) if known else (200, {"dag_run_id": "x"})
        if path.split("?")[0].endswith("/dagRuns"):
            found = [{"dag_run_id": run, "state": state} for run, state in mine.items()]
            return 200, {"dag_runs": found[::-1]}
        if path.split("?")[0].endswith("/taskInstances"):
            return 200, {"task_instances": [], "total_entries": 0}
        run = path.split("/")[6]
        state = mine[run]
        mine[run] = "success" if state == "running" else state
        return 200, {"state": state}


@pytest.fixture
def server() -> Iterator[Server]:
    it = Server()

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, body = it.answer(self.command, self.path, json.loads(content or "null"))
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _do  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    it.url = f"http://127.0.0.1:{http.server_port}"
    yield it
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture(scope="module")
def spec() -> Spec:
    return load_spec(ROOT / "include" / "models" / "churn.yaml")


@pytest.fixture
def stage(server: Server, spec: Spec, tmp_path: Path) -> Iterator[LiveStage]:
    with AirflowClient(server.url, "u", "p") as airflow:
        store = open_store(str(tmp_path / "store"))
        said: list[str] = []
        it = LiveStage(spec, tmp_path / "data", store, server.url, airflow, warn=said.append)
        it.patience = 0.0
        with it:
            yield it


def test_rows_become_requests_of_named_typed_tensors(stage: LiveStage, server: Server) -> None:
    before = date(2026, 3, 4)
    rows = WORLD.requests(before)
    assert stage.ask(before, rows) == Asked(450, 0)
    assert [path for path, _ in server.posts] == ["/v2/models/churn/infer"] * 3
    bodies = [body for _, body in server.posts]
    assert [body["id"] for body in bodies] == [f"sim-churn-2026-03-04-{n}" for n in range(3)]
    inputs = {tensor["name"]: tensor for tensor in bodies[2]["inputs"]}
    assert set(inputs) == set(rows.columns)
    kinds = {name: tensor["datatype"] for name, tensor in inputs.items()}
    assert kinds["tenure"] == "INT64"
    assert kinds["usage_gb"] == "FP64"
    assert kinds["paperless"] == "BOOL"
    assert {kinds[n] for n in ("region", "customer_id", "observed_at")} == {"BYTES"}
    assert all(tensor["shape"] == [50] for tensor in inputs.values())
    last = rows.iloc[-1]
    assert inputs["customer_id"]["data"][-1] == last["customer_id"]
    assert datetime.fromisoformat(inputs["observed_at"]["data"][-1]) == last["observed_at"]
    missing = rows["usage_gb"].isna().to_numpy()[400:]
    assert [value is None for value in inputs["usage_gb"]["data"]] == list(missing)


def test_refused_rows_are_counted_and_end_nothing(stage: LiveStage, server: Server) -> None:
    server.answers = [(400, {"error": "inputs"}), (200, {}), (400, {"error": "inputs"})]
    assert stage.ask(DAY, WORLD.requests(DAY)) == Asked(450, 250)


def test_a_busy_endpoint_is_asked_again_with_the_same_id(
    stage: LiveStage, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_PAUSE", 0.001)
    server.answers = [(503, {}), (503, {})]
    assert stage.ask(DAY, WORLD.requests(DAY).iloc[:10]) == Asked(10, 0)
    assert [body["id"] for _, body in server.posts] == ["sim-churn-2026-03-05-0"] * 3
    server.answers = [(503, {})] * 6
    with pytest.raises(ServiceError, match="got nothing in 6 attempts"):
        stage.ask(DAY, WORLD.requests(DAY).iloc[:10])


@pytest.mark.parametrize("status", [404, 500])
def test_an_endpoint_that_fails_ends_the_play(
    stage: LiveStage, server: Server, status: int
) -> None:
    server.answers = [(status, {"error": "no model"})] * 2
    with pytest.raises(ServiceError, match=f"must answer live requests, got status {status}"):
        stage.ask(DAY, WORLD.requests(DAY).iloc[:1])
    with pytest.raises(ServiceError, match=f"must take labels, got status {status}"):
        stage.tell(WORLD.labels(DAY).iloc[:1])


def test_labels_are_posted_by_key_and_time(stage: LiveStage, server: Server) -> None:
    known = WORLD.labels(DAY)
    stage.tell(known)
    ((path, body),) = server.posts
    assert path == "/v2/models/churn/labels"
    assert len(body["labels"]) == 450
    first = body["labels"][0]
    assert first["key"] == known["customer_id"].iloc[0]
    assert datetime.fromisoformat(first["time"]) == known["observed_at"].iloc[0]
    assert first["label"] == known["churned"].iloc[0]


def test_batches_land_where_the_spec_reads(stage: LiveStage) -> None:
    stage.deliver(DAY, WORLD.batch(DAY))
    path = stage.folder / "2026-03-05.parquet"
    assert "charges" in pd.read_parquet(path)
    inode = path.stat().st_ino
    stage.deliver(DAY, WORLD.batch(DAY))
    assert path.stat().st_ino == inode


def test_runs_are_started_once_and_triggered_training_is_waited_for(
    stage: LiveStage, server: Server
) -> None:
    at = midnight(DAY)
    stage.train("sim-train__x", at)
    server.runs["churn__train"] |= {"retrain__1__w": "running", "other": "running"}
    stage.monitor("sim__x", at)
    stage.monitor("sim__x", at)
    started = [(path, body) for path, body in server.posts if path.endswith("dagRuns")]
    assert [body["dag_run_id"] for _, body in started] == ["sim-train__x", "sim__x", "sim__x"]
    assert started[0][1]["conf"] == {
        "reason": "simulator: first training",
        "trigger": "api",
        "as_of": "2026-03-05T00:00:00Z",
    }
    assert started[1][1]["conf"] == {"as_of": "2026-03-05T00:00:00Z"}
    assert server.runs["churn__train"]["retrain__1__w"] == "success"
    assert server.runs["churn__train"]["other"] == "running", "somebody else's"


def test_a_failed_training_ends_the_play_and_a_failed_pass_does_not(
    stage: LiveStage, server: Server
) -> None:
    said: list[str] = []
    stage.warn = said.append
    server.outcome = "failed"
    with pytest.raises(ServiceError, match="Run a of churn__train: must succeed, got failed"):
        stage.train("a", midnight(DAY))
    with pytest.raises(ServiceError, match="Run a__2 of churn__train: must succeed"):
        stage.train("a", midnight(DAY))
    server.outcome = "success"
    stage.train("a", midnight(DAY))
    stage.train("a", midnight(DAY))
    assert server.runs["churn__train"] == {"a": "failed", "a__2": "failed", "a__3": "success"}
    server.runs["churn__monitor"] = {"b": "failed"}
    stage.monitor("b", midnight(DAY))
    assert said == ["b failed: failed"]


def test_a_paused_dag_is_said_instead_of_waited_for(stage: LiveStage, server: Server) -> None:
    server.paused = True
    with pytest.raises(SpecError, match="Dag churn__monitor: must not be paused"):
        stage.monitor("b", midnight(DAY))


def test_it_waits_for_the_log_and_says_what_is_missing(stage: LiveStage) -> None:
    said: list[str] = []
    stage.warn = said.append
    schema = prediction_schema((), ())
    at = datetime(2026, 3, 5, 12, tzinfo=UTC)
    row = {"_request_id": "r", "_row": 0, "_time": at, "_logged_at": at, "_version": "1"}
    table = pa.Table.from_pylist([row, {**row, "_row": 1}], schema=schema)
    write_part(stage.store, "churn", table)
    stage.settle(midnight(DAY), midnight(date(2026, 3, 6)), 2)
    assert said == []
    stage.settle(midnight(DAY), midnight(date(2026, 3, 6)), 3)
    assert said == ["2 of 3 predictions of 2026-03-05 are in the log"]


def test_only_a_model_of_the_simulated_customers_can_be_played(spec: Spec, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert source_folder(spec, settings) == ROOT / ".evergreen" / "data" / "churn"
    function = PythonSource(kind="python", call="include.simulator.diabetes.load")
    for change in ({"source": function}, {"target": "left"}):
        other = spec.model_copy(update={"ingest": spec.ingest.model_copy(update=change)})
        with pytest.raises(SpecError, match="for the simulator, got"):
            source_folder(other, settings)
