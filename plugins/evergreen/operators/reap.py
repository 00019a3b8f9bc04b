"""The clean-up's first half: runs and requests that nobody ends are ended, and small files are made large ones."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from evergreen.factory.naming import monitor_experiment
from evergreen.hooks.mlflow_hook import MlflowHook
from evergreen.operators.stage import (
    EvergreenOperator,
    Workbench,
    require_conf,
    run_key,
    utc_now,
)
from include.errors import DataError, EvergreenError, ServiceError, SpecError
from include.settings import get_settings
from include.spec.loader import load_spec, spec_paths

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.registry.rollouts import Standing
    from include.spec.schema import Spec

PARAM_NAMES = ("dry_run",)
# A run whose Dag run has ended, yet which was opened a moment ago, may be about to be closed by `finish`.
_SETTLED = timedelta(hours=6)
# Airflow does not know every run: `./evergreen run` keeps a database of its own.
_STRANGE = timedelta(days=3)
# The monitor asks again with its next window, as long as there is reason to.
_REQUEST = timedelta(days=7)
_UNDER_WAY = ["queued", "running"]
_OURS = ("evergreen.run_key", "evergreen.trial")
_PARENT = "mlflow.parentRunId"


class ReapOperator(EvergreenOperator):
    """Base of the tasks of the clean-up: the parts they work with, and whether they may act.

    Args:
        mlflow_conn_id: Airflow connection of type `mlflow`.
    """

    ui_color = "#efe9dc"

    def __init__(
        self, *, mlflow_conn_id: str = MlflowHook.default_conn_name, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id

    @cached_property
    def bench(self) -> Workbench:
        """The parts, of no model in particular."""
        return Workbench("", MlflowHook(self.mlflow_conn_id), get_settings())

    @cached_property
    def specs(self) -> list[Spec]:
        """All specs; a broken one is left out, and so are its logs."""
        found = []
        for path in spec_paths(self.bench.settings):
            try:
                found.append(load_spec(path, self.bench.settings))
            except SpecError as error:
                self.log.warning("left alone: %s", error)
        return found

    @cached_property
    def broken(self) -> dict[str, Exception]:
        """Models for which something went wrong, and what; the task fails with them once it is through."""
        return {}

    @contextmanager
    def going_on(self, model: str) -> Iterator[None]:
        """Note what goes wrong with one model, and go on with the next."""
        try:
            yield
        except EvergreenError as error:
            self.log.error("%s: %s", model, error)
            self.broken[model] = error
        except Exception as error:  # one model's damage is not the others'
            self.log.exception("%s", model)
            self.broken[model] = error

    def has_history(self, model: str) -> bool:
        """Return whether the ledger has events of a model: then what MLflow and the store have of it is ours."""
        return self.bench.ledger.head(model) > 0

    def work(self, context: Context) -> Any:
        """Look whether this is a dry run, act, and fail if something went wrong with a model.

        Raises:
            ServiceError: It may go well the next time.
            DataError: It will not.
        """
        self.broken.clear()
        require_conf(context["dag_run"].conf, PARAM_NAMES)
        asked = context["params"].get("dry_run")
        # A run by hand only shows what it would do, unless told otherwise.
        dry = asked if asked is not None else context["dag_run"].run_type.value != "scheduled"
        if dry:
            self.log.info("dry run: nothing is changed; pass dry_run=false to act")
        result = self.act(context, utc_now(), dry=dry)
        if self.broken:
            said = "; ".join(f"{m} ({str(e).rstrip('.')})" for m, e in self.broken.items())
            transient = any(isinstance(error, ServiceError) for error in self.broken.values())
            raise (ServiceError if transient else DataError)(
                self.task_id,
                f"must go well for every model, got trouble with {said}",
                "The other models are done.",
            )
        return result

    @abstractmethod
    def act(self, context: Context, now: datetime, *, dry: bool) -> Any:
        """Do the task's part and return what goes to XCom.

        Args:
            context: Airflow's context.
            now: The time.
            dry: Only say what would be done.
        """


class CloseRunsOperator(ReapOperator):
    """Closes the MLflow runs that dead workers left RUNNING. Returns their ids by experiment.

    A run stays open as long as Airflow knows its Dag run to be queued or running, however long that takes. Models
    without a row in this ledger are left alone: another installation may share the MLflow server.
    """

    def act(self, context: Context, now: datetime, *, dry: bool) -> dict[str, list[str]]:
        """Close them, experiment by experiment, and end the rollouts that such runs left behind."""
        from include.store.prune import stored_models

        models = sorted({*stored_models(self.bench.store), *(spec.model for spec in self.specs)})
        closed: dict[str, list[str]] = {}
        for model in models:
            with self.going_on(model):
                closed |= self._close_all(context, model, now, dry=dry)
                self._end_rollout(context, model, now, dry=dry)
        return closed

    def _end_rollout(self, context: Context, model: str, now: datetime, *, dry: bool) -> None:
        """End a rollout that nobody looks after; `finish` does so, unless it was killed or its run was deleted."""
        from include.registry.rollouts import current, end, settle

        standing = current(self.bench.ledger, model)
        why = self._left_alone(context, model, standing, now) if standing is not None else ""
        if standing is None or not why:
            if not dry and self.has_history(model):
                settle(self.bench.registry, self.bench.ledger, model)
            return
        self.log.info("%s: the rollout of version %s: %s", model, standing.rollout.version, why)
        if not dry:
            end(
                self.bench.registry,
                self.bench.ledger,
                model,
                standing.rollout.id,
                outcome="ABANDONED",
                reason=why,
                actor=run_key(context),
                now=now,
            )

    def _left_alone(self, context: Context, model: str, standing: Standing, now: datetime) -> str:
        """Return why nobody looks after a rollout; empty where somebody may."""
        rules = next((spec.deploy for spec in self.specs if spec.model == model), None)
        if rules is not None and now - standing.since > rules.hold + rules.patience:
            return "nobody ended it when its hold and its patience were over"  # a paused Dag, a deleted run
        dag_id, _, run_id = standing.actor.partition("/")
        count = context["ti"].get_dr_count
        if count(dag_id=dag_id, run_ids=[run_id], states=_UNDER_WAY):
            return ""
        if now - standing.began < _STRANGE and not count(dag_id=dag_id, run_ids=[run_id]):
            return ""
        return "its run is over"

    def _close_all(
        self, context: Context, model: str, now: datetime, *, dry: bool
    ) -> dict[str, list[str]]:
        closed: dict[str, list[str]] = {}
        ours = self.has_history(model)
        for experiment in (model, monitor_experiment(model)):
            # MLflow is asked in any case: the tasks after this one rely on it.
            opened = self.bench.registry.open_runs(experiment)
            if opened is None or not ours:
                continue
            if found := self._close(context, experiment, opened, now, dry=dry):
                self.log.info("%s: %s", experiment, ", ".join(found))
                closed[experiment] = found
        return closed

    def _close(
        self,
        context: Context,
        experiment: str,
        opened: Mapping[str, Mapping[str, str]],
        now: datetime,
        *,
        dry: bool,
    ) -> list[str]:
        alive = {run_id for run_id, tags in opened.items() if _alive(context, tags, now)}
        if dry:
            return [
                run_id
                for run_id, tags in opened.items()
                if not {run_id, tags.get(_PARENT)} & alive and any(tag in tags for tag in _OURS)
            ]
        return self.bench.registry.reap_runs(experiment, older_than=_SETTLED, now=now, keep=alive)


def _alive(context: Context, tags: Mapping[str, str], now: datetime) -> bool:
    """Return whether somebody may still be working on an MLflow run."""
    opened = int(tags.get("evergreen.opened_ms", 0)) / 1000
    age = now.timestamp() - opened
    if age < _SETTLED.total_seconds():
        return True
    dag_id, run_id = tags.get("airflow.dag_id"), tags.get("airflow.run_id")
    if not dag_id or not run_id:
        return False  # a trial: alive with its parent
    count = context["ti"].get_dr_count
    if count(dag_id=dag_id, run_ids=[run_id], states=_UNDER_WAY):
        return True
    return age < _STRANGE.total_seconds() and not count(dag_id=dag_id, run_ids=[run_id])


class ExpireRequestsOperator(ReapOperator):
    """Gives up wishes to retrain that nobody answered for long. Returns how many, by model."""

    def act(self, context: Context, now: datetime, *, dry: bool) -> dict[str, int]:
        """Expire them; each is recorded in the ledger."""
        given_up = {}
        for spec in self.specs:
            with self.going_on(spec.model):
                if count := self._expire(context, spec, now, dry=dry):
                    given_up[spec.model] = count
        return given_up

    def _expire(self, context: Context, spec: Spec, now: datetime, *, dry: bool) -> int:
        ledger, before = self.bench.ledger, now - _REQUEST - spec.retrain.cooldown
        if dry:
            waiting = ledger.requests(spec.model)
            stale = [r for r in waiting if datetime.fromisoformat(r.at) < before]
        else:
            stale = ledger.expire_requests(spec.model, before, now=now, actor=run_key(context))
        for request in stale:
            self.log.info("%s: %s, asked for at %s", spec.model, request.reason, request.at)
        return len(stale)


class CompactLogsOperator(ReapOperator):
    """Makes one file of the many small ones of each past day of predictions and labels.

    Returns how many, by model.
    """

    def act(self, context: Context, now: datetime, *, dry: bool) -> dict[str, int]:  # noqa: ARG002
        """Compact the days that are over."""
        made = {}
        for spec in [] if dry else self.specs:
            with self.going_on(spec.model):
                if count := self._compact(spec, now):
                    made[spec.model] = count
        return made

    def _compact(self, spec: Spec, now: datetime) -> int:
        from include.store import labels, predictions

        store, today = self.bench.store, now.date()
        count = predictions.compact(store, spec.model, before=today)
        count += labels.compact(store, spec.model, before=today)
        if count:
            self.log.info("%s: compacted %d files", spec.model, count)
        return count
