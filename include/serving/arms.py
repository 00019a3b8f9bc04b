"""Which version a request belongs to while a rollout is on.

Owns the routing key: what the request says, else the key of its rows where they share one, else its id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from include.serving.columns import Columns
from include.serving.engine import Engine
from include.serving.identity import Identity
from include.serving.routing import takes
from include.serving.served import Served

SHADOW, VERSION = "shadow", "version"  # arms beside the roles of `served`


class Asked(Protocol):
    """A checked request, in whichever form it came."""

    @property
    def columns(self) -> Columns:
        """One column per feature."""

    @property
    def rows(self) -> int:
        """Number of rows, at least 1."""

    @property
    def identity(self) -> Identity:
        """Key and time of the rows, where sent."""


@dataclass(frozen=True)
class Trial:
    """The challenger's part in one request.

    Args:
        engine: The challenger.
        shadow: Whether it only predicts for the log.
    """

    engine: Engine
    shadow: bool


def trial(served: Served, asked: Asked, named: str) -> Trial | None:
    """Return the challenger's part in a request; None where the request is the champion's alone.

    Args:
        served: The model.
        asked: The request.
        named: The request's id.
    """
    rollout, engine = served.rollout, served.challenger
    if rollout is None or engine is None:
        return None
    if not takes(_key(asked, named), rollout.id, rollout.share):
        return None
    return Trial(engine, rollout.mode == "shadow")


def _key(asked: Asked, named: str) -> str:
    said: str | None = getattr(asked, "routing_key", None)
    if said is not None:
        return said
    keys = asked.identity.keys
    if keys and keys[0] is not None and all(key == keys[0] for key in keys):
        return keys[0]
    return named
