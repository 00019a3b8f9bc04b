"""Runs Dags in this process, through Airflow's own `dag.test()`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUNDLE = "dags-folder"


@dataclass(frozen=True)
class Ended:
    """How a Dag run ended."""

    run_id: str
    state: str
    tasks: dict[str, str]
    xcoms: dict[tuple[str, str], Any]

    def value(self, task_id: str) -> Any:
        return self.xcoms.get((task_id, "return_value"))

    def link(self, task_id: str) -> Any:
        """What the web UI shows behind the task's button."""
        return self.xcoms.get((task_id, "_link_MlflowRunLink"))


def dags_of(path: Path) -> dict[str, Any]:
    """Parse a file and make its Dags known to the database, which `dag.test()` takes for granted."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db

    DagBundlesManager().sync_bundles_to_db()
    bag = BundleDagBag(dag_folder=path, bundle_path=path.parent, bundle_name=BUNDLE)
    assert not bag.import_errors, dict(bag.import_errors)
    sync_bag_to_db(bag, BUNDLE, None)
    return dict(bag.dags)


def run(dag: Any, **options: Any) -> Ended:
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    ended = dag.test(**options)
    with create_session() as session:
        mine = {"dag_id": ended.dag_id, "run_id": ended.run_id}
        tis = session.scalars(select(TaskInstance).filter_by(**mine)).all()
        found = session.scalars(select(XComModel).filter_by(**mine)).all()
        return Ended(
            run_id=ended.run_id,
            state=str(ended.state.value),
            tasks={
                ti.task_id + (f"[{ti.map_index}]" if ti.map_index >= 0 else ""): str(ti.state)
                for ti in tis
            },
            xcoms={(x.task_id, x.key): x.value for x in found},
        )
