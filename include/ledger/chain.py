"""The hash chain: how an event is written after the one before it, and how a change to it is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from include.errors import ConflictError, DataError
from include.ledger.tables import EVENTS

_START = "0" * 64


@dataclass(frozen=True)
class Event:
    """One row of a model's chain."""

    model: str
    seq: int
    key: str
    kind: str
    actor: str
    at: str
    payload: dict[str, Any]
    prev_hash: str
    hash: str


def canonical(value: Any) -> str:
    """Return JSON text that is the same for the same values.

    Raises:
        DataError: It is not JSON: NaN, infinite, or of another type.
    """
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain
        )
    except (TypeError, ValueError) as error:
        raise DataError(
            "Ledger", f"a payload must be JSON values, got {error}", "Convert it before recording."
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} {value!r}")


def iso(now: datetime) -> str:
    """Return a time as ISO 8601 text in UTC, so that text order is time order."""
    if now.tzinfo is None:
        raise DataError("Ledger", f"a time must be aware, got {now!r}", "Pass datetime.now(UTC).")
    return now.astimezone(UTC).isoformat(timespec="microseconds")


def append(
    connection: Connection, row: tuple[str, str, str, str, str, str], after: int | None
) -> Event:
    """Write an event after the last one, or return the one that has its key; see `Ledger.record`.

    Args:
        connection: In a write transaction of this model.
        row: Model, kind, key, canonical payload, actor, time.
        after: The `seq` the chain must end with; None for any.
    """
    model, kind, key, body, actor, at = row
    known = find_event(connection, model, key)
    if known is not None:
        if known.kind != kind:
            raise ConflictError(
                f"Ledger of {model}",
                f"key {key!r} must belong to one event, got it for {known.kind} and {kind}",
                "Use another key.",
            )
        return known
    seq, prev_hash = last(connection, model)
    if after is not None and seq != after:
        raise ConflictError(
            f"Ledger of {model}",
            f"must end at event {after} to take this one, got event {seq} already there",
            "Somebody else was faster: look again and decide anew.",
        )
    values = {
        "model": model,
        "seq": seq + 1,
        "key": key,
        "kind": kind,
        "actor": actor,
        "at": at,
        "payload": body,
        "prev_hash": prev_hash,
    }
    values["hash"] = _hash(values)
    connection.execute(EVENTS.insert().values(values))
    return to_event(values)


def _hash(row: Mapping[str, Any]) -> str:
    said = {name: row[name] for name in ("model", "seq", "key", "kind", "actor", "at", "payload")}
    return hashlib.sha256((row["prev_hash"] + canonical(said)).encode()).hexdigest()


def walk(rows: Any) -> Iterator[str | None]:
    """Yield None for every good row, and a sentence for the first broken one of a chain."""
    model, seq, prev_hash = None, 0, _START
    for row in rows:
        if row["model"] != model:
            model, seq, prev_hash = row["model"], 0, _START
        name = f"event {row['seq']} of {model} ({row['kind']}, {row['at']})"
        if row["seq"] != seq + 1:
            yield f"{name}: follows event {seq}, so rows between are missing"
        elif row["prev_hash"] != prev_hash:
            yield f"{name}: does not continue the row before it"
        elif row["hash"] != _hash(row):
            yield f"{name}: was changed after it was written"
        else:
            yield None
        seq, prev_hash = row["seq"], row["hash"]


def find_event(connection: Connection, model: str, key: str) -> Event | None:
    """Return the event with this key, or None."""
    mine = (EVENTS.c.model == model) & (EVENTS.c.key == key)
    row = connection.execute(select(EVENTS).where(mine)).mappings().first()
    return None if row is None else to_event(row)


def last(connection: Connection, model: str) -> tuple[int, str]:
    """Return seq and hash of a chain's last event; 0 and zeros for an empty chain."""
    query = select(EVENTS.c.seq, EVENTS.c.hash).where(EVENTS.c.model == model)
    row = connection.execute(query.order_by(EVENTS.c.seq.desc()).limit(1)).first()
    return (0, _START) if row is None else (int(row.seq), str(row.hash))


def to_event(row: Mapping[str, Any] | RowMapping) -> Event:
    """Return a row as an event."""
    names = ("model", "seq", "key", "kind", "actor", "at", "prev_hash", "hash")
    return Event(**{name: row[name] for name in names}, payload=json.loads(row["payload"]))
