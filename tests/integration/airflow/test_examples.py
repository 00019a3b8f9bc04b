"""Every Dag under docs/examples runs, against a real MLflow."""

import threading
import time
from datetime import timedelta

import pytest

from include.ledger.ledger import Ledger
from include.registry.gateway import Registry
from tests.integration.airflow.conftest import ROOT
from tests.integration.airflow.runs import dags_of, run

EXAMPLES = ROOT / "docs/examples"
MODEL = "wine"


@pytest.fixture(scope="module")
def registry(mlflow_url: str) -> Registry:
    return Registry(mlflow_url)


@pytest.fixture(scope="module")
def operators(world, registry):
    if registry.versions(MODEL):  # from another module's tests
        registry.client.delete_registered_model(MODEL)
    return dags_of(EXAMPLES / "mlflow_operators.py")


@pytest.fixture(scope="module")
def first(operators):
    return run(operators["example_mlflow_operators"])


def test_a_training_with_the_general_operators(first, registry, mlflow_url) -> None:
    assert first.state == "success", first.tasks
    assert set(first.tasks.values()) == {"success"}
    run_id, version = first.value("start"), first.value("register")
    made = registry.client.get_run(run_id)
    assert made.info.status == "FINISHED"
    assert made.data.params == {"C": "0.5"}
    assert made.data.metrics["accuracy"] > 0.9
    assert made.data.tags["team"] == "cellar"
    assert made.data.tags["airflow.run_id"] == first.run_id
    assert "model/MLmodel" in {f.path for f in registry.client.list_artifacts(run_id, "model")}
    assert registry.aliases(MODEL) == {"champion": version, "tested": version}
    found = registry.get_version(MODEL, "champion")
    assert (found.run_id, found.tags["team"]) == (run_id, "cellar")
    url = f"{mlflow_url}/#/experiments/{made.info.experiment_id}/runs/{run_id}"
    linked = ("start", "log", "upload", "register", "tested", "promote", "finish")
    assert {task: first.link(task) for task in linked} == dict.fromkeys(linked, url)


def test_the_champion_is_usable(first, mlflow_url) -> None:
    import mlflow
    from sklearn.datasets import load_wine

    version = Registry(mlflow_url).get_version(MODEL, "champion")
    client = mlflow.MlflowClient(mlflow_url)
    uri = client.get_model_version_download_uri(MODEL, version.version)
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    folder = get_artifact_repository(uri, tracking_uri=mlflow_url).download_artifacts("")
    model = mlflow.pyfunc.load_model(folder)
    rows = load_wine(as_frame=True).data
    assert len(model.predict(rows)) == len(rows)


def test_again_makes_the_next_version_and_rollback_returns(
    operators, first, registry, world
) -> None:
    second = run(operators["example_mlflow_operators"])
    one, two = first.value("register"), second.value("register")
    assert second.value("promote") == two
    assert int(two) == int(one) + 1
    assert registry.aliases(MODEL) == {"champion": two, "previous_champion": one, "tested": two}
    back = run(operators["example_mlflow_rollback"], run_conf={"reason": "smells of cork"})
    assert back.state == "success"
    assert back.value("rollback") == one
    assert registry.aliases(MODEL)["champion"] == one
    ledger = Ledger(f"sqlite:///{world / 'ledger.db'}")
    moves = ledger.events(MODEL, ("promotion", "rollback"))
    assert [(m.kind, m.payload["to"]) for m in moves] == [
        ("promotion", one),
        ("promotion", two),
        ("rollback", one),
    ]
    assert moves[-1].payload["reason"] == "smells of cork"
    assert ledger.verify().ok


def test_reaping_leaves_young_runs(operators, registry) -> None:
    young = registry.ensure_run(MODEL, "somebody at work", "young", {})
    reaped = run(operators["example_mlflow_reap"])
    assert reaped.state == "success"
    assert reaped.value("reap") == []
    assert registry.client.get_run(young).info.status == "RUNNING"


def test_the_sensor_defers_and_comes_back_with_a_new_champion(first, registry) -> None:
    dag = dags_of(EXAMPLES / "new_champion.py")["example_new_champion"]
    dag.get_task("wait").poll_interval = timedelta(seconds=1)
    at_once = run(dag)
    champion = registry.aliases(MODEL)["champion"]
    assert at_once.value("react") == champion  # nothing was handled yet

    other = next(v.version for v in registry.versions(MODEL) if v.version != champion)
    moved = threading.Timer(
        6.0,
        lambda: registry.set_alias(MODEL, "champion", other, expected=champion),
    )
    moved.start()
    begun = time.monotonic()
    try:
        waited = run(dag)
    finally:
        moved.join()
        registry.set_alias(MODEL, "champion", champion, expected=other)
    assert waited.state == "success"
    assert waited.value("react") == other
    assert time.monotonic() - begun > 5.0


def test_upstream_data_is_announced(world) -> None:
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from evergreen.factory.assets import data_asset
    from sqlalchemy import select

    ended = run(dags_of(EXAMPLES / "announce_data.py")["example_announce_data"])
    assert ended.state == "success"
    with create_session() as session:
        asset = session.scalars(select(AssetModel).filter_by(uri=data_asset("churn").uri)).one()
        assert asset.name == data_asset("churn").name  # the training Dag listens to this one
        event = session.scalars(select(AssetEvent).filter_by(asset_id=asset.id)).one()
    assert event.extra["rows"] == 1200
    assert event.source_run_id == ended.run_id
