"""Every general MLflow operator around a plain scikit-learn training: copy it, change `train`.

Nothing of it needs a spec. Connection `mlflow_default` says where MLflow is.
"""

from __future__ import annotations

import tempfile
from datetime import timedelta

from airflow.sdk import DAG, task
from evergreen.hooks.mlflow_hook import MlflowHook
from evergreen.operators.mlflow_models import (
    MlflowPromoteOperator,
    MlflowRegisterModelOperator,
    MlflowRollbackOperator,
    MlflowSetAliasOperator,
)
from evergreen.operators.mlflow_runs import (
    MlflowFinishRunOperator,
    MlflowLogArtifactsOperator,
    MlflowLogOperator,
    MlflowReapRunsOperator,
    MlflowStartRunOperator,
)

MODEL = "wine"


@task
def train() -> dict:
    """Fit a classifier and save it as an MLflow model in a folder."""
    import mlflow.sklearn
    from mlflow.models import infer_signature
    from sklearn.datasets import load_wine
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, target = load_wine(return_X_y=True, as_frame=True)
    parts = train_test_split(rows, target, test_size=0.3, random_state=42, stratify=target)
    rows_train, rows_test, target_train, target_test = parts
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5))
    model.fit(rows_train, target_train)
    # The upload runs in a task of its own: with several workers, use a folder they share.
    folder = tempfile.mkdtemp(prefix="wine-")
    mlflow.sklearn.save_model(
        model,
        folder + "/model",
        signature=infer_signature(rows_test, model.predict(rows_test)),
        pip_requirements=["scikit-learn", "skops"],
    )
    return {"folder": folder, "accuracy": float(model.score(rows_test, target_test)), "C": 0.5}


@task
def aliases() -> dict[str, str]:
    """Read which version each alias points at now."""
    return MlflowHook().registry.aliases(MODEL)


@task.short_circuit
def good_enough(trained: dict) -> bool:
    """Go on to the promotion only with a good model."""
    return trained["accuracy"] > 0.9


with DAG(
    "example_mlflow_operators",
    schedule=None,
    catchup=False,
    tags=["example"],
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    doc_md=__doc__,
):
    start = MlflowStartRunOperator(task_id="start", experiment=MODEL, tags={"team": "cellar"})
    trained = train()

    log = MlflowLogOperator(
        task_id="log",
        run_id=start.output,
        metrics={"accuracy": trained["accuracy"]},
        run_params={"C": trained["C"]},
    )
    upload = MlflowLogArtifactsOperator(
        task_id="upload", run_id=start.output, folder=trained["folder"]
    )
    register = MlflowRegisterModelOperator(
        task_id="register",
        name=MODEL,
        source="runs:/{{ ti.xcom_pull('start') }}/model",
        tags={"team": "cellar"},
    )
    before = aliases()
    tested = MlflowSetAliasOperator(
        task_id="tested",
        name=MODEL,
        alias="tested",
        version=register.output,
        expected="{{ ti.xcom_pull('aliases').get('tested') }}",
    )
    promote = MlflowPromoteOperator(
        task_id="promote",
        name=MODEL,
        version=register.output,
        expected="{{ ti.xcom_pull('aliases').get('champion') }}",
        reason="accuracy {{ ti.xcom_pull('train')['accuracy'] }}",
    )
    finish = MlflowFinishRunOperator(task_id="finish", run_id=start.output)

    start >> trained >> [log, upload] >> register >> before >> tested
    tested >> good_enough(trained) >> promote >> finish.as_teardown(setups=start)

with DAG(
    "example_mlflow_rollback",
    schedule=None,
    catchup=False,
    tags=["example"],
    params={"reason": "the new version is wrong"},
    doc_md="Returns to the champion before; run it by hand when a new one disappoints.",
):
    MlflowRollbackOperator(task_id="rollback", name=MODEL, reason="{{ params.reason }}")

with DAG(
    "example_mlflow_reap",
    schedule="@daily",
    catchup=False,
    tags=["example"],
    doc_md="Closes runs that killed workers left open.",
):
    MlflowReapRunsOperator(task_id="reap", experiment=MODEL, older_than=timedelta(days=1))
