"""An upstream job in Airflow that announces new data of the model `churn`.

The spec says `retrain: {on: [data]}`: an announcement starts `churn__train`, which decides by itself whether to
train: cool-down, weekly budget, and whether it has judged this very data before.
"""

from __future__ import annotations

from airflow.sdk import DAG, Asset, Metadata, task

CHURN_DATA = Asset(name="churn_data", uri="x-evergreen://data/churn")


@task(outlets=[CHURN_DATA])
def load():
    """Write the day's rows where the spec's source looks, then announce them."""
    rows = 1200  # your job's own work stands here
    yield Metadata(CHURN_DATA, {"rows": rows})


with DAG(
    "example_announce_data",
    schedule=None,
    catchup=False,
    tags=["example"],
    doc_md=__doc__,
):
    load()
