"""Waits for MLflow without holding a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException, TaskDeferralTimeout

from evergreen.operators.mlflow_base import MlflowOperator, version_text
from evergreen.triggers.alias import AliasTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class MlflowAliasSensor(MlflowOperator):
    """Waits until an alias points at a version, or at another one than before. Returns the version.

    It defers: while it waits it takes no worker slot. An alias that moves there and back between two looks
    goes unnoticed.

    Args:
        name: Name of the registered model.
        alias: The alias.
        version: Wait for this version; None waits for any.
        other_than: Wait until the alias points at another version than this; None accepts any.
        poll_interval: Time between two looks.
        timeout: Longest wait; then the task fails, without another try.
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

    def work(self, context: Context) -> str:
        """Look once, then defer."""
        trigger = AliasTrigger(
            mlflow_conn_id=self.mlflow_conn_id,
            name=self.name,
            alias=self.alias,
            version=version_text(self.version),
            other_than=version_text(self.other_than),
            poll_seconds=max(1.0, self.poll_interval.total_seconds()),
        )
        found = self.registry.aliases(self.name).get(self.alias)
        if not trigger.wanted(found):
            self.log.info("%s@%s is at %s: waiting", self.name, self.alias, found)
            self.defer(trigger=trigger, method_name="resume", timeout=self.timeout)
        return self._found(context, str(found))

    def resume(self, context: Context, event: Mapping[str, Any]) -> str:
        """Take the trigger's answer."""
        if "error" in event:
            raise AirflowFailException(str(event["error"]))
        return self._found(context, str(event["version"]))

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Say in one line that time is up; waiting just as long again would be a surprise."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            raise AirflowFailException(
                f"{self.name}@{self.alias}: must point at {self.version or 'another version'} within "
                f"{self.timeout}, got no such move. Wait longer, or look why nobody promoted."
            ) from None

    def _found(self, context: Context, version: str) -> str:
        self.log.info("%s@%s is at %s", self.name, self.alias, version)
        self.link_version(context, self.name, version)
        return version
