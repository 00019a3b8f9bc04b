"""The shipped training Dags, from start to served champion: real MLflow, real serving process."""

import os
import re
import sys
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from include.ledger.ledger import Ledger
from include.registry.gateway import Registry
from include.simulator.batches import write_batches
from include.store.files import open_store
from include.store.snapshots import read_manifest
from tests.integration.airflow.conftest import ROOT
from tests.integration.airflow.runs import dags_of, run
from tests.servers import free_port, run_process, wait_for

MODELS = {"diabetes": ("r2", "rmse"), "churn": ("roc_auc", "log_loss")}
TRIALS = 2


@pytest.fixture(scope="module")
def shipped(world, mlflow_url):
    """The shipped specs with less to do, and serving; yields serving's URL."""
    home, port = world, free_port()
    models, data = home / "models", home / "data"
    models.mkdir()
    for name in MODELS:
        spec = (ROOT / f"include/models/{name}.yaml").read_text()
        spec = re.sub(r"tune: \{.*\}", f"tune: {{trials: {TRIALS}, folds: 2}}", spec)
        spec = re.sub(r"path: .*parquet", f"path: {data}/*.parquet", spec)
        (models / f"{name}.yaml").write_text(spec)
    write_batches(data, datetime.now(UTC).date() - timedelta(days=20), 20, rows=120)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVERGREEN_MODELS", str(models))
        patch.setenv("EVERGREEN_SERVING_PORT", str(port))
        command = [sys.executable, "-m", "include.serving"]
        log, environment = home / "serving.log", {**os.environ, "PYTHONPATH": str(ROOT)}
        with run_process(command, log, environment) as process:
            wait_for(f"http://127.0.0.1:{port}/v2/health/live", process, log)
            yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def dags(shipped):
    return dags_of(ROOT / "dags/training.py")


@pytest.fixture(scope="module", params=MODELS)
def trained(request, dags):
    model = request.param
    dag = dags[f"{model}__train"]
    return model, run(dag, run_conf={"reason": "a test"}), run(dag)


@pytest.fixture
def registry(mlflow_url):
    return Registry(mlflow_url)


def test_every_task_did_its_part(trained) -> None:
    _, first, _ = trained
    assert first.state == "success", first.tasks
    candidates = {"train.tune[0]", "train.tune[1]"}
    stages = {"admit", "ingest", "validate", "train.fit", "evaluate", "register"}
    deploy = {"deploy.smoke", "deploy.promote"}
    assert first.tasks == dict.fromkeys(
        candidates | stages | deploy | {"finish", "done"}, "success"
    )


def test_verdict_and_version(trained, registry) -> None:
    model, first, _ = trained
    verdict = first.value("evaluate")
    assert verdict["verdict"] == "PROMOTE"
    assert set(MODELS[model]) <= set(verdict["metrics"])
    assert first.value("register")["version"] == "1"
    assert registry.aliases(model) == {"champion": "1"}


def test_lineage(trained, registry, world) -> None:
    model, first, _ = trained
    version, data = registry.get_version(model, "champion"), first.value("ingest")
    tags = version.tags
    assert version.run_id == data["run_id"]
    assert version.digest
    assert tags["evergreen.snapshot_id"] == data["snapshot_id"]
    assert tags["evergreen.spec_hash"] == data["spec_hash"]
    assert tags["evergreen.seed"] == "42"
    assert tags["airflow.dag_id"] == f"{model}__train"
    assert tags["airflow.run_id"] == first.run_id
    assert {"evergreen.git_commit", "evergreen.lock_hash"} <= set(tags)
    manifest = read_manifest(open_store(str(world / "store")), model, data["snapshot_id"])
    assert manifest.rows == data["rows"] > 400


def test_the_run_in_mlflow(trained, registry) -> None:
    model, first, _ = trained
    client, run_id = registry.client, first.value("ingest")["run_id"]
    made = client.get_run(run_id)
    assert made.info.status == "FINISHED"
    assert made.data.params["seed"] == "42"
    assert made.data.tags["evergreen.deployed_version"] == "1"
    assert set(MODELS[model]) <= {name.removeprefix("holdout_") for name in made.data.metrics}
    children = client.search_runs(
        [made.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'"
    )
    assert len(children) == 2 * TRIALS
    assert {child.info.status for child in children} == {"FINISHED"}
    assert all("value" in child.data.metrics for child in children)


def test_reports_and_plots(trained, registry) -> None:
    _, first, _ = trained
    client, run_id = registry.client, first.value("ingest")["run_id"]

    def files(folder: str) -> set[str]:
        return {item.path for item in client.list_artifacts(run_id, folder)}

    assert {"validate/report.html", "validate/report.json"} <= files("validate")
    assert {"evaluate/verdict.json", "evaluate/verdict.md"} <= files("evaluate")
    plots = files("evaluate/plots")
    assert len(plots) >= 2
    assert all(path.endswith(".png") for path in plots)


def test_every_task_from_ingest_on_links_to_its_run(trained, registry) -> None:
    _, first, _ = trained
    url = registry.run_url(first.value("ingest")["run_id"])
    linked = ["ingest", "validate", "train.fit", "evaluate", "register", "deploy.promote"]
    assert {task: first.link(task) for task in linked} == dict.fromkeys(linked, url)


def test_the_ledger_tells_it(trained, world) -> None:
    model, first, _ = trained
    ledger = Ledger(f"sqlite:///{world / 'ledger.db'}")
    kinds = [event.kind for event in ledger.events(model)]
    assert kinds.count("promotion") == 1
    assert {"challenger", "promotion", "applied"} <= set(kinds)
    (promotion,) = ledger.events(model, "promotion")
    assert promotion.payload["to"] == "1"
    assert promotion.payload["reason"] == first.value("evaluate")["reason"]
    assert ledger.verify(model).ok


def test_it_is_served(trained, shipped) -> None:
    model, _, _ = trained
    ready = httpx.get(f"{shipped}/v2/models/{model}/ready").json()
    assert ready["champion"] == "1"
    assert ready["ready"] is True


def test_the_same_data_again_is_skipped(trained, registry) -> None:
    model, _, second = trained
    assert second.state == "success"
    assert second.tasks["ingest"] == "skipped"
    assert second.tasks["deploy.promote"] in ("skipped", "None")
    assert [v.version for v in registry.versions(model)] == ["1"]
    runs = registry.client.search_runs(
        [registry.experiment_id(model)], "attributes.status = 'RUNNING'"
    )
    assert runs == []
