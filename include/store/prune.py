"""What may be removed from the store: found, listed with its reason, and removed entry by entry.

Owns the rules by which something is no longer needed, and the order of removal: a snapshot exists once its
manifest does, so the manifest goes first. A removal that is killed leaves files without a manifest, which belong
to no snapshot and go the next time. Logs go as `include.store.parts` wants it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from include.store.files import Store, Stored
from include.store.lease import rewriting
from include.store.prune_plan import KINDS, Entry, Kind, Plan
from include.store.snapshots import MANIFEST

_LOGS: tuple[Kind, ...] = ("predictions", "labels")
_FILES: tuple[Kind, ...] = ("runs", "monitor", "reap")
# How many parts of a key make one entry: a folder, or a file where the key has just so many.
_DEPTH: dict[Kind, int] = {
    "snapshots": 3,
    "runs": 4,
    "quarantine": 3,
    "monitor": 4,
    "predictions": 3,
    "labels": 3,
    "reap": 2,
}
_DAY = re.compile(r"/date=(\d{4}-\d\d-\d\d)/$")
_UNFINISHED = timedelta(days=1)


@dataclass(frozen=True)
class Needs:
    """What of a model has to stay.

    Attributes:
        snapshots: Ids of the snapshots that registered versions and open runs were made from.
        hold: Why nothing but old logs may go now; None when it may.
    """

    snapshots: frozenset[str] = frozenset()
    hold: str | None = None


@dataclass(frozen=True)
class Ages:
    """When things are old.

    Attributes:
        now: The time, aware.
        keep: Age at which what nothing refers to goes.
        logs: Age at which logged predictions and labels go, by model; the logs of other models stay.
    """

    now: datetime
    keep: timedelta
    logs: Mapping[str, timedelta] = field(default_factory=dict)


def stored_models(store: Store) -> list[str]:
    """Return the names of the models that something is stored for, sorted."""
    found = {
        _model(kind, key)
        for kind in KINDS
        for key in store.list(f"{kind}/")
        if _group(kind, key) is not None
    }
    return sorted(found - {""})


def plan_prune(store: Store, ages: Ages, needs: Callable[[str], Needs]) -> Plan:
    """List what may be removed; nothing is touched.

    Args:
        store: Where to look.
        ages: When things are old.
        needs: Says what of a model has to stay; asked once per model.
    """
    known: dict[str, Needs] = {}
    entries, held = [], {}
    for kind in KINDS:
        for key, files in _groups(store, kind, f"{kind}/"):
            model = _model(kind, key)
            if _asks(kind) and model not in known:
                known[model] = needs(model)
                if (hold := known[model].hold) is not None:
                    held[model] = hold
            reason = _reason(kind, key, files, known.get(model, Needs()), ages)
            if reason is not None:
                size = sum(file.bytes for file in files)
                entries.append(Entry(kind, model, key, len(files), size, reason))
    return Plan(tuple(entries), held)


def prune(store: Store, entry: Entry, ages: Ages, needs: Callable[[str], Needs]) -> bool:
    """Remove one entry of a plan if it may still go; look again first, right before.

    Safe to repeat and to kill: what is gone already counts as removed.

    Args:
        store: Where from.
        entry: What.
        ages: When things are old.
        needs: Says what of a model has to stay; asked anew.

    Returns:
        False when the entry has to stay now.
    """
    if entry.kind in _LOGS:
        # Nobody merges its parts meanwhile, and what was merged before is looked at as it is now.
        with rewriting(store, f"{entry.kind}/{entry.model}") as lease:
            return _prune(store, entry, ages, needs, lease.check)
    return _prune(store, entry, ages, needs)


def _prune(
    store: Store,
    entry: Entry,
    ages: Ages,
    needs: Callable[[str], Needs],
    check: Callable[[], None] = lambda: None,
) -> bool:
    groups = list(_groups(store, entry.kind, entry.key))
    # Asked last, so that next to nothing can happen between the answer and the removal.
    required = needs(entry.model) if _asks(entry.kind) else Needs()
    for key, files in groups:
        if key != entry.key:
            continue  # a longer name that begins alike
        if _reason(entry.kind, key, files, required, ages) is None:
            return False
        _remove(store, files, check)
    return True


def _remove(store: Store, files: Iterable[Stored], check: Callable[[], None]) -> None:
    """Delete files: what says that others are whole goes first, what says that others do not count goes last."""

    def order(file: Stored) -> int:
        name = file.key.rpartition("/")[2]
        return 0 if name == MANIFEST else 2 if name.startswith("_") else 1

    for file in sorted(files, key=order):
        check()
        store.delete(file.key)


def _groups(store: Store, kind: Kind, prefix: str) -> Iterator[tuple[str, list[Stored]]]:
    """Yield the keys of the entries there could be, each with its files."""
    found = itertools.groupby(store.scan(prefix), key=lambda stored: _group(kind, stored.key))
    for key, files in found:
        if key is not None:
            yield key, list(files)


def _group(kind: Kind, key: str) -> str | None:
    """Return the key of the entry a file belongs to; None for a file that is not ours."""
    parts, depth = key.split("/"), _DEPTH[kind]
    if len(parts) > depth:
        return "/".join(parts[:depth]) + "/"
    return key if len(parts) == depth and kind in _FILES else None


def _model(kind: Kind, key: str) -> str:
    """Return the model an entry belongs to; empty for a plan, which belongs to none."""
    return "" if kind == "reap" else key.split("/")[1]


def _asks(kind: Kind) -> bool:
    """Return whether it matters what else there is: logs and plans go by age alone."""
    return kind not in _LOGS and kind != "reap"


def _reason(kind: Kind, key: str, files: list[Stored], needs: Needs, ages: Ages) -> str | None:
    """Return why an entry may go; None when it has to stay."""
    age = ages.now - max(file.written_at for file in files)
    if kind in _LOGS:
        return _log_reason(key, age, ages)
    if needs.hold is not None:
        return None
    if kind == "snapshots":
        return _snapshot_reason(key, files, age, needs, ages)
    if kind == "monitor":  # a pass removes its own at its end; they hold rows of the log
        return "a pass that was killed left it" if age > _left(ages) else None
    if age <= ages.keep:
        return None
    return f"nothing refers to it, and it is {age.days} days old"


def _left(ages: Ages) -> timedelta:
    """Return the age at which a file belongs to nobody who still runs."""
    return min(_UNFINISHED, ages.keep)


def _snapshot_reason(
    key: str, files: list[Stored], age: timedelta, needs: Needs, ages: Ages
) -> str | None:
    if not any(file.key == key + MANIFEST for file in files):
        return "a run that was killed left it without a manifest" if age > _left(ages) else None
    if key.split("/")[2] in needs.snapshots or age <= ages.keep:
        return None
    return f"no version was made from it, and it is {age.days} days old"


def _log_reason(key: str, age: timedelta, ages: Ages) -> str | None:
    """Return why a day of a log may go: it is long past, and nothing was written to it for as long.

    A replay of an old year is logged under its own days, and stays like everything else written now.
    """
    keep, day = ages.logs.get(key.split("/")[1]), _day(key)
    if keep is None or day is None or age <= keep:
        return None
    first = (ages.now.astimezone(UTC) - keep).date()
    if day >= first:
        return None
    return f"older than {keep.days} days (monitor.keep)"


def _day(key: str) -> date | None:
    """Return the day a folder of a log is of; None for a folder that is not ours."""
    found = _DAY.search(key)
    try:
        return date.fromisoformat(found[1]) if found else None
    except ValueError:  # such as date=2026-13-99
        return None
