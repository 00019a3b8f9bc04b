"""The forms of a rollback and of a release: their shape, what they take, what they cost the Dag processor."""

from pathlib import Path

import pytest
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization
from evergreen.factory.rollback import rollback_dag, unpin_dag

from tests.airflow.test_parsing import SPEC, parse

MODELS = ["churn", "shop"]
GOOD = {"model": "shop", "reason": "complaints"}


def test_shape() -> None:
    for dag, task, fields in (
        (rollback_dag(MODELS), "rollback", {"model", "version", "reason"}),
        (unpin_dag(MODELS), "unpin", {"model", "reason"}),
    ):
        (only,) = dag.tasks
        assert only.task_id == task
        assert fields <= set(only.template_fields)
        assert tuple(dag.params) == tuple(f for f in ("model", "version", "reason") if f in fields)
        assert (dag.schedule, dag.max_active_runs, dag.catchup) == (None, 1, False)
        assert dag.is_paused_upon_creation is False
        assert only.retries == 3
    one, two = (DagSerialization.to_json(rollback_dag(MODELS)) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    "more", [{}, {"version": None}, {"version": ""}, {"version": "12"}, {"model": "churn"}]
)
def test_what_a_person_may_ask(more: dict[str, object]) -> None:
    params = rollback_dag(MODELS).params
    for name, value in (GOOD | more).items():
        params[name] = value
    params.validate()


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "chrun"},
        {"model": None},
        {"version": "latest"},
        {"version": 3},
        {"version": "-1"},
        {"reason": ""},
        {"reason": "  "},
        {"reason": None},
        {"reason": "x" * 501},
    ],
)
def test_a_mistake_is_refused(wrong: dict[str, object]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ParamValidationError):
        rollback_dag(MODELS).params[name] = value


@pytest.mark.parametrize("missing", ["model", "reason"])
def test_what_must_be_given(missing: str) -> None:
    params = unpin_dag(MODELS).params
    for name, value in GOOD.items():
        if name != missing:
            params[name] = value
    with pytest.raises(ParamValidationError):
        params.validate()


def test_the_file_parses_lightly_and_offers_models_with_broken_specs(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(SPEC.format(name="good"))
    (tmp_path / "bad.yaml").write_text("model: bad\ntask: binry\n")
    found = parse(tmp_path, "rollback.py")
    assert found == {"dags": ["evergreen__rollback", "evergreen__unpin"], "heavy": []}
    (tmp_path / "empty").mkdir()
    assert parse(tmp_path / "empty", "rollback.py")["dags"] == []
