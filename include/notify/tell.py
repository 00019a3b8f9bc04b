"""Telling people once: the ledger remembers which message went out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from include.errors import ServiceError
from include.notify.channels import Delivery, Receiver, deliver
from include.notify.message import Message

if TYPE_CHECKING:
    from include.ledger.ledger import Ledger

NOTIFIED = "notified"


@dataclass(frozen=True)
class Told:
    """What became of a message.

    Attributes:
        delivery: Who took it; None when it had been sent before.
        unrecorded: Why the ledger does not know of it; empty when it does.
    """

    delivery: Delivery | None
    unrecorded: str = ""


def tell(
    ledger: Ledger,
    model: str,
    message: Message,
    receivers: Sequence[Receiver],
    *,
    actor: str,
    now: datetime,
) -> Told:
    """Send a message unless it was sent before, and write down that it was.

    Killed between sending and writing, the next attempt sends once more: people may hear twice of an event, but
    they do hear of it. For the same reason a ledger that is away keeps nothing back. A message that nobody
    took is not written down, so the next occasion sends it; one that somebody took is, with who missed it.

    Args:
        ledger: The ledger.
        model: The model.
        message: The message.
        receivers: Whom to tell.
        actor: Who sends it: a Dag run, or a user.
        now: The time, aware.
    """
    try:
        if ledger.find(model, message.key) is not None:
            return Told(None)
    except ServiceError as error:
        return Told(deliver(message, receivers), str(error))
    delivery = deliver(message, receivers)
    if not delivery.taken:
        return Told(delivery)
    names = ", ".join(delivery.taken)
    payload = {
        "event": message.kind,
        "title": message.title,
        "reason": f"{message.title}: told {names}",
        "taken": list(delivery.taken),
        "missed": list(delivery.missed),
    }
    try:
        ledger.record(model, NOTIFIED, message.key, payload, actor, now)
    except ServiceError as error:
        return Told(delivery, str(error))
    return Told(delivery)
