"""Makes the training Dag of a model from its spec.

admit -> ingest -> validate -> train (tune per candidate, fit) -> evaluate -> register
-> [approve] -> deploy (smoke, the rollout's steps, promote);  finish closes the MLflow run in every case
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup

from evergreen.factory.assets import champion_asset, training_schedule
from evergreen.factory.naming import config_error_dag_id, training_dag_id
from evergreen.factory.params import training_params
from evergreen.factory.retries import retry_arguments
from evergreen.notify import notifiers
from evergreen.operators.admit import AdmitOperator
from evergreen.operators.approve import ApproveOperator
from evergreen.operators.config_error import ConfigErrorOperator
from evergreen.operators.deploy import PromoteOperator, SmokeOperator
from evergreen.operators.deploy_decide import AskOperator
from evergreen.operators.deploy_step import StepOperator
from evergreen.operators.evaluate import EvaluateOperator
from evergreen.operators.finish import FinishOperator
from evergreen.operators.ingest import IngestOperator
from evergreen.operators.register import RegisterOperator
from evergreen.operators.train import FitOperator, TuneOperator
from evergreen.operators.validate import ValidateOperator
from include.errors import SpecError
from include.notify.channels import hide_address
from include.spec.schema import Approval, Spec

# The C dumper is five times faster, which matters to a Dag processor that reads hundreds of specs.
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_STAGE_TIMEOUT = timedelta(hours=2)
_LARGE_TIMEOUT = timedelta(hours=12)


def training_dag(spec: Spec) -> DAG:
    """Return a model's training Dag."""
    with DAG(
        training_dag_id(spec.model),
        description=spec.description or f"Trains {spec.model}",
        schedule=training_schedule(spec),
        catchup=False,
        max_active_runs=1,
        tags=["evergreen", spec.model, spec.task],
        doc_md=_doc(spec),
        default_args=_default_args(spec),
        on_failure_callback=notifiers(spec, "failure") or None,
        render_template_as_native_obj=True,
    ) as dag:
        _tasks(spec)
    # Last: a task made later would hold a copy of its own, and Airflow checks and stores every copy.
    dag.params.update(training_params())
    return dag


def config_error_dag(path: Path, error: SpecError) -> DAG:
    """Return the Dag that shows what is wrong with a spec; it is never scheduled, and running it fails."""
    problems = "\n".join(f"* `{line}`" for line in str(error).splitlines())
    with DAG(
        config_error_dag_id(path.stem),
        description=f"{path.name} is wrong: {error.rule}"[:250],
        schedule=None,
        tags=["evergreen", "config-error"],
        doc_md=f"# `{path.name}` is wrong\n\n{problems}\n\n`./evergreen check` lists every problem.",
    ) as dag:
        ConfigErrorOperator(task_id="config_error", message=str(error))
    return dag


def _tasks(spec: Spec) -> None:
    model = spec.model
    admit = AdmitOperator(task_id="admit", model=model)
    data = IngestOperator(task_id="ingest", model=model)
    valid = ValidateOperator(
        task_id="validate", model=model, data=data.output, multiple_outputs=True
    )
    split = valid.output["split"]  # type: ignore[index]  # XComArg is indexable, says Airflow's manual
    with TaskGroup("train") as train:
        tuned = TuneOperator.partial(
            task_id="tune",
            model=model,
            data=data.output,
            split=split,
            map_index_template="{{ task.candidate_name }}",
            execution_timeout=spec.train.tune.timeout + _STAGE_TIMEOUT,
        ).expand(candidate=list(range(len(spec.candidates))))
        fitted = FitOperator(
            task_id="fit",
            model=model,
            data=data.output,
            split=split,
            tuned=tuned.output,
            execution_timeout=_LARGE_TIMEOUT,
        )
    verdict = EvaluateOperator(
        task_id="evaluate",
        model=model,
        data=data.output,
        split=split,
        fitted=fitted.output,
        on_success_callback=notifiers(spec, "rejection"),
    )
    version = RegisterOperator(
        task_id="register",
        model=model,
        data=data.output,
        split=split,
        fitted=fitted.output,
        verdict=verdict.output,
    )
    answer = _answer(spec, data, verdict, version)
    deploy = _deploy(
        spec,
        {"model": model, "data": data.output, "verdict": verdict.output, "version": version.output},
        answer,
    )
    finish = FinishOperator(
        task_id="finish",
        model=model,
        data=data.output,
        # Once more: a process that was killed after its task's end told nobody.
        on_success_callback=notifiers(spec, "rejection", "promotion", "rollback"),
    ).as_teardown(on_failure_fail_dagrun=True)
    admit >> data >> valid >> train >> verdict >> version >> deploy >> finish
    # A teardown that may fail the run is its only leaf where nothing else ends it, and hides what failed before.
    deploy >> EmptyOperator(task_id="done")


def _deploy(spec: Spec, given: dict[str, Any], answer: Any) -> TaskGroup:
    """Put the rollout's steps between the smoke request and the promotion."""
    given = given | {"answer": answer}
    home = notifiers(
        spec, "rejection", "rollback"
    )  # a challenger that is sent home is a success, too
    with TaskGroup("deploy") as deploy:
        before: Any = SmokeOperator(task_id="smoke", **given)
        for step in _steps(spec, given, home):
            before >> step
            before = step
        promote = PromoteOperator(
            task_id="promote",
            outlets=[champion_asset(spec.model)],
            on_success_callback=notifiers(spec, "promotion"),
            on_retry_callback=notifiers(spec, "rollback"),
            on_failure_callback=notifiers(spec, "rollback"),
            **given,
        )
        before >> promote
    return deploy


def _steps(spec: Spec, given: dict[str, Any], home: list[Any]) -> Iterator[Any]:
    rules = spec.deploy
    if rules.rollout == "direct":
        return
    if rules.rollout == "shadow":
        yield StepOperator(task_id="shadow", number=0, share=1.0, on_success_callback=home, **given)
        return
    for number, percent in enumerate(rules.steps):
        yield StepOperator(
            task_id=f"step_{percent}",
            number=number,
            share=percent / 100,
            on_success_callback=home,
            **given,
        )
    if rules.rollout != "ab":
        return
    if rules.decide == "labels":
        yield StepOperator(
            task_id="decide",
            number=len(rules.steps) - 1,
            share=rules.steps[-1] / 100,
            decides=True,
            on_success_callback=home,
            **given,
        )
        return
    yield AskOperator(
        task_id="decide",
        patience=rules.patience,
        execution_timeout=None,
        notifiers=notifiers(spec, "approval"),
        on_success_callback=home,
        **given,
    )


def _answer(spec: Spec, data: Any, verdict: Any, version: Any) -> Any:
    """Put a person between `register` and `deploy` where the spec asks for one."""
    if not isinstance(spec.register_.approval, Approval):
        return None
    approve = ApproveOperator(
        task_id="approve",
        model=spec.model,
        approval=spec.register_.approval.manual,
        data=data.output,
        verdict=verdict.output,
        version=version.output,
        execution_timeout=None,
        notifiers=notifiers(spec, "approval"),
        on_success_callback=notifiers(spec, "rejection"),  # a no is a success, too
    )
    return approve.output


def _default_args(spec: Spec) -> dict[str, Any]:
    return {"owner": spec.owner, "execution_timeout": _STAGE_TIMEOUT, **retry_arguments()}


def _doc(spec: Spec) -> str:
    shown = spec.canonical()
    shown["notify"]["to"] = [hide_address(receiver) for receiver in spec.notify.to]
    text = yaml.dump(shown, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return f"# {spec.model}\n\n{spec.description}\n\nThe spec, defaults filled in:\n\n```yaml\n{text}```\n"
