"""What every stage operator shares: the parts it works with, and how an error of ours ends a task."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from evergreen.hooks.mlflow_hook import MlflowHook
from evergreen.links import RUN_URL_KEY, MlflowRunLink
from include.errors import ConflictError, DataError, EvergreenError
from include.settings import Settings, get_settings
from include.spec.loader import find_spec, load_spec

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from include.ledger.ledger import Ledger
    from include.registry.gateway import Registry
    from include.spec.schema import Spec
    from include.store.files import Store
    from include.store.snapshots import Manifest

SKIP_KEY = "skip_reason"


class EvergreenOperator(BaseOperator):
    """An operator whose permanent errors end the task at once, in one line.

    A `ServiceError` may pass and is left to the task's retries; every other error of ours would come
    back on every try, so it fails the task without one.
    """

    def execute(self, context: Context) -> Any:
        """Run `work` and translate its errors."""
        return self.plainly(lambda: self.work(context))

    def plainly(self, work: Callable[[], Any]) -> Any:
        """Return what `work` returns, its errors translated; for what a deferred task comes back to."""
        try:
            return work()
        except EvergreenError as error:
            if error.transient:
                raise
            raise AirflowFailException(str(error)) from None

    @abstractmethod
    def work(self, context: Context) -> Any:
        """Do the task's work and return what goes to XCom."""


@dataclass(frozen=True)
class Workbench:
    """The parts a stage works with; each is opened when first used."""

    model: str
    hook: MlflowHook
    settings: Settings

    @cached_property
    def spec(self) -> Spec:
        """The model's spec as it stands now."""
        return load_spec(find_spec(self.model, self.settings), self.settings)

    def spec_for(self, data: Mapping[str, Any]) -> Spec:
        """The spec of a run: where it leaves the features open, the champion's schema holds.

        Args:
            data: What `ingest` returned.

        Raises:
            ConflictError: The spec was edited since.
        """
        if data["spec_hash"] != self.spec.spec_hash:
            raise ConflictError(
                f"{self.model}.yaml",
                "must stay the same during a run, got a change since `ingest`",
                "Start a new run, or clear this one from `ingest` on.",
            )
        held = data["features"]
        return self.spec.with_features(**held) if held else self.spec

    @cached_property
    def store(self) -> Store:
        """Where snapshots and work files lie."""
        from include.store.files import open_store

        return open_store(self.settings.store_uri, cache=self.settings.home / "cache")

    @cached_property
    def ledger(self) -> Ledger:
        """The record of requests, decisions and moves."""
        from include.ledger.ledger import Ledger

        return Ledger(self.settings.ledger_dsn)

    @property
    def registry(self) -> Registry:
        """The model registry."""
        return self.hook.registry

    def manifest(self, snapshot_id: str) -> Manifest:
        """Read the manifest of one of this model's snapshots."""
        from include.store.snapshots import read_manifest

        return read_manifest(self.store, self.model, snapshot_id)

    @property
    def model_cache(self) -> Path:
        """Folder of downloaded model versions."""
        return self.settings.home / "cache" / "models"


class StageOperator(EvergreenOperator):
    """Base of the operators of a training Dag.

    Args:
        model: Name of the model, which is the stem of its spec.
        mlflow_conn_id: Airflow connection of type `mlflow`.
    """

    operator_extra_links: Collection[BaseOperatorLink] = (MlflowRunLink(),)
    template_fields: Sequence[str] = ("model",)
    ui_color = "#e5f4ea"

    def __init__(
        self, *, model: str, mlflow_conn_id: str = MlflowHook.default_conn_name, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.mlflow_conn_id = mlflow_conn_id

    @cached_property
    def bench(self) -> Workbench:
        """The parts this stage works with."""
        return Workbench(self.model, MlflowHook(self.mlflow_conn_id), get_settings())

    def link_run(self, context: Context, run_id: str) -> None:
        """Put a link to the MLflow run on the task."""
        context["ti"].xcom_push(key=RUN_URL_KEY, value=self.bench.hook.run_url(run_id))


def run_key(context: Context) -> str:
    """Return the idempotency key of the Dag run: the same on every try and after every clear."""
    run = context["dag_run"]
    return f"{run.dag_id}/{run.run_id}"


def skip(context: Context, reason: str) -> NoReturn:
    """End the task as skipped, with the reason where callers of the REST API find it.

    Raises:
        AirflowSkipException: Always.
    """
    context["ti"].xcom_push(key=SKIP_KEY, value=reason)
    raise AirflowSkipException(reason)


def utc_now() -> datetime:
    """Return the time; the one place where operators read the clock."""
    return datetime.now(UTC)


def as_of(context: Context) -> datetime | None:
    """Return the time the run shall act as if it were; None where it acts by the clock.

    Raises:
        DataError: It is no time, has no time zone, or lies in the future.
    """
    given = context["params"].get("as_of")
    if given is None:
        return None
    try:
        moment = datetime.fromisoformat(str(given))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or moment > utc_now():
        raise DataError(
            "run parameters: as_of",
            f"must be a past time with its zone, got {given!r}",
            "Write it like 2026-03-01T00:00:00Z.",
        )
    return moment.astimezone(UTC)


def act_time(context: Context) -> datetime:
    """Return the time by which a run judges data, ages and pauses: `as_of` where given, else the clock."""
    return as_of(context) or utc_now()


def require_conf(conf: dict[str, Any] | None, known: Sequence[str]) -> None:
    """Refuse run parameters nobody knows; Airflow itself lets them pass.

    Raises:
        AirflowFailException: Naming the unknown keys.
    """
    unknown = sorted(set(conf or {}) - set(known))
    if unknown:
        raise AirflowFailException(
            f"run parameters: must be among {', '.join(known)}, got {', '.join(unknown)}. Correct the request."
        )
