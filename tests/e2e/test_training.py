"""A model's life over REST: trained, served, asked, trained again."""

import httpx
import pyarrow.parquet as pq
import pytest

from include.errors import ConflictError, SpecError
from include.stack.airflow_client import RunResult
from tests.e2e.stack import Stack
from tests.models import DAYS, example_columns, write_days

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
MODEL, RUN = "small", "upstream__1"


@pytest.fixture(scope="module")
def trained(stack: Stack) -> Stack:
    """The stack, with a model that was trained once."""
    stack.add_model(MODEL)
    stack.trigger(MODEL, RUN, {"reason": "first batches", "trigger": "api"})
    result = stack.wait(MODEL, RUN)
    assert result.state == "success", words(stack, result)
    return stack


def words(stack: Stack, result: RunResult) -> list[str]:
    return [stack.airflow.last_words(result.dag_id, result.run_id, t) for t in result.failed_tasks]


def states(result: RunResult) -> dict[str, str | None]:
    return {task.name: task.state for task in result.tasks}


def columns(values: dict[str, list]) -> dict[str, object]:
    """An infer request: one named list of values each."""
    kinds = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES"}
    inputs = []
    for name, column in values.items():
        kind = next(kinds[type(value)] for value in column if value is not None)
        inputs.append({"name": name, "shape": [len(column)], "datatype": kind, "data": column})
    return {"id": "request-1", "inputs": inputs}


def test_a_triggered_run_ends_in_a_served_champion(trained: Stack) -> None:
    trained.assert_one_of_everything(MODEL, RUN)
    version = trained.registry.versions(MODEL)[0]
    assert version.tags["evergreen.verdict"] == "PROMOTE"
    assert version.tags["airflow.run_id"] == RUN
    decision = trained.ledger.events(MODEL, "decision")[0]
    assert decision.payload["trigger"] == "api"
    for path in (trained.home / "store").rglob("*.parquet"):
        assert "email" not in pq.read_schema(path).names


def test_every_task_links_to_its_mlflow_run(trained: Stack) -> None:
    run_id = trained.airflow.xcom(f"{MODEL}__train", RUN, "ingest")["run_id"]
    for task in ("ingest", "validate", "train.fit", "evaluate", "register", "deploy.promote"):
        path = f"/dags/{MODEL}__train/dagRuns/{RUN}/taskInstances/{task}/links"
        links = trained.airflow.request("GET", path, "Links")["extra_links"]
        assert links["MLflow run"].startswith(trained.settings.mlflow)
        assert links["MLflow run"].endswith(run_id)


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"force": "yes"}, "'yes' is not of type 'boolean'"),
        ({"trigger": "somebody"}, "'somebody' is not one of"),
        ({"reason": "x" * 501}, "is too long"),
        ({"as_of": "yesterday"}, "'yesterday' (is not a 'date-time'|does not match)"),
    ],
)
def test_bad_parameters_are_a_400_that_says_why(
    trained: Stack, conf: dict[str, object], reason: str
) -> None:
    before = len(trained.airflow.runs(f"{MODEL}__train"))
    with pytest.raises(SpecError, match=reason):
        trained.airflow.trigger(f"{MODEL}__train", conf, "bad")
    token = trained.airflow._authorize()
    answer = httpx.post(
        f"{trained.settings.airflow}/api/v2/dags/{MODEL}__train/dagRuns",
        json={"logical_date": None, "conf": conf},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert answer.status_code == 400
    assert len(trained.airflow.runs(f"{MODEL}__train")) == before


def test_the_same_run_id_twice_is_a_409_and_one_run(trained: Stack) -> None:
    before = trained.kinds(MODEL)
    with pytest.raises(ConflictError, match="must be new, got one that exists"):
        trained.airflow.trigger(f"{MODEL}__train", {"force": True}, RUN)
    assert [r["dag_run_id"] for r in trained.airflow.runs(f"{MODEL}__train")].count(RUN) == 1
    assert trained.kinds(MODEL) == before


def test_an_unknown_parameter_fails_in_admit_and_names_the_known_ones(trained: Stack) -> None:
    before = trained.kinds(MODEL)
    trained.trigger(MODEL, "unknown", {"forse": True})
    result = trained.wait(MODEL, "unknown", 60)
    assert result.state == "failed"
    assert [task.name for task in result.failed_tasks] == ["admit"]
    assert result.failed_tasks[0].try_number == 1
    said = words(trained, result)[0]
    assert "must be among reason, trigger, force, as_of, got forse" in said
    assert trained.kinds(MODEL) == before


def test_the_endpoint_predicts_from_raw_columns(trained: Stack) -> None:
    answer = trained.predict(MODEL, columns(example_columns(trained.data(MODEL))))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["model_name"], body["model_version"], body["id"]) == (MODEL, "1", "request-1")
    outputs = {output["name"]: output["data"] for output in body["outputs"]}
    assert len(outputs["predict"]) == 3
    assert set(outputs["predict"]) <= {0, 1}
    assert all(0 <= share <= 1 for share in outputs["probability"])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda c: c.pop("tenure"), "tenure"),
        (lambda c: c.update(tenure=["old", "new", "new"]), "tenure"),
        (lambda c: c.update(tenur=[1, 2, 3]), "tenur"),
        (lambda c: c.update(tenure=[1]), "tenure"),
    ],
)
def test_a_bad_request_is_a_400_that_names_the_column(trained: Stack, spoil, said: str) -> None:
    values = example_columns(trained.data(MODEL))
    spoil(values)
    answer = trained.predict(MODEL, columns(values))
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]
    assert "Traceback" not in answer.text


def test_models_and_versions_that_are_not_there_are_a_404(trained: Stack) -> None:
    body = columns(example_columns(trained.data(MODEL)))
    for model, version in (("nobody", ""), (MODEL, "99")):
        answer = trained.predict(model, body, version)
        assert answer.status_code == 404, answer.text
        assert answer.json()["error"]


def test_the_same_data_again_is_skipped_and_new_data_is_judged_against_the_champion(
    trained: Stack,
) -> None:
    trained.trigger(MODEL, "again")
    result = trained.wait(MODEL, "again")
    assert result.state == "success"
    found = states(result)
    assert found["ingest"] == "skipped"
    assert found["deploy.promote"] == "skipped"
    reasons = [line["reason"] for line in trained.log(MODEL, "again", "ingest") if "reason" in line]
    assert reasons == [
        "no new data: version 1, the champion, was trained from this very data and spec. "
        "Pass force to train anyway."
    ]
    trained.assert_one_of_everything(MODEL, RUN)

    write_days(trained.data(MODEL), first=DAYS, days=12)
    trained.trigger(MODEL, "upstream__2")
    result = trained.wait(MODEL, "upstream__2")
    assert result.state == "success", words(trained, result)
    verdict = trained.ledger.events(MODEL, "verdict")[-1].payload
    assert verdict["verdict"] == "PROMOTE", verdict["reason"]
    assert "of version 1" in verdict["reason"]
    assert [v.version for v in trained.registry.versions(MODEL)] == ["2", "1"]
    assert trained.registry.aliases(MODEL) == {"champion": "2", "previous_champion": "1"}
    assert trained.serves(MODEL) == "2"
    assert trained.kinds(MODEL).count("promotion") == 2
    assert trained.ledger.verify(MODEL).ok
    assert {run.info.status for run in trained.runs(MODEL)} == {"FINISHED"}

    done = trained.command("rollback", MODEL)
    assert done.returncode == 0, done.stderr
    assert trained.registry.aliases(MODEL)["champion"] == "1"
