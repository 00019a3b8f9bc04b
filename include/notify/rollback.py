"""Telling of a rollback that a person made on the command line, where no Dag run could tell."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from include.notify.message import rolled_back
from include.notify.tell import Told, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from include.ledger.chain import Event
    from include.notify.channels import Receiver
    from include.settings import Settings


def tell_rollback(
    settings: Settings, event: Event, receivers: Sequence[Receiver], *, now: datetime
) -> Told:
    """Send the message about a rollback, once.

    Args:
        settings: Where ledger, Airflow and MLflow are.
        event: The ledger's row of the rollback.
        receivers: Whom to tell.
        now: The time, aware.
    """
    from include.ledger.ledger import Ledger

    model, to = event.model, event.payload["to"]
    pages = {"Airflow": f"{_public(settings.airflow)}/dags/{model}__train"}
    if to:
        pages["MLflow version"] = f"{_public(settings.mlflow)}/#/models/{model}/versions/{to}"
    return tell(
        Ledger(settings.ledger_dsn),
        model,
        rolled_back(model, str(event.seq), event, pages),
        receivers,
        actor=event.actor,
        now=now,
    )


def _public(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
