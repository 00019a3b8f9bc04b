"""Waits for MLflow without holding a worker."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from evergreen.operators.mlflow_base import MlflowOperator
from evergreen.triggers.alias import AliasTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class MlflowAliasSensor(MlflowOperator):
    """Waits until an alias points at a version, or at another one than before. Returns the version.

    It defers: while it waits it takes no worker slot.

    Args:
        name: Name of the registered model.
        alias: The alias.
        version: Wait for this version; None waits for any.
        other_than: Wait until the alias has left this version.
        poll_interval: Time between two looks.
        timeout: Longest wait; then the task fails.
    """

    template_fields: Sequence[str] = (
        *MlflowOperator.template_fields,
        "name",
        "alias",
        "version",
        "other_than",
    )

    def __init__(
        self,
        *,
        name: str,
        alias: str,
        version: str | None = None,
        other_than: str | None = None,
        poll_interval: timedelta = timedelta(seconds=10),
        timeout: timedelta = timedelta(hours=1),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.alias = alias
        self.version = version
        self.other_than = other_than
        self.poll_interval = poll_interval
        self.timeout = timeout

    def work(self, context: Context) -> str:  # noqa: ARG002  # Airflow's signature
        """Look once, then defer."""
        trigger = AliasTrigger(
            mlflow_conn_id=self.mlflow_conn_id,
            name=self.name,
            alias=self.alias,
            version=None if self.version is None else str(self.version),
            other_than=None if self.other_than is None else str(self.other_than),
            poll_seconds=self.poll_interval.total_seconds(),
        )
        found = self.registry.aliases(self.name).get(self.alias)
        if not trigger.wanted(found):
            self.defer(trigger=trigger, method_name="resume", timeout=self.timeout)
        return str(found)

    def resume(self, context: Context, event: dict[str, Any]) -> str:  # noqa: ARG002  # Airflow's signature
        """Take the trigger's answer."""
        if "error" in event:
            raise AirflowFailException(event["error"])
        return str(event["version"])
