"""What there is to tell of a training run: read from the ledger, where every event stands before it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from include.notify.message import (
    Links,
    Message,
    declined,
    promoted,
    rejected,
    rolled_back,
    sent_home,
)

if TYPE_CHECKING:
    from include.ledger.chain import Event
    from include.ledger.ledger import Ledger

#: Makes the links of a message from the id of an MLflow run; empty for none.
Linker = Callable[[str], Links]

_MOVES = ("promotion", "rollback", "external_move")
_RECENT = 100  # events of a kind; a run's own are among the newest while it goes on


def verdict_of(ledger: Ledger, model: str, run_key: str) -> Event | None:
    """Return the newest verdict of a run; None before the gate."""
    return _newest(ledger.events(model, "verdict", _RECENT), run_key)


def rejection(ledger: Ledger, model: str, run_key: str, links: Linker) -> Message | None:
    """Return the message about a no, of the gate or of a person; None when there is none to tell."""
    verdict = verdict_of(ledger, model, run_key)
    if verdict is None:
        return None
    linked = links(verdict.payload.get("run_id") or "")
    if verdict.payload["verdict"] in ("REJECT", "HOLD"):
        return rejected(model, run_key, verdict, linked)
    said = [e for e in ledger.events(model, "approval", _RECENT) if f"/{run_key}/" in e.key]
    if said and said[-1].payload["verdict"] == "REJECT":
        return declined(model, run_key, said[-1], verdict, linked)
    return _sent_home(ledger, model, run_key, links, returned=False)


def promotion(ledger: Ledger, model: str, run_key: str, links: Linker) -> Message | None:
    """Return the message about a run's promotion; None when it made none, or somebody moved since."""
    move = _last_move(ledger, model, run_key)
    if move is None or move.kind != "promotion" or not _applied(ledger, move):
        return None
    verdict = verdict_of(ledger, model, run_key)
    run_id = str(verdict.payload.get("run_id") or "") if verdict else ""
    return promoted(model, run_key, move, verdict, links(run_id))


def undoing(ledger: Ledger, model: str, run_key: str, links: Linker) -> Message | None:
    """Return the message about a promotion that its own run took back, or about traffic it took back.

    A deployment that is tried again may do so on every try; people hear of the first.
    """
    move = _last_move(ledger, model, run_key)
    if move is None or move.kind != "rollback":
        return _sent_home(ledger, model, run_key, links, returned=True)
    verdict = verdict_of(ledger, model, run_key)
    run_id = str(verdict.payload.get("run_id") or "") if verdict else ""
    return rolled_back(model, run_key, move, links(run_id))


def _sent_home(
    ledger: Ledger, model: str, run_key: str, links: Linker, *, returned: bool
) -> Message | None:
    """Return the message about a challenger whose rollout was stopped.

    Args:
        ledger: The ledger.
        model: The model.
        run_key: The run whose rollout it was.
        links: Makes the links.
        returned: Whether to tell of one that had answered people, which is a rollback; a shadow's is a rejection.
    """
    from include.registry.rollouts import latest

    standing = latest(ledger, model)
    if (
        standing is None
        or standing.actor != run_key
        or (standing.rollout.mode != "shadow") != returned
    ):
        return None
    if standing.outcome not in ("STOPPED", "SUPERSEDED"):
        return None
    verdict = verdict_of(ledger, model, run_key)
    run_id = str(verdict.payload.get("run_id") or "") if verdict else ""
    return sent_home(
        model,
        f"{run_key}/{standing.seq}",
        version=standing.rollout.version,
        champion=standing.champion or "",
        reason=standing.reason,
        kind="rollback" if returned else "rejection",
        links=links(run_id),
    )


def _last_move(ledger: Ledger, model: str, run_key: str) -> Event | None:
    """Return the model's newest move if the run made it."""
    return _newest(ledger.events(model, _MOVES, 1), run_key)


def _applied(ledger: Ledger, move: Event) -> bool:
    """Return whether the registry shows what the row says; until then it is an intent."""
    applied = ledger.events(move.model, "applied", _RECENT)
    return any(event.payload["move"] == move.seq for event in applied)


def _newest(events: Sequence[Event], run_key: str) -> Event | None:
    return next((event for event in reversed(events) if event.actor == run_key), None)
