"""The clean-up's Dag against a real MLflow: what it ends, what it removes, what it leaves alone."""

import itertools
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from include.errors import DataError
from include.ledger.ledger import Ledger
from include.registry.gateway import Registry
from include.store.files import open_store
from include.store.prune_plan import Plan
from include.store.snapshots import commit_snapshot, read_manifest, snapshot_paths
from tests.integration.airflow.conftest import ROOT
from tests.integration.airflow.runs import dags_of, run
from tests.models import small_spec, write_spec
from tests.servers import free_port
from tests.unit.store.conftest import snapshot_of

ACT = {"run_conf": {"dry_run": False}}
DAY = timedelta(days=1)
VERSIONED, OPEN, FORGOTTEN, YOUNG = (letter * 32 for letter in "abcd")
_NUMBERS = itertools.count()


def days_ago(days: float) -> datetime:
    return datetime.now(UTC) - days * DAY


@pytest.fixture
def model(world, tmp_path, monkeypatch):
    """A model nobody else uses, in a home of its own; MLflow and Airflow are everybody's."""
    name = f"reaped_{next(_NUMBERS)}"
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path))
    monkeypatch.setenv("EVERGREEN_MODELS", str(tmp_path / "models"))
    write_spec(tmp_path / "models", small_spec(name, tmp_path / "data"))
    return name


@pytest.fixture
def store(model, tmp_path):
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def ledger(model, tmp_path):
    return Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")


@pytest.fixture
def registry(mlflow_url):
    return Registry(mlflow_url)


@pytest.fixture
def reap(model):
    return dags_of(ROOT / "dags/maintenance.py")["evergreen__reap"]


def age(store, key: str, days: float) -> None:
    """Make the files under a key older."""
    for stored in list(store.scan(key)):
        moment = (stored.written_at - days * DAY).timestamp()
        os.utime(store.root / stored.key, (moment, moment))


def put_snapshot(store, model: str, snapshot_id: str, days: float, folder) -> None:
    manifest, path = snapshot_of(pa.table({"x": [snapshot_id]}), folder / snapshot_id, snapshot_id)
    manifest = replace(manifest, model=model)
    assert commit_snapshot(store, manifest, {manifest.files[0].name: path})
    age(store, f"snapshots/{model}/{snapshot_id}/", days)


def snapshots(store, model: str) -> set[str]:
    """Return the ids of the snapshots that are there; each of them is whole."""
    found = {key.split("/")[2] for key in store.list(f"snapshots/{model}/")}
    for snapshot_id in found:
        snapshot_paths(store, read_manifest(store, model, snapshot_id))
    return found


def open_run(registry, model: str, key: str, days: float, **tags: str) -> str:
    """Open an MLflow run some days ago, as `ensure_run` does."""
    opened = int(days_ago(days).timestamp() * 1000)
    own = {"evergreen.run_key": key, "evergreen.opened_ms": str(opened)}
    made = registry.client.create_run(
        registry.experiment_id(model),
        start_time=opened,
        tags=own | {name.replace("__", "."): value for name, value in tags.items()},
    )
    return made.info.run_id


def add_version(registry, model: str, snapshot_id: str) -> None:
    client, run_id = registry.client, registry.ensure_run(model, "done", "done", {})
    registry.finish_run(run_id)
    made = client.create_logged_model(
        registry.experiment_id(model), name=model, source_run_id=run_id
    )
    client.finalize_logged_model(made.model_id, "READY")
    client.create_registered_model(model)
    client.create_model_version(
        model,
        f"models:/{made.model_id}",
        run_id,
        tags={"evergreen.snapshot_id": snapshot_id},
        model_id=made.model_id,
    )


def add_dag_run(model: str, run_id: str, state: str) -> dict[str, str]:
    """Put a training run into Airflow's database; return the tags of its MLflow run."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    dag_id = f"{model}__train"
    dags_of(ROOT / "dags/training.py")
    with create_session() as session:
        session.add(DagRun(dag_id=dag_id, run_id=run_id, run_type="manual", state=state))
    return {"airflow__dag_id": dag_id, "airflow__run_id": run_id}


def statuses(registry, *runs: str) -> list[str]:
    return [registry.client.get_run(run_id).info.status for run_id in runs]


def trained(ledger, model: str) -> None:
    """Put into the ledger what stands there of every model that was ever trained."""
    payload = {"verdict": "TRAIN", "reason": "by hand"}
    ledger.record(model, "decision", "decision/x", payload, "somebody", days_ago(50))


@pytest.fixture
def four(store, model, registry, tmp_path):
    """Four snapshots, each with a reason of its own to stay or to go."""
    for snapshot_id in (VERSIONED, OPEN, FORGOTTEN):
        put_snapshot(store, model, snapshot_id, 40, tmp_path)
    put_snapshot(store, model, YOUNG, 1, tmp_path)
    add_version(registry, model, VERSIONED)
    open_run(registry, model, "at work", 0, evergreen__snapshot_id=OPEN)


def test_what_nothing_needs_goes_and_what_a_version_needs_stays(
    four, model, store, ledger, reap
) -> None:
    store.write_bytes(f"runs/{model}/f/old.skops", b"12345")
    age(store, f"runs/{model}/", 31)

    looked = run(reap)  # by hand: only a look
    assert (looked.state, looked.tasks["prune"]) == ("success", "skipped")
    assert looked.xcoms["prune", "skip_reason"] == "dry run: 2 entries would be removed"
    assert snapshots(store, model) == {VERSIONED, OPEN, FORGOTTEN, YOUNG}
    told = looked.value("plan")
    assert told["entries"] == 2
    assert told["models"][model].startswith("1 snapshot and 1 work file, ")
    plan = Plan.from_json(store.read_bytes(told["plan"]))
    assert [entry.key for entry in plan.entries] == [
        f"snapshots/{model}/{FORGOTTEN}/",
        f"runs/{model}/f/old.skops",
    ]
    assert sum(entry.bytes for entry in plan.entries) == told["bytes"] > 5
    assert ledger.events(model) == []

    acted = run(reap, **ACT)
    assert acted.state == "success"
    assert acted.value("prune") == {"removed": 2, "kept": 0}
    assert snapshots(store, model) == {VERSIONED, OPEN, YOUNG}
    assert list(store.list(f"runs/{model}/")) == []
    (event,) = ledger.events(model)
    assert (event.kind, event.actor) == ("pruned", f"evergreen__reap/{acted.run_id}")
    assert event.payload["counts"] == {"runs": 1, "snapshots": 1}
    assert event.payload["bytes"] == told["bytes"]
    assert event.payload["reason"].startswith("nothing needs them: 1 snapshot and 1 work file, ")

    again = run(reap, **ACT)
    assert again.value("prune") == {"removed": 0, "kept": 0}
    assert ledger.events(model) == [event]


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_model_at_work_is_left_alone(four, model, store, reap, state) -> None:
    add_dag_run(model, "long", state)
    ended = run(reap, **ACT)
    assert ended.value("prune") == {"removed": 0, "kept": 0}
    assert len(snapshots(store, model)) == 4
    plan = Plan.from_json(store.read_bytes(ended.value("plan")["plan"]))
    assert plan.held == {model: f"a run of {model}__train is under way"}


def test_a_training_that_begins_after_the_plan_keeps_its_snapshot(
    four, model, store, reap, monkeypatch
) -> None:
    from evergreen.operators.prune import PlanOperator

    plan = PlanOperator.act

    def plan_and_begin(self, context, now, *, dry):
        told = plan(self, context, now, dry=dry)
        assert told["entries"] == 1
        add_dag_run(model, "begun", "running")
        return told

    monkeypatch.setattr(PlanOperator, "act", plan_and_begin)
    ended = run(reap, **ACT)
    assert ended.value("prune") == {"removed": 0, "kept": 1}
    assert len(snapshots(store, model)) == 4


def test_what_a_killed_try_removed_is_in_the_record_of_the_next(
    four, model, store, ledger, reap, monkeypatch
) -> None:
    from evergreen.operators.prune import PlanOperator

    store.write_bytes(f"runs/{model}/f/old.skops", b"12345")
    age(store, f"runs/{model}/", 31)
    plan = PlanOperator.act

    def plan_and_begin(self, context, now, *, dry):
        told = plan(self, context, now, dry=dry)
        store.delete(f"snapshots/{model}/{FORGOTTEN}/manifest.json")  # and its files not yet
        store.delete(f"runs/{model}/f/old.skops")
        return told

    monkeypatch.setattr(PlanOperator, "act", plan_and_begin)
    ended = run(reap, **ACT)
    assert ended.value("prune") == {"removed": 2, "kept": 0}
    assert snapshots(store, model) == {VERSIONED, OPEN, YOUNG}
    (event,) = ledger.events(model, "pruned")
    assert event.payload["counts"] == {"runs": 1, "snapshots": 1}
    assert event.payload["bytes"] == ended.value("plan")["bytes"]


def test_an_mlflow_that_lost_its_memory_removes_nothing(four, model, store, ledger, reap) -> None:
    payload = {"from": None, "to": "7", "previous": None, "reason": "better"}
    ledger.record(model, "promotion", "p", payload, "somebody", days_ago(3))
    ended = run(reap, **ACT)
    assert ended.value("prune") == {"removed": 0, "kept": 0}
    plan = Plan.from_json(store.read_bytes(ended.value("plan")["plan"]))
    assert plan.held == {model: "MLflow does not know version 7, the ledger's champion"}
    assert len(snapshots(store, model)) == 4


def test_a_model_of_another_installation_is_left_alone(
    model, registry, store, ledger, reap, tmp_path
) -> None:
    theirs = f"{model}_theirs"
    for name in (model, theirs):  # one of a name we have too, one of a name only they have
        put_snapshot(store, name, FORGOTTEN, 40, tmp_path / name)
    opened = [open_run(registry, name, "theirs", 9) for name in (model, theirs)]
    ended = run(reap, **ACT)
    assert ended.value("prune") == {"removed": 0, "kept": 0}
    plan = Plan.from_json(store.read_bytes(ended.value("plan")["plan"]))
    assert plan.held == {
        model: "neither MLflow nor the ledger knows of it: it may not be ours",
        theirs: "it has neither a spec nor a row of the ledger here: it is not ours",
    }
    assert ended.value("close_runs") == {}
    assert statuses(registry, *opened) == ["RUNNING"] * 2

    trained(ledger, model)
    for opened_run in opened:
        registry.finish_run(opened_run)
    assert run(reap, **ACT).value("prune") == {"removed": 1, "kept": 0}
    assert snapshots(store, theirs) == {FORGOTTEN}


def test_one_damaged_model_keeps_no_other_from_its_turn(
    four, model, store, ledger, reap, tmp_path, monkeypatch
) -> None:
    from evergreen.operators.prune import PruneOperator
    from evergreen.operators.reap import CompactLogsOperator

    damaged, odd = f"{model}_damaged", f"{model}_a"
    for name in (damaged, odd):
        write_spec(tmp_path / "models", small_spec(name, tmp_path / "data"))
        trained(ledger, name)
        put_snapshot(store, name, FORGOTTEN, 40, tmp_path / name)
    needs, compacted, asked = PruneOperator.needs, [], []

    def compact(self, spec, now):
        if spec.model == damaged:
            raise OSError("no Parquet")
        compacted.append(spec.model)
        return 0

    def fail(self, context, name):
        if name == damaged or (name == odd and odd in asked):
            raise DataError(name, "must make sense, got nonsense", "Correct it.")
        asked.append(name)
        return needs(self, context, name)

    monkeypatch.setattr(CompactLogsOperator, "_compact", compact)
    monkeypatch.setattr("evergreen.operators.prune._StoreOperator.needs", fail)
    ended = run(reap, **ACT)
    assert ended.state == "failed"
    assert (ended.tasks["compact_logs"], ended.tasks["prune"]) == ("failed", "failed")
    assert ended.tasks["plan"] == "success"
    assert set(compacted) == {model, odd}
    assert list(ended.value("plan")["broken"]) == [damaged]
    assert snapshots(store, model) == {VERSIONED, OPEN, YOUNG}
    assert snapshots(store, damaged) == snapshots(store, odd) == {FORGOTTEN}
    assert [event.kind for event in ledger.events(model)] == ["pruned"]


def test_what_a_cleared_clean_up_removes_is_another_row(
    four, model, store, ledger, reap, tmp_path, monkeypatch
) -> None:
    # A run that is cleared keeps its id.
    monkeypatch.setattr("evergreen.operators.prune.run_key", lambda _: "evergreen__reap/one")
    run(reap, **ACT)
    put_snapshot(store, model, "e" * 32, 40, tmp_path)
    run(reap, **ACT)
    rows = ledger.events(model, "pruned")
    assert [row.payload["counts"] for row in rows] == [{"snapshots": 1}] * 2
    assert all(row.key.startswith("pruned/evergreen__reap/one/") for row in rows)


def test_an_mlflow_that_is_away_removes_nothing(four, model, store, reap, monkeypatch) -> None:
    away = {"conn_type": "mlflow", "host": f"http://127.0.0.1:{free_port()}"}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(away))
    for task in reap.tasks:
        task.retries = 0
    ended = run(reap, **ACT)
    assert ended.state == "failed"
    assert ended.tasks["close_runs"] == "failed"
    assert {ended.tasks[t] for t in ("compact_logs", "plan", "prune")} == {"upstream_failed"}
    assert len(snapshots(store, model)) == 4
    assert list(store.list("reap/")) == []


def test_runs_of_dead_workers_are_closed_and_those_at_work_are_not(
    model, registry, store, ledger, reap
) -> None:
    trained(ledger, model)
    ended = open_run(registry, model, "ended", 1, **add_dag_run(model, "ended", "success"))
    failed = open_run(registry, model, "failed", 1, **add_dag_run(model, "failed", "failed"))
    unknown = {"airflow__dag_id": f"{model}__train", "airflow__run_id": "cleaned away"}
    forgotten = open_run(registry, model, "forgotten", 4, **unknown)
    orphan = open_run(registry, model, "a trial", 1, mlflow__parentRunId=ended)
    dead = [ended, failed, forgotten, orphan]

    training = open_run(registry, model, "long", 9, **add_dag_run(model, "long", "running"))
    waiting = open_run(registry, model, "next", 9, **add_dag_run(model, "next", "queued"))
    trial = open_run(registry, model, "its trial", 9, mlflow__parentRunId=training)
    young = open_run(registry, model, "young", 0.1, **add_dag_run(model, "young", "success"))
    elsewhere = open_run(registry, model, "by ./evergreen run", 1, **unknown)
    foreign = registry.client.create_run(registry.experiment_id(model), start_time=1).info.run_id
    alive = [training, waiting, trial, young, elsewhere, foreign]

    looked = run(reap)
    assert {e: sorted(r) for e, r in looked.value("close_runs").items()} == {model: sorted(dead)}
    assert set(statuses(registry, *dead)) == {"RUNNING"}
    acted = run(reap, **ACT)
    assert {e: sorted(r) for e, r in acted.value("close_runs").items()} == {model: sorted(dead)}
    assert set(statuses(registry, *dead)) == {"KILLED"}
    assert set(statuses(registry, *alive)) == {"RUNNING"}
    assert run(reap, **ACT).value("close_runs") == {}


def test_wishes_nobody_answered_are_given_up(model, ledger, reap) -> None:
    for days in (1, 7, 9):  # a week, and the cool-down of a day
        ledger.request(model, "drift", f"{days} days", f"drift/{days}", {}, days_ago(days))
    ledger.request(model, "drift", "long ago", "drift/99", {}, days_ago(99))
    assert run(reap).value("expire_requests") == {model: 2}
    assert len(ledger.requests(model)) == 4
    assert run(reap, **ACT).value("expire_requests") == {model: 2}
    assert [request.reason for request in ledger.requests(model)] == ["1 days", "7 days"]
    assert run(reap, **ACT).value("expire_requests") == {}


def test_a_wrong_spec_and_a_wrong_name_stop_nobody(four, model, store, reap, tmp_path) -> None:
    (tmp_path / "models" / "broken.yaml").write_text("model: broken\n")
    store.write_bytes("runs/it's/f/x.skops", b"x")
    store.write_bytes("predictions/broken/date=2020-01-01/1-a.parquet", b"x")
    age(store, "runs/it's/", 99)
    age(store, "predictions/broken/", 9999)
    ended = run(reap, **ACT)
    assert ended.value("prune") == {"removed": 1, "kept": 0}
    assert snapshots(store, model) == {VERSIONED, OPEN, YOUNG}
    assert store.exists("runs/it's/f/x.skops")
    assert store.exists("predictions/broken/date=2020-01-01/1-a.parquet")


def test_past_days_of_predictions_become_few_files_and_old_ones_go(model, store, reap) -> None:
    import pyarrow.parquet as pq

    from include.store.predictions import part_keys, prediction_schema, write_part

    def log(days: float, request: str) -> None:
        moment = days_ago(days)
        row = {"_request_id": request, "_row": 0, "_time": moment, "_logged_at": moment}
        row |= {"_version": "1", "_arm": "champion", "x": 1.0}
        write_part(store, model, pa.Table.from_pylist([row], prediction_schema(["x"], [])))

    for number in range(3):
        log(2, f"past {number}")
        log(0, f"today {number}")
        log(95, f"old {number}")
    age(store, f"predictions/{model}/date={days_ago(95).date()}/", 95)

    assert run(reap).value("compact_logs") == {}
    acted = run(reap, **ACT)
    assert acted.value("compact_logs") == {model: 6}
    past = part_keys(store, model, days_ago(2).date(), days_ago(2).date())
    assert [pq.read_metadata(store.fetch(key)).num_rows for key in past] == [3]
    today = days_ago(0).date()
    assert len(part_keys(store, model, today, today)) == 3
    # Merging wrote the old day anew, so it goes by the time that was in its rows only the next time.
    age(store, f"predictions/{model}/date={days_ago(95).date()}/", 95)
    assert run(reap, **ACT).value("prune") == {"removed": 1, "kept": 0}
    assert part_keys(store, model, days_ago(99).date(), days_ago(90).date()) == []
    assert part_keys(store, model, days_ago(2).date(), days_ago(2).date()) == past


def test_an_unknown_parameter_is_refused(reap, store) -> None:
    assert run(reap, run_conf={"dryrun": False}).tasks["close_runs"] == "failed"
