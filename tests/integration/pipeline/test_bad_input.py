"""Whatever is wrong with spec, data or surroundings: one clear error, and the champion stays."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.integration.pipeline.world import World
from tests.models import write_days
from tests.servers import free_port

pytestmark = pytest.mark.server
MODEL = "steady"


@pytest.fixture(scope="module")
def champion(world: World) -> dict[str, Any]:
    """Train the model once; return how it stands."""
    world.add_model(MODEL)
    run = world.run(f"{MODEL}__train")
    assert run.state == "success", run
    standing = world.standing(MODEL)
    assert standing["aliases"] == {"champion": "1"}
    assert standing["serves"] == "1"
    assert standing["intact"]
    return standing


@pytest.fixture
def stays(world: World, champion: dict[str, Any]):
    """Afterwards spec and data are good again; nothing else may have changed."""
    yield
    data = world.data(MODEL)
    for path in data.iterdir():
        path.unlink()
    world.add_model(MODEL)
    assert world.standing(MODEL) == champion
    assert world.open_runs(MODEL) == []
    world.assert_nothing_half_written(MODEL)


def rewrite(data: Path, change: Callable[[pd.DataFrame], pd.DataFrame], only: int | None = None):
    """Change the newest daily files, or all of them."""
    for path in sorted(data.glob("*.parquet"))[-(only or 0) :]:
        change(pd.read_parquet(path)).to_parquet(path)


def unreadable(data: Path) -> None:
    (data / "2026-01-05.parquet").write_bytes(b"PAR1 this is no Parquet file")


def empty(data: Path) -> None:
    rewrite(data, lambda frame: frame.iloc[:0])


def gone(data: Path) -> None:
    for path in data.glob("*.parquet"):
        path.unlink()


def no_column(data: Path) -> None:
    rewrite(data, lambda frame: frame.drop(columns="tenure"))


def text_column(data: Path) -> None:
    rewrite(data, lambda frame: frame.assign(tenure=[f"{t} months" for t in frame["tenure"]]))


def no_target(data: Path) -> None:
    rewrite(data, lambda frame: frame.rename(columns={"churned": "churn"}))


def all_null(data: Path) -> None:
    rewrite(data, lambda frame: frame.assign(usage_gb=np.nan))


def one_class(data: Path) -> None:
    rewrite(data, lambda frame: frame.assign(churned=0))


def three_classes(data: Path) -> None:
    rewrite(data, lambda frame: frame.assign(churned=np.arange(len(frame)) % 3))


def infinite(data: Path) -> None:
    rewrite(data, lambda frame: frame.assign(monthly_charges=np.inf), only=1)


def duplicate_keys(data: Path) -> None:
    rewrite(data, lambda frame: pd.concat([frame, frame.head(5)]), only=2)


def leaking(data: Path) -> None:
    rewrite(data, lambda frame: frame.assign(tenure=frame["churned"] * 10))


BAD_DATA = [
    (unreadable, "ingest", ["2026-01-05.parquet"]),
    (empty, "ingest", ["ingest.source", "at least one row"]),
    (gone, "ingest", ["*.parquet", "got none"]),
    (no_column, "validate", ["'tenure'"]),
    (text_column, "validate", ["'tenure'"]),
    (no_target, "ingest", ["'churned'"]),
    (all_null, "validate", ["'usage_gb'"]),
    (one_class, "validate", ["'churned'", "0"]),
    (three_classes, "validate", ["'churned'"]),
    (infinite, "validate", ["'monthly_charges'", "60 rows with an infinity"]),
    (duplicate_keys, "validate", ["'customer_id'", "10"]),
    (leaking, "validate", ["'tenure'"]),
]


@pytest.mark.usefixtures("stays")
@pytest.mark.parametrize(
    ("spoil", "stage", "said"), BAD_DATA, ids=[spoil.__name__ for spoil, *_ in BAD_DATA]
)
def test_bad_data(world: World, spoil, stage: str, said: list[str]) -> None:
    spoil(world.data(MODEL))
    run = world.run(f"{MODEL}__train")
    assert run.state == "failed"
    task, error = run.failure
    assert task == stage, error
    assert_clear(error)
    assert [text for text in said if text not in error] == [], error


@pytest.mark.usefixtures("stays")
def test_the_command_line_says_the_same_in_one_line(world: World) -> None:
    duplicate_keys(world.data(MODEL))
    done = world.command("run", MODEL)
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if line.startswith("validate:")]
    assert len(lines) == 1, done.stdout + done.stderr
    assert "customer_id" in lines[0]
    assert "Traceback" not in done.stdout + done.stderr


# Where: rule, got what. What to do.
FORM = re.compile(r"[^:\s].*: .+\bgot\b.+\. [A-Z].+")


def assert_clear(error: str) -> None:
    """Assert that an error has our form and is one line."""
    assert FORM.fullmatch(error), error
    assert ".." not in error


BAD_SPECS: list[tuple[dict[str, Any], str]] = [
    ({"task": "binry"}, "task"),
    ({"trian": {}}, "trian"),
    ({"evaluate": {"primary": {"metric": "rmse"}}}, "evaluate.primary.metric"),
    ({"train": {"tune": {"folds": 1}}}, "train.tune.folds"),
    ({"ingest": {"window": "soon"}}, "ingest.window"),
    ({"train": {"candidates": [{"estimator": "os.system"}]}}, "train.candidates"),
]


@pytest.mark.usefixtures("stays")
@pytest.mark.parametrize(("changes", "key"), BAD_SPECS, ids=[key for _, key in BAD_SPECS])
def test_a_wrong_spec(world: World, changes: dict[str, Any], key: str) -> None:
    world.write_spec(MODEL, **changes)
    run = world.run(f"{MODEL}__config_error")
    assert run.state == "failed"
    task, error = run.failure
    assert task == "config_error"
    assert_clear(error)
    assert f"{MODEL}.yaml: {key}" in error


@pytest.mark.usefixtures("stays")
def test_check_lists_every_problem_of_a_spec_at_once(world: World) -> None:
    world.write_spec(MODEL, task="binry", trian={}, train={"tune": {"folds": 1}})
    done = world.command("check", MODEL)
    assert done.returncode == 1
    problems = [line for line in done.stdout.splitlines() if f"{MODEL}.yaml: " in line]
    assert len(problems) == 3, done.stdout
    assert "Did you mean 'train'?" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.usefixtures("stays")
@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        ({"estimator": "sklearn.linear_model.LogisticRegresion"}, "LogisticRegression"),
        (
            {
                "estimator": "sklearn.linear_model.LogisticRegression",
                "search": {"c": {"low": 1, "high": 2}},
            },
            "train.candidates[0].search.c: must be an argument of LogisticRegression, got 'c'. ",
        ),
    ],
)
def test_an_unknown_estimator_or_argument(
    world: World, candidate: dict[str, Any], said: str
) -> None:
    world.write_spec(MODEL, train={"candidates": [candidate]})
    run = world.run(f"{MODEL}__train")
    assert run.state == "failed"
    failed = [name for name, state in run.tasks.items() if state == "failed"]
    assert failed == ["train.tune [0]"]
    assert_clear(run.errors[failed[0]])
    assert said in run.errors[failed[0]]
    done = world.command("check", MODEL)
    assert done.returncode == 1
    assert said in done.stdout


NO_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "",
    "AWS_SECRET_ACCESS_KEY": "",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    "AWS_CONFIG_FILE": "/nonexistent",
}


@pytest.mark.usefixtures("stays")
def test_s3_without_credentials(world: World) -> None:
    source = {
        "kind": "s3",
        "path": "s3://bucket/churn/*.parquet",
        "endpoint_url": f"http://127.0.0.1:{free_port()}",
    }
    world.write_spec(MODEL, ingest={"source": source})
    run = world.run(f"{MODEL}__train", environment=NO_CREDENTIALS)
    assert run.state == "failed"
    task, error = run.failure
    assert task == "ingest"
    assert_clear(error)
    assert "credentials" in error


@pytest.mark.usefixtures("stays")
def test_mlflow_is_down(world: World) -> None:
    write_days(world.data(MODEL), first=40, days=5)
    url = f"http://127.0.0.1:{free_port()}"
    connection = f'{{"conn_type": "mlflow", "host": "{url}"}}'
    run = world.run(f"{MODEL}__train", environment={"AIRFLOW_CONN_MLFLOW_DEFAULT": connection})
    assert run.state == "failed"
    task, error = run.failure
    assert task == "ingest"
    assert_clear(error)
    assert f"MLflow at {url}: must answer" in error


@pytest.mark.usefixtures("stays")
def test_an_unknown_run_parameter(world: World) -> None:
    run = world.run(f"{MODEL}__train", {"forse": True})
    assert run.state == "failed"
    assert run.failure[0] == "admit"
    assert_clear(run.failure[1])
    assert "got forse" in run.failure[1]


def test_afterwards_good_data_still_trains(world: World, champion: dict[str, Any]) -> None:
    write_days(world.data(MODEL), first=40, days=10)
    run = world.run(f"{MODEL}__train")
    assert run.state == "success", run
    standing = world.standing(MODEL)
    assert standing["aliases"] == {"champion": "2", "previous_champion": "1"}
    assert standing["serves"] == "2"
    assert standing["intact"]
    assert world.open_runs(MODEL) == []
