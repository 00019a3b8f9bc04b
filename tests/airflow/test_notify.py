"""Which tasks tell of what, and that nobody can read an address from a Dag."""

from typing import Any

import pytest
from airflow.serialization.serialized_objects import DagSerialization
from evergreen.factory.training import training_dag

from include.spec.schema import Spec

SECRET = "s3cret-passw0rd"
EVENTS = ("failure", "promotion", "rejection", "drift", "rollback", "approval")


def spec(*on: str, to: str = f"json://ann:{SECRET}@example.com/T0KENT0KEN", **more: Any) -> Spec:
    return Spec.model_validate(
        {
            "model": "small",
            "task": "binary",
            "ingest": {"source": {"kind": "file", "path": "data/*.csv"}, "target": "y"},
            "register": {"approval": {"manual": {"approvers": ["ann"]}}},
            "notify": {"on": list(on), "to": [to] if to else []},
            **more,
        }
    )


def names(callbacks: Any) -> list[str]:
    return [type(one).__name__.removesuffix("Notifier").lower() for one in callbacks or ()]


def told(dag: Any) -> dict[str, list[str]]:
    """Task (or Dag) and occasion -> events told."""
    found = {"dag failure": names(dag.on_failure_callback)}
    for task in dag.tasks:
        for when in ("success", "retry", "failure", "skipped"):
            found[f"{task.task_id} {when}"] = names(getattr(task, f"on_{when}_callback", ()))
        found[f"{task.task_id} asks"] = names(getattr(task, "notifiers", ()))
    return {where: events for where, events in found.items() if events}


def test_every_event_is_told_where_it_happens_and_once_more_at_the_end() -> None:
    assert told(training_dag(spec(*EVENTS))) == {
        "dag failure": ["failure"],
        "evaluate success": ["rejection"],
        "approve asks": ["approval"],
        "approve success": ["rejection"],
        "deploy.promote success": ["promotion"],
        "deploy.promote retry": ["rollback"],
        "deploy.promote failure": ["rollback"],
        "finish success": ["rejection", "promotion", "rollback"],
    }


@pytest.mark.parametrize("event", EVENTS)
def test_only_what_the_spec_asks_for_is_told(event: str) -> None:
    events = {one for several in told(training_dag(spec(event))).values() for one in several}
    assert events == ({event} if event != "drift" else set())


@pytest.mark.parametrize("wanted", [spec(*EVENTS, to=""), spec()])
def test_nobody_to_tell_or_nothing(wanted: Spec) -> None:
    dag = training_dag(wanted)
    assert told(dag) == {}
    assert not dag.has_on_failure_callback


def test_no_address_can_be_read_from_a_dag() -> None:
    dag = training_dag(spec(*EVENTS))
    assert "json://..." in dag.doc_md
    seen = dag.doc_md + str(DagSerialization.to_dict(dag))
    assert SECRET not in seen
    assert "T0KENT0KEN" not in seen
