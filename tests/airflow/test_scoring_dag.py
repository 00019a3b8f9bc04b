"""The shape of a scoring Dag, as the spec asks for it, and what parsing it costs."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
from airflow.sdk import CronTriggerTimetable
from airflow.sdk.exceptions import AirflowSkipException, ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization
from evergreen.factory.assets import scores_asset
from evergreen.factory.params import score_params
from evergreen.factory.scoring import score_dag
from evergreen.operators.score import ShadowOperator, due, run_partition

from include.errors import DataError
from include.ledger.ledger import Ledger
from include.settings import ROOT
from include.spec import parameters
from include.spec.schema import Spec
from tests.airflow.test_parsing import SPEC, parse

SCORE = """
score:
  source: {{kind: file, path: "new/{{partition}}/*.csv"}}
  to: {{kind: file, path: scores}}
"""


def spec(**score: object) -> Spec:
    source = {"kind": "file", "path": "new/{partition}/*.csv"}
    return Spec.model_validate(
        {
            "model": "small",
            "task": "binary",
            "owner": "growth",
            "ingest": {"source": {"kind": "file", "path": "data/*.csv"}, "target": "y"},
            "score": {"source": source, "to": {"kind": "file", "path": "scores"}, **score},
            "notify": {"on": ["failure"], "to": ["json://127.0.0.1"]},
        }
    )


def context(logical: datetime | None, run_after: datetime, **params: object) -> dict[str, object]:
    run = SimpleNamespace(logical_date=logical, run_after=run_after)
    return {"params": params, "dag_run": run}


def test_shape() -> None:
    """The output is `score`'s alone: nothing that comes after can fail it."""
    dag = score_dag(spec())
    assert {t.task_id: set(t.downstream_task_ids) for t in dag.tasks} == {
        "score": {"shadow"},
        "shadow": set(),
    }
    assert [asset.uri for asset in dag.get_task("score").outlets] == ["x-evergreen://scores/small"]
    assert dag.get_task("shadow").outlets == []


def test_settings_of_the_dag() -> None:
    dag = score_dag(spec(schedule="30 4 * * *", timezone="Europe/Berlin"))
    assert dag.dag_id == "small__score"
    assert (dag.max_active_runs, dag.catchup) == (1, False)
    assert isinstance(dag.schedule, CronTriggerTimetable)
    assert str(dag.schedule.timezone) == "Europe/Berlin"
    assert {"evergreen", "score", "small"} <= set(dag.tags)
    assert {t.owner for t in dag.tasks} == {"growth"}
    assert all(t.retries == 3 and t.execution_timeout for t in dag.tasks)
    assert dag.on_failure_callback
    assert set(dag.params) == set(score_params())
    stored = DagSerialization.to_dict(dag)["dag"]
    assert not any(task["__var"].get("params") for task in stored["tasks"])
    assert score_dag(spec()).schedule is None


def test_the_same_spec_serialises_to_the_same_bytes() -> None:
    one, two = (DagSerialization.to_json(score_dag(spec(schedule="@daily"))) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("partition", "good"),
    [
        ("2026-03-01", True),
        ("region.north_1", True),
        (None, True),
        ("", False),
        ("../up", False),
        ("a/b", False),
        (".hidden", False),
        ("a b", False),
        ("x" * 101, False),
        (20260301, False),
    ],
)
def test_the_parameter_is_checked(partition: object, good: bool) -> None:
    params = score_dag(spec()).params
    if good:
        params["partition"] = partition
    else:
        with pytest.raises(ParamValidationError):
            params["partition"] = partition
    params.validate()


def test_the_partition_of_a_run() -> None:
    late = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
    now = datetime(2026, 6, 1, tzinfo=UTC)
    backfilled = context(late, now)
    assert run_partition(backfilled, "UTC") == "2026-03-01"
    assert run_partition(backfilled, "Europe/Berlin") == "2026-03-02"
    by_asset = context(None, late)
    assert due(by_asset) == late
    assert run_partition(by_asset, "UTC") == "2026-03-01"
    assert run_partition(context(late, now, partition="north"), "UTC") == "north"
    assert run_partition(context(late, late + timedelta(days=9)), "UTC") == "2026-03-01"


def test_a_line_break_that_the_schema_lets_pass_is_refused() -> None:
    now = datetime(2026, 6, 1, tzinfo=UTC)
    with pytest.raises(DataError, match="run parameters: partition"):
        run_partition(context(now, now, partition="2026-03-01\n"), "UTC")


def test_the_example_listens_to_what_is_announced() -> None:
    dag = run_path(str(ROOT / "docs/examples/use_scores.py"))["dag"]
    assert dag.schedule == [scores_asset("churn")]
    events = {scores_asset("churn"): [SimpleNamespace(extra={"partition": "2026-03-01"})]}
    assert dag.get_task("use").python_callable(triggering_asset_events=events) == ["2026-03-01"]


@pytest.mark.parametrize(
    ("mode", "version", "asked"),
    [(None, "", None), ("canary", "2", None), ("shadow", "2", "2"), ("shadow", "1", None)],
)
def test_whom_the_shadow_is_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str | None, version: str, asked: object
) -> None:
    """The version that the judge pairs, though a later run has nominated another."""
    ledger, now = Ledger(f"sqlite:///{tmp_path}/ledger.db"), datetime(2026, 3, 1, tzinfo=UTC)
    if mode:
        begun = {"action": "begin", "id": "r", "version": version, "mode": mode, "share": 1.0}
        ledger.record("small", "rollout", "r", {**begun, "champion": "1", "step": -1}, "ann", now)
    operator = ShadowOperator(
        task_id="shadow",
        model="small",
        scored={"version": "1", "partition": "p", "source": "digest"},
    )
    registry = SimpleNamespace(aliases=lambda name: {"champion": "1", "challenger": "3"})
    operator.__dict__["bench"] = SimpleNamespace(ledger=ledger, registry=registry)
    opened: list[str] = []

    @contextmanager
    def open_it(version: str, *_: object) -> Iterator[None]:
        opened.append(version)
        yield

    operator.opened = open_it
    monkeypatch.setattr(
        "include.score.shadow.shadow",
        lambda *_, **__: SimpleNamespace(version=version, rows=1, failed=0),
    )
    run = {"ti": SimpleNamespace(xcom_push=lambda **_: None)}
    if asked is None:
        with pytest.raises(AirflowSkipException):
            operator.work(run)
        assert opened == []
    else:
        assert operator.work(run)["version"] == asked
        assert opened == [asked]


def test_parsing_is_light_and_only_for_who_asks(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(SPEC.format(name="one") + SCORE.format())
    (tmp_path / "two.yaml").write_text(SPEC.format(name="two") + SCORE.format())
    (tmp_path / "quiet.yaml").write_text(SPEC.format(name="quiet"))
    (tmp_path / "bad.yaml").write_text("model: bad\n")
    assert parse(tmp_path, "scoring.py") == {"dags": ["one__score", "two__score"], "heavy": []}
    only = {"_AIRFLOW_PARSING_CONTEXT_DAG_ID": "two__score"}
    assert parse(tmp_path, "scoring.py", **only)["dags"] == ["two__score"]


def test_every_parameter_is_known_to_those_who_check_without_airflow() -> None:
    assert tuple(score_params()) == parameters.SCORING
