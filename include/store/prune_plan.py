"""A plan of what to remove from the store: its entries, its form in JSON, and its words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from include.errors import DataError

Kind = Literal["snapshots", "runs", "quarantine", "monitor", "predictions", "labels", "reap"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_NAMES: dict[Kind, str] = {
    "snapshots": "snapshot",
    "runs": "work file",
    "quarantine": "quarantined report",
    "monitor": "monitor file",
    "predictions": "day of predictions",
    "labels": "day of labels",
    "reap": "old plan",
}
_FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """One thing to remove: a file, or a folder where `key` ends in a slash."""

    kind: Kind
    model: str
    key: str
    files: int
    bytes: int
    reason: str


@dataclass(frozen=True)
class Plan:
    """What is to be removed, and the models of which nothing may go, with the reason."""

    entries: tuple[Entry, ...]
    held: Mapping[str, str]

    def to_json(self) -> str:
        """Write the plan as JSON."""
        entries = [asdict(entry) for entry in self.entries]
        return json.dumps(
            {"format": _FORMAT, "entries": entries, "held": dict(self.held)}, indent=2
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        """Read what `to_json` wrote.

        Raises:
            DataError: The text is no plan.
        """
        try:
            data = json.loads(text)
            if data["format"] != _FORMAT:
                raise ValueError("format")
            return cls(tuple(Entry(**entry) for entry in data["entries"]), dict(data["held"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                "plan of what to remove",
                f"must be JSON of format {_FORMAT}, got {type(error).__name__}: {error}",
                "Run the clean-up again.",
            ) from error


def describe(entries: Sequence[Entry]) -> str:
    """Return what entries are, in words: `2 snapshots and 1 work file, 3.1 MB`."""
    counts = [(_NAMES[kind], sum(e.kind == kind for e in entries)) for kind in KINDS]
    words = [f"{count} {_plural(name, count)}" for name, count in counts if count]
    listed = " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]])) or "nothing"
    return f"{listed}, {readable(sum(entry.bytes for entry in entries))}"


def readable(size: int) -> str:
    """Return a number of bytes as people read it: `532 B`, `1.4 MB`."""
    amount, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{amount:.0f} B" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def _plural(name: str, count: int) -> str:
    if count == 1:
        return name
    first, of, rest = name.partition(" of ")
    return f"{first}s{of}{rest}"
