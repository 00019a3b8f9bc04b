"""Scoring Dags with real parts: an MLflow, Airflow's own bookkeeping, a champion that was trained."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from include.registry.rollouts import Rollout, begin
from include.simulator.churn import daily_batch
from include.store.predictions import copy_window
from tests.integration.pipeline.world import Run, World
from tests.models import DAYS
from tests.traffic import day, end_of

pytestmark = pytest.mark.server
NUMBER = 42
P = day(NUMBER).isoformat()
LINEAR = [{"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 300}}]
TRAIN: dict[str, Any] = {"candidates": LINEAR, "tune": {"trials": 1, "folds": 2}}
MONITOR = {"schedule": "5 * * * *", "window": "1d", "min_rows": 100}


def spec(world: World, **score: Any) -> dict[str, Any]:
    source = {"kind": "file", "path": str(world.home / "new" / "{partition}" / "*.parquet")}
    target = {"kind": "file", "path": str(world.home / "scores")}
    section = {"source": source, "to": target} | score
    return {"train": TRAIN, "monitor": MONITOR, "score": section}


def new_rows(number: int = NUMBER, rows: int = 300) -> pd.DataFrame:
    return daily_batch(day(number), rows=rows, seed=11).drop(columns="churned")


def deliver(world: World, frame: pd.DataFrame, partition: str = P) -> None:
    path = world.home / "new" / partition / "rows.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)


def output(world: World, partition: str = P) -> Path:
    return world.home / "scores" / f"partition={partition}" / "predictions.parquet"


def logged(world: World, model: str, out: Path, **options: Any) -> pd.DataFrame:
    start = datetime.combine(day(NUMBER), datetime.min.time(), UTC)
    copy_window(world.store, model, start, start + timedelta(days=1), out, **options)
    return pq.read_table(out).to_pandas()


def score(world: World, model: str = "batch", partition: str | None = P, **environment: str) -> Run:
    conf = {"partition": partition} if partition else {}
    return world.run(f"{model}__score", conf, environment)


def ask(world: World, query: str, *values: str) -> list[Any]:
    with sqlite3.connect(world.home / "airflow-run" / "airflow.db") as database:
        return database.execute(query, values).fetchall()


def reason(world: World, run: Run, task: str) -> str:
    query = "SELECT value FROM xcom WHERE run_id = ? AND task_id = ? AND key = 'skip_reason'"
    return str(json.loads(ask(world, query, run.run_id, task)[0][0]))


@pytest.fixture(scope="module")
def trained(world: World) -> World:
    """The world, with a champion that has scored a day."""
    world.add_model("batch", **spec(world))
    assert world.run("batch__train", {"as_of": end_of(DAYS - 1)}).state == "success"
    deliver(world, new_rows())
    return world


def test_without_a_champion_there_is_nothing_to_score_with(world: World) -> None:
    world.add_model("untrained", **spec(world))
    run = score(world, "untrained")
    assert (run.state, set(run.tasks.values())) == ("success", {"skipped"})
    assert "no champion yet" in reason(world, run, "score")
    assert not output(world).exists()


def test_a_partition_is_scored_and_listeners_learn_which(trained: World, tmp_path: Path) -> None:
    run = score(trained)
    assert run.state == "success", run.errors
    assert run.tasks == {"score": "success", "shadow": "skipped"}
    assert reason(trained, run, "shadow") == "no rollout in mode shadow goes on"
    table = pq.ParquetFile(output(trained)).read().to_pandas()
    assert len(table) == 300
    assert set(table["version"]) == {"1"}
    query = (
        "SELECT e.extra FROM asset_event e JOIN asset a ON a.id = e.asset_id "
        "WHERE a.uri = 'x-evergreen://scores/batch' AND e.source_run_id = ?"
    )
    [(extra,)] = ask(trained, query, run.run_id)
    assert json.loads(extra) == {"partition": P, "version": "1", "rows": 300}

    rows = logged(trained, "batch", tmp_path / "log")
    assert (len(rows), set(rows["_arm"])) == (300, {"batch"})
    assert set(rows["_key"]) == set(table["customer_id"])
    both = rows.merge(table, left_on="_key", right_on="customer_id")
    assert (both["_prediction"] == both["predict"].map(str)).all()
    assert (both["_score"] == both["probability_1"]).all()


def test_a_repeat_changes_nothing_and_the_monitor_counts_once(trained: World) -> None:
    before = output(trained).read_bytes()
    assert score(trained).state == "success"
    assert output(trained).read_bytes() == before
    assert trained.run("batch__monitor", {"as_of": end_of(NUMBER)}).state == "success"
    [judged] = trained.ledger.events("batch", "monitor")
    assert (judged.payload["version"], judged.payload["rows"]) == ("1", 300)


def test_bad_rows_fail_the_run_and_the_old_partition_stays(trained: World) -> None:
    before = output(trained).read_bytes()
    deliver(trained, new_rows().rename(columns={"tenure": "tenur"}))
    run = score(trained)
    assert run.state == "failed"
    assert run.tasks == {"score": "failed", "shadow": "upstream_failed"}
    assert "feature 'tenure' must be a column" in run.errors["score"]
    assert output(trained).read_bytes() == before
    deliver(trained, new_rows())


def test_a_challenger_scores_the_same_rows_for_the_log_only(trained: World, tmp_path: Path) -> None:
    forced = {"as_of": end_of(DAYS - 1), "force": True}
    assert trained.run("batch__train", forced).state == "success"
    assert trained.registry.aliases("batch")["champion"] == "2"
    rollout, now = Rollout("back", "1", "shadow", 1.0), datetime.now(UTC)
    begin(trained.registry, trained.ledger, "batch", rollout, champion="2", actor="ann", now=now)
    run = score(trained)
    assert run.tasks == {"score": "success", "shadow": "success"}, run.errors
    table = pq.ParquetFile(output(trained)).read().to_pandas()
    assert set(table["version"]) == {"2"}

    rows = logged(trained, "batch", tmp_path / "log", shadow=True)
    counts = rows.groupby(["_version", "_arm"]).size().to_dict()
    assert counts == {("1", "batch"): 300, ("1", "shadow"): 300, ("2", "batch"): 300}
    champion = rows[rows["_version"] == "2"].set_index("_request_id")
    mirrored = rows[rows["_arm"] == "shadow"].set_index("_request_id")
    assert set(champion.index) == set(mirrored.index)
    assert (champion["_key"] == mirrored["_key"].reindex(champion.index)).all()
    # What the monitor judges of version 1 is what was answered in its name.
    assert len(logged(trained, "batch", tmp_path / "log", version="1")) == 300


def test_a_broken_challenger_cannot_fail_the_output(trained: World) -> None:
    deliver(trained, new_rows(rows=200))
    trained.registry.client.delete_model_version_tag("batch", "1", "evergreen.digest")
    run = score(trained)
    assert run.tasks == {"score": "success", "shadow": "failed"}
    assert "producer and digest tags" in run.errors["shadow"]
    assert pq.read_metadata(output(trained)).num_rows == 200


def test_from_a_query_to_a_table_with_the_date_of_the_run(world: World, tmp_path: Path) -> None:
    upstream, mart = tmp_path / "upstream.db", tmp_path / "mart.db"
    today = datetime.now(UTC).date()
    with sqlite3.connect(upstream) as database:
        for age in (0, 1):
            frame = new_rows(rows=50 + age)
            frame["due"] = (today - timedelta(days=age)).isoformat()
            frame["observed_at"] = frame["observed_at"].map(lambda t: t.isoformat())
            frame.to_sql("rows", database, if_exists="append", index=False)
    source = {
        "kind": "sql",
        "url_env": "UPSTREAM_URL",
        "query": "SELECT * FROM rows WHERE due = :partition ORDER BY customer_id",
    }
    target = {"kind": "sql", "url_env": "MART_URL", "table": "scores"}
    world.add_model("tabled", **spec(world, source=source, to=target))
    assert world.run("tabled__train", {"as_of": end_of(DAYS - 1)}).state == "success"
    urls = {"UPSTREAM_URL": f"sqlite:///{upstream}", "MART_URL": f"sqlite:///{mart}"}
    for _ in range(2):
        run = score(world, "tabled", None, **urls)
        assert run.state == "success", run.errors
    yesterday = (today - timedelta(days=1)).isoformat()
    assert score(world, "tabled", yesterday, **urls).state == "success"
    with sqlite3.connect(mart) as database:
        query = "SELECT partition, count(*), count(DISTINCT customer_id) FROM scores GROUP BY 1"
        found = {name: (rows, keys) for name, rows, keys in database.execute(query)}
    assert found == {today.isoformat(): (50, 50), yesterday: (51, 51)}
