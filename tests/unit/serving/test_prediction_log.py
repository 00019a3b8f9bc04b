from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import duckdb
import httpx
import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from include.errors import ServiceError
from include.serving import log_rows, prediction_log
from include.serving.engine import Engine, Prediction
from include.serving.identity import Identity
from include.serving.labels import Labels
from include.serving.limits import Limits
from include.serving.log_rows import Author, Entry
from include.serving.prediction_log import LogLimits, PredictionLog
from include.serving.telemetry import Metrics
from include.settings import ROOT
from include.store.files import open_store
from include.store.parts import PartGoneError, live_parts
from include.store.predictions import copy_window, prediction_schema
from tests.servers import free_port, run_process
from tests.servers import wait_for as wait_for_url
from tests.unit.serving.log_world import ALWAYS, World, counter
from tests.unit.serving.registry import EXAMPLE, FEATURES, wait_for
from tests.unit.serving.registry import rows as some_rows

INFER, INVOKE = "/v2/models/churn/infer", "/models/churn/invocations"
LOST = "evergreen_serving_log_dropped_rows_total"
WRITTEN = "evergreen_serving_log_written_rows_total"


@pytest.fixture
def world(tmp_path: Path, pipelines: dict[str, Any]) -> World:
    return World(tmp_path, pipelines)


def request(client: TestClient, model: str = "churn", **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = client.get(f"/v2/models/{model}/example").json()
    body["inputs"] += [
        {"name": name, "shape": [3], "datatype": "BYTES", "data": data}
        for name, data in more.pop("beside", {}).items()
    ]
    return body | more


# --- what is logged -------------------------------------------------------------------------------------


def test_a_request_becomes_one_row_per_prediction(world: World) -> None:
    before = datetime.now(UTC)
    with world.serve() as client:
        answer = client.post(INFER, json=request(client, id="q-7"))
        assert counter(client, "evergreen_serving_log_waiting_rows") == 3
        assert counter(client, "evergreen_serving_log_queued_rows_total") == 3
    rows = world.log()
    assert [(row["_request_id"], row["_row"]) for row in rows] == [
        ("q-7", 0),
        ("q-7", 1),
        ("q-7", 2),
    ]
    body = {each["name"]: each["data"] for each in answer.json()["outputs"]}
    assert [row["_prediction"] for row in rows] == body["predict"]
    assert [p for row in rows for p in row["_probability"]] == pytest.approx(body["probability"])
    assert [row["_score"] for row in rows] == [row["_probability"][1] for row in rows]
    assert {(row["_version"], row["_arm"], row["_error"]) for row in rows} == {
        ("3", "champion", None)
    }
    assert {name: [row[name] for row in rows] for name in FEATURES.names} == {
        "age": [30.0, None, 55.0],
        "income": [1000.5, 2000.0, None],
        "member": [1.0, 0.0, None],
        "region": ["north", None, "south"],
        "plan": ["1", "2", None],
    }
    for row in rows:
        assert row["_key"] is None
        assert before <= row["_time"] == row["_logged_at"] <= datetime.now(UTC)
        assert 0 < row["_latency_ms"] < 60_000


@pytest.mark.parametrize(("model", "version"), [("price", "1"), ("colour", "1")])
def test_other_tasks(world: World, model: str, version: str) -> None:
    with world.serve() as client:
        answer = client.post(f"/v2/models/{model}/infer", json=request(client, model)).json()
    rows = world.log(model)
    said = answer["outputs"][0]["data"]
    if model == "price":
        assert [row["_score"] for row in rows] == said
        assert [row["_prediction"] for row in rows] == [repr(value) for value in said]
        assert {row["_probability"] for row in rows} == {None}
    else:
        assert [row["_prediction"] for row in rows] == [str(value) for value in said]
        assert [row["_score"] for row in rows] == [max(row["_probability"]) for row in rows]


def test_key_and_time_are_logged_and_are_no_features(world: World) -> None:
    beside = {
        "customer": ["c1", 7, None],
        "seen_at": ["2024-05-06T07:08:09+02:00", 1700000000.25, None],
    }
    with world.serve() as client:
        plain = client.post(INFER, json=request(client)).json()
        answer = client.post(INFER, json=request(client, beside=beside, id="q")).json()
        assert answer["outputs"] == plain["outputs"]
        named = answer["id"]
    rows = {row["_row"]: row for row in world.log() if row["_request_id"] == named}
    assert [rows[n]["_key"] for n in range(3)] == ["c1", "7", None]
    assert rows[0]["_time"] == datetime(2024, 5, 6, 5, 8, 9, tzinfo=UTC)
    assert rows[1]["_time"] == datetime.fromtimestamp(1700000000.25, UTC)
    assert rows[2]["_time"] == rows[2]["_logged_at"]
    assert "customer" not in rows[0]
    days = {key.split("/")[2] for key in live_parts(world.store, "predictions/churn")}
    assert {"date=2024-05-06", "date=2023-11-14"} < days


@pytest.mark.parametrize(
    ("form", "media"),
    [
        ({"dataframe_records": [{**{n: v[0] for n, v in EXAMPLE.items()}, "customer": 5}]}, None),
        ({"inputs": {**{n: v[:1] for n, v in EXAMPLE.items()}, "customer": [5]}}, None),
        (b"age,income,member,region,plan,customer,seen_at\n30,1000.5,1,north,1,5,\n", "text/csv"),
    ],
)
def test_invocations_are_logged_too(world: World, form: Any, media: str | None) -> None:
    with world.serve() as client:
        if media:
            answer = client.post(INVOKE, content=form, headers={"Content-Type": media})
        else:
            answer = client.post(INVOKE, json=form, headers={"x-request-id": "mine"})
        assert answer.status_code == 200, answer.text
    (row,) = world.log()
    assert (row["_key"], row["age"], row["plan"]) == ("5", 30.0, "1")
    assert row["_request_id"] == answer.headers["x-request-id"]
    assert row["_request_id"] == "mine" or media
    assert row["_prediction"] == answer.json()["predictions"][0]


def test_a_version_named_in_the_path_is_an_arm_of_its_own(world: World) -> None:
    with world.serve() as client:
        client.post("/v2/models/churn/versions/4/infer", json=request(client))
    assert {(row["_version"], row["_arm"]) for row in world.log()} == {("4", "version")}


def test_a_probe_is_no_live_traffic(world: World) -> None:
    with world.serve() as client:
        headers = {"x-evergreen-log": "off"}
        assert client.post(INFER, json=request(client), headers=headers).status_code == 200
        assert client.post(INFER, json={}, headers=headers).status_code == 400
    assert world.log() == []


def test_a_refusal_is_logged_without_what_was_sent(world: World) -> None:
    secret = "someone@example.com"
    with world.serve() as client:
        client.post(INFER, json=request(client))
        columns = list(FEATURES.names)
        refused = client.post(
            INVOKE, json={"dataframe_split": {"columns": columns, "data": [[secret, 1]]}}
        )
        assert secret in refused.text
        assert client.post("/v2/models/nobody/infer", json={}).status_code == 404
    rows = [row for row in world.log() if row["_error"]]
    assert [row["_error"] for row in rows] == ["400 row 0: must have 5 values, one per column"]
    assert {rows[0][name] for name in FEATURES.names} == {None}
    assert (rows[0]["_prediction"], rows[0]["_score"], rows[0]["_version"]) == (None, None, "3")
    assert len(world.log()) == 4


def test_a_fault_of_ours_is_logged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret")

    with world.serve() as client:
        body = request(client)
        monkeypatch.setattr("include.serving.compiled.read_json", fail)
        answer = client.post(INFER, json=body)
        assert answer.status_code == 500
        assert "secret" not in answer.text
    assert [row["_error"] for row in world.log()] == ["500 RuntimeError"]


# --- the request id -------------------------------------------------------------------------------------


def test_every_answer_says_how_labels_can_refer_to_it(world: World) -> None:
    with world.serve() as client:
        body = request(client)
        made = {client.post(INFER, json=body).headers["x-request-id"] for _ in range(3)}
        assert len(made) == 3
        both = client.post(INFER, json=body | {"id": "body"}, headers={"x-request-id": "header"})
        assert (both.headers["x-request-id"], both.json()["id"]) == ("body", "body")
        header = client.post(INFER, json=body, headers={"x-request-id": "header"})
        assert header.headers["x-request-id"] == "header"
        assert "id" not in header.json()
    assert {row["_request_id"] for row in world.log()} == made | {"body", "header"}


@pytest.mark.parametrize("name", ["a\r\nSet-Cookie: x=1", "ü€", " padded ", "tab\there"])
def test_an_id_that_no_header_can_hold(world: World, name: str) -> None:
    with world.serve() as client:
        answer = client.post(INFER, json=request(client, id=name))
        assert answer.json()["id"] == name
        assert "set-cookie" not in answer.headers
        assert "%" in answer.headers["x-request-id"]
    assert {row["_request_id"] for row in world.log()} == {name}


def test_an_id_has_a_length(world: World) -> None:
    with world.serve() as client:
        assert client.post(INFER, json=request(client, id="x" * 256)).status_code == 200
        answer = client.post(INFER, json=request(client, id="x" * 257))
        assert answer.status_code == 400
        assert "id: must have at most 256 characters, got 257" in answer.json()["error"]


# --- key and time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        (
            {"seen_at": ["soon", None, None]},
            "input 'seen_at': must be a time, got 'soon'. Send ISO",
        ),
        ({"seen_at": [None, True, None]}, "must be a time, got True"),
        ({"seen_at": [None, None, [1]]}, "must be a time, got [1]"),
        ({"seen_at": [1.7e12, None, None]}, "must lie between 1970 and a year from now"),
        ({"seen_at": ["0001-01-01", None, None]}, "must lie between 1970"),
        ({"seen_at": ["9999-12-31T23:59:59-10:00", None, None]}, "must lie between 1970"),
        ({"seen_at": [-1, None, None]}, "must lie between 1970"),
        ({"customer": [{"a": 1}, None, None]}, "input 'customer': must be text or a number, got {"),
        ({"customer": ["x" * 1001, None, None]}, "must have at most 1000 characters, got 1001"),
        ({"customer": ["a", "b"]}, "must have as many values as its shape"),
        ({"custommer": ["a", "b", "c"]}, "unknown 'custommer'"),
    ],
)
def test_what_is_no_key_and_no_time(
    served: TestClient, beside: dict[str, Any], message: str
) -> None:
    answer = served.post(INFER, json=request(served, beside=beside))
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_a_time_may_lie_ahead_but_not_far(served: TestClient) -> None:
    for days, status in ((300, 200), (400, 400)):
        ahead = (datetime.now(UTC) + timedelta(days=days)).isoformat()
        body = request(served, beside={"seen_at": [ahead, None, None]})
        assert served.post(INFER, json=body).status_code == status


def test_the_days_of_a_request_are_limited(served: TestClient) -> None:
    names = [*EXAMPLE, "seen_at"]
    for days, status in ((400, 200), (401, 400)):
        columns = {name: [values[0]] * days for name, values in EXAMPLE.items()}
        columns["seen_at"] = [86_400 * n for n in range(days)]
        body = {"inputs": {name: columns[name] for name in names}}
        answer = served.post(INVOKE, json=body)
        assert answer.status_code == status
    assert (
        "must lie on at most 400 different days in one request, got 401" in answer.json()["error"]
    )


# --- the way to the store -------------------------------------------------------------------------------


class Shaky:
    """A store that fails while told to, or hangs."""

    def __init__(self, folder: Path) -> None:
        self._store: Any = open_store(str(folder))
        self.error: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write_bytes(self, key: str, data: bytes, **options: Any) -> bool:
        self.writes += 1
        self.go_on.wait(20)
        if self.error:
            raise self.error
        done: bool = self._store.write_bytes(key, data, **options)
        return done


@pytest.fixture
def shaky(world: World) -> Shaky:
    return Shaky(world.folder / "store")


AWAY = ServiceError("s3://bucket", "S3 must answer, got nothing", "Retry.")
QUICK = {"seconds": 0.05, "pause": 0.01, "longest_pause": 0.05}


def test_rows_are_written_without_being_asked(world: World) -> None:
    with world.serve(seconds=0.05) as client:
        client.post(INFER, json=request(client))
        wait_for(lambda: counter(client, WRITTEN) == 3)
        assert len(world.log()) == 3
        assert counter(client, "evergreen_serving_log_waiting_rows") == 0


def test_a_full_batch_is_written_at_once(world: World) -> None:
    with world.serve(seconds=3600, batch_rows=6) as client:
        for _ in range(2):
            client.post(INFER, json=request(client))
        wait_for(lambda: counter(client, WRITTEN) == 6)


@pytest.mark.parametrize("error", [AWAY, OSError(28, "No space left on device"), ValueError("?")])
def test_a_store_that_is_away_loses_nothing(world: World, shaky: Shaky, error: Exception) -> None:
    with world.serve(shaky, **QUICK) as client:
        shaky.error = error
        for number in range(5):
            assert client.post(INFER, json=request(client, id=str(number))).status_code == 200
        wait_for(lambda: counter(client, "evergreen_serving_log_write_failures_total") >= 3)
        shaky.error = None
        wait_for(lambda: counter(client, WRITTEN) == 15)
        assert counter(client, LOST) == 0
    assert {row["_request_id"] for row in world.log()} == set("01234")
    assert len(world.log()) == 15


def test_a_full_queue_drops_the_oldest(world: World, shaky: Shaky) -> None:
    with world.serve(shaky, **QUICK, queue_rows=9) as client:
        shaky.go_on.clear()
        client.post(INFER, json=request(client, id="in hand"))
        wait_for(lambda: shaky.writes)
        for number in range(6):
            assert client.post(INFER, json=request(client, id=str(number))).status_code == 200
        assert counter(client, LOST) == 9
        assert counter(client, "evergreen_serving_log_waiting_rows") == 9
        shaky.go_on.set()
    assert {row["_request_id"] for row in world.log()} == {"in hand", "3", "4", "5"}


def test_the_queue_is_bounded_in_bytes_too(world: World, shaky: Shaky) -> None:
    with world.serve(shaky, **QUICK, queue_bytes=15_000) as client:
        shaky.go_on.clear()
        for number in range(20):
            client.post(INFER, json=request(client, id=str(number)))
        waiting = counter(client, "evergreen_serving_log_waiting_rows")
        shaky.go_on.set()
        assert 3 <= waiting <= 30  # of twenty requests with three rows each
        assert counter(client, LOST) > 0


def test_leaving_gives_up_on_a_store_that_stays_away(
    world: World, shaky: Shaky, caplog: pytest.LogCaptureFixture
) -> None:
    shaky.error = AWAY
    with caplog.at_level(logging.INFO, "evergreen.serving"):
        with world.serve(shaky, **QUICK, farewell=0.3) as client:
            client.post(INFER, json=request(client))
            started = time.monotonic()
        assert time.monotonic() - started < 10
    assert '"event":"prediction_log_lost","rows":3' in caplog.text
    assert world.log() == []


def test_a_prediction_that_hangs_does_not_keep_the_log_from_being_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, go_on = Engine.predict, threading.Event()

    def predict(self: Engine, columns: Any) -> Any:
        if self.model.name == "price":
            go_on.wait(60)
        return real(self, columns)

    limits = Limits(seconds=0.3, inline_ms=0.0, threads=1)
    try:
        with world.serve(requests=limits) as client:
            monkeypatch.setattr(Engine, "predict", predict)
            client.post(INFER, json=request(client, id="kept"))
            assert client.post("/v2/models/price/infer", json=request(client)).status_code == 504
            started = time.monotonic()
        assert time.monotonic() - started < 9  # of the ten seconds between the drain and the end
    finally:
        go_on.set()
    assert {row["_request_id"] for row in world.log()} == {"kept"}


def test_closing_waits_for_no_labels_that_hang(world: World) -> None:
    go_on = threading.Event()
    labels = Labels(cast(Any, None), Metrics(), Limits(), world.store)
    held = [labels._pool.submit(go_on.wait, 60) for _ in range(5)]
    started = time.monotonic()
    try:
        labels.close()
        assert time.monotonic() - started < 9
        assert [job.cancelled() for job in held] == [False, False, True, True, True]
    finally:
        go_on.set()


def test_rows_in_the_writers_hand_are_lost_aloud(
    world: World, shaky: Shaky, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "evergreen.serving")
    shaky.go_on.clear()
    try:
        with world.serve(shaky, seconds=0.05, farewell=0.1) as client:
            client.post(INFER, json=request(client))
            wait_for(lambda: shaky.writes == 1)
            client.post(INFER, json=request(client))
        assert '"event":"prediction_log_lost","rows":6' in caplog.text
    finally:
        shaky.go_on.set()


def test_a_row_that_cannot_be_written_costs_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = log_rows.to_tables

    def fail_once(entries: Any) -> Any:
        monkeypatch.setattr(prediction_log, "to_tables", real)
        raise pa.ArrowInvalid("a fault of ours")

    with world.serve(seconds=0.05) as client:
        monkeypatch.setattr(prediction_log, "to_tables", fail_once)
        client.post(INFER, json=request(client, id="bad"))
        wait_for(lambda: counter(client, LOST) == 3)
        client.post(INFER, json=request(client, id="good"))
    assert {row["_request_id"] for row in world.log()} == {"good"}


def test_a_process_told_to_stop_writes_what_it_holds(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/v2/models/churn"
    command = [sys.executable, "-m", "tests.unit.serving.log_server", str(tmp_path), str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with run_process(command, tmp_path / "log", environment) as process:
        wait_for_url(f"{url}/ready", process, tmp_path / "log")
        body = httpx.get(f"{url}/example").json()
        for number in range(7):
            assert httpx.post(f"{url}/infer", json=body | {"id": str(number)}).status_code == 200
        assert not (tmp_path / "store").exists()
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    out = tmp_path / "log.parquet"
    assert copy_window(open_store(str(tmp_path / "store")), "churn", *ALWAYS, out) == 21


def test_processes_share_a_store(world: World) -> None:
    with world.serve() as one, world.serve() as two:
        one.post(INFER, json=request(one, id="one"))
        two.post(INFER, json=request(two, id="two"))
    assert len(world.log()) == 6
    assert len(live_parts(world.store, "predictions/churn")) == 2


def test_many_small_parts_of_a_day_are_merged_by_their_writer(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_log, "_MANY_PARTS", 5)
    metrics = Metrics()
    log = PredictionLog(world.store, metrics, LogLimits(seconds=0.01))
    log.start()
    for number in range(12):
        log.put(entry(engine, f"r{number}", 2))
        wait_for(lambda due=2 * (number + 1): f"written_rows_total {due}.0" in page(metrics))
    log.close()
    assert len(live_parts(world.store, "predictions/churn")) <= 5
    assert {row["_request_id"] for row in world.log()} == {f"r{n}" for n in range(12)}
    assert len(world.log()) == 24


def test_what_comes_while_a_batch_is_written_waits_for_a_batch_of_its_own(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics()
    log = PredictionLog(world.store, metrics, LogLimits(seconds=3600, batch_rows=10))
    real, writes = prediction_log.write_part, []

    def write(store: Any, model: str, table: Any) -> Any:
        writes.append(table.num_rows)
        if len(writes) < 5:
            log.put(entry(engine, f"late-{len(writes)}", 3))
        return real(store, model, table)

    monkeypatch.setattr(prediction_log, "write_part", write)
    log.start()
    log.put(entry(engine, "first", 10))
    wait_for(lambda: "written_rows_total 10.0" in page(metrics))
    log.close()
    assert writes == [10, 3, 3, 3, 3]  # the later ones only because it was closed
    assert sum(writes) == len(world.log())


def test_nothing_ends_the_writer(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [
        OSError(28, "full"),
        duckdb.IOException("gone"),
        PartGoneError("k"),
        pa.ArrowInvalid("?"),
    ]
    asked: list[str] = []

    def fail(store: Any, model: str, *_: Any, **__: Any) -> int:
        if store is not world.store:
            return 0  # of a server that other tests share
        asked.append(model)
        raise errors[(len(asked) - 1) % len(errors)]

    monkeypatch.setattr(prediction_log, "_MANY_PARTS", 1)
    monkeypatch.setattr(prediction_log, "merge_small", fail)
    metrics = Metrics()
    log = PredictionLog(world.store, metrics, LogLimits(seconds=0.01))
    log.start()
    for number in range(len(errors) + 1):
        log.put(entry(engine, f"r{number}"))
        wait_for(lambda due=number + 1: len(asked) >= due)
    wait_for(lambda: f"write_failures_total {len(errors) + 1}.0" in page(metrics))
    log.close()
    assert len(world.log()) == len(errors) + 1


def test_a_fault_in_the_loop_does_not_end_it_either(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics()
    log = PredictionLog(world.store, metrics, LogLimits(seconds=0.01))
    real = log._next_batch

    def fail_once() -> Any:
        monkeypatch.setattr(log, "_next_batch", real)
        raise MemoryError

    monkeypatch.setattr(log, "_next_batch", fail_once)
    log.start()
    wait_for(lambda: "write_failures_total 1.0" in page(metrics))
    log.put(entry(engine, "r"))
    wait_for(lambda: "written_rows_total 1.0" in page(metrics))
    log.close()


def test_the_size_of_an_entry_is_what_it_keeps(engine: Engine) -> None:
    """Of many short texts and of many zeros the body is a small part."""
    count = 20_000
    tracemalloc.start()
    columns = {
        "age": np.zeros(count),
        "plan": np.array([f"v{n:03d}" for n in range(count)], dtype=object),
    }
    keys, times = [f"k{n}" for n in range(count)], [10**15 + n for n in range(count)]
    prediction = Prediction([0.5 + n for n in range(count)], np.zeros((count, 2)))
    identity = Identity(keys, times)
    one = Entry(Author.of(engine), "a", "r", 0, 1.0, count * 12, columns, prediction, identity)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 0.8 * held < one.size < 1.6 * held


def test_what_waits_does_not_keep_the_model(engine: Engine) -> None:
    assert not any(
        found is engine or found is engine.model
        for found in gc.get_referents(*gc.get_referents(entry(engine, "r")))
    )


def page(metrics: Metrics) -> str:
    return metrics.exposition().decode()


# --- rows of many requests ------------------------------------------------------------------------------


def entry(engine: Engine, name: str, count: int = 1, **more: Any) -> Entry:
    columns = some_rows(count, seed=len(name))
    return Entry(
        author=Author.of(engine),
        arm="champion",
        request_id=name,
        arrived=int(time.time() * 1e6),
        latency_ms=1.0,
        texts=100,
        columns=columns,
        prediction=engine.predict(columns),
        **more,
    )


def test_requests_of_any_size_and_refusals_make_one_table(engine: Engine) -> None:
    refusal = Entry(Author.of(engine), "champion", "bad", 5, 0.5, 10, error="400 body")
    entries = [entry(engine, "a", 3), refusal, entry(engine, "bb"), entry(engine, "ccc", 100)]
    ((name, table),) = log_rows.to_tables(entries)
    assert name == "churn"
    assert table.schema.equals(prediction_schema(FEATURES.numeric, FEATURES.categorical))
    assert table.num_rows == 105
    found = table.to_pylist()
    assert [row["_row"] for row in found if row["_request_id"] == "ccc"] == list(range(100))
    assert [row["_error"] for row in found if row["_error"]] == ["400 body"]
    for one in entries:
        if one.prediction and one.columns:
            mine = [row for row in found if row["_request_id"] == one.request_id]
            assert [row["_prediction"] for row in mine] == one.prediction.predict
            assert [row["region"] for row in mine] == one.columns["region"].tolist()


def test_only_refusals(engine: Engine) -> None:
    refusal = Entry(Author.of(engine), "champion", "bad", 5, 0.5, 10, error="400 body")
    ((_, table),) = log_rows.to_tables([refusal, refusal])
    assert (table.num_rows, table["age"].null_count, table["_error"].null_count) == (2, 2, 0)
