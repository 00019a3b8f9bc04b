"""Does something with each partition that was scored."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, task

MODEL = "churn"
SCORES = Asset(name=f"{MODEL}_scores", uri=f"x-evergreen://scores/{MODEL}")


@task
def use(triggering_asset_events: Any = None) -> list[str]:
    """Take every event: Airflow makes one run of events that come close together."""
    return [str(event.extra["partition"]) for event in triggering_asset_events[SCORES]]


with DAG(
    "example_use_scores", schedule=[SCORES], catchup=False, tags=["example"], doc_md=__doc__
) as dag:
    use()
