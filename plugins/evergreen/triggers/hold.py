"""Sleeps in the triggerer until a moment, so that a hold takes no worker's slot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent


class HoldTrigger(BaseTrigger):
    """Fires at a moment; a triggerer that starts late fires at once, none begins the wait anew.

    Args:
        until: ISO 8601, with its zone.
    """

    def __init__(self, until: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's triggers are untyped
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, from which any triggerer rebuilds this."""
        return (f"{type(self).__module__}.{type(self).__qualname__}", {"until": self.until})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep, and fire."""
        left = (datetime.fromisoformat(self.until) - datetime.now(UTC)).total_seconds()
        await asyncio.sleep(max(0.0, left))
        yield TriggerEvent({"until": self.until})  # type: ignore[no-untyped-call]  # as above
