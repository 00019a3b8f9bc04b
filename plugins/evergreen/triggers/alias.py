"""Watches an alias of a registered model from the triggerer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.triggers.base import BaseTrigger, TriggerEvent

from evergreen.hooks.mlflow_hook import tracking_uri
from include.errors import EvergreenError

if TYPE_CHECKING:
    from include.registry.gateway import Registry


class AliasTrigger(BaseTrigger):
    """Fires when an alias points where it is wanted.

    Args:
        mlflow_conn_id: Connection of type `mlflow`.
        name: Name of the registered model.
        alias: The alias.
        version: The version waited for; None is any.
        other_than: The version the alias must have left; None is none.
        poll_seconds: Time between two looks, in seconds.
    """

    def __init__(
        self,
        mlflow_conn_id: str,
        name: str,
        alias: str,
        version: str | None,
        other_than: str | None,
        poll_seconds: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's triggers are untyped
        self.mlflow_conn_id = mlflow_conn_id
        self.name = name
        self.alias = alias
        self.version = version
        self.other_than = other_than
        self.poll_seconds = poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, from which any triggerer rebuilds this."""
        names = ("mlflow_conn_id", "name", "alias", "version", "other_than", "poll_seconds")
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {name: getattr(self, name) for name in names},
        )

    def wanted(self, found: str | None) -> bool:
        """Tell whether `found`, where the alias points now, is what is waited for."""
        if found is None or found == self.other_than:
            return False
        return self.version is None or found == self.version

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it fits. A server that is away may come back: the sensor's timeout ends the wait."""
        try:
            uri = tracking_uri(await BaseHook.aget_connection(self.mlflow_conn_id))
            # Importing MLflow takes seconds, in which the other triggers would stand still.
            registry = await asyncio.to_thread(_open, uri)
            while True:
                found = await self._look(registry)
                if self.wanted(found):
                    yield _event({"version": found})
                    return
                await asyncio.sleep(self.poll_seconds)
        except EvergreenError as error:
            yield _event({"error": str(error)})

    async def _look(self, registry: Registry) -> str | None:
        try:
            aliases = await asyncio.to_thread(registry.aliases, self.name)
        except EvergreenError as error:
            if not error.transient:
                raise
            self.log.warning("%s", error)
            return None
        return aliases.get(self.alias)


def _open(uri: str) -> Registry:
    from include.registry.gateway import Registry

    return Registry(uri)


def _event(payload: dict[str, Any]) -> TriggerEvent:
    return TriggerEvent(payload)  # type: ignore[no-untyped-call]  # Airflow's triggers are untyped
