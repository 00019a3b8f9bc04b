"""What is no longer as it was when a version was trained. Owns the comparison of then and now; no data, no models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from include.errors import SpecError
from include.registry.folder import installed_libraries
from include.registry.lineage import git_commit, lock_hash
from include.reproduce.record import Record
from include.settings import Settings
from include.spec.loader import find_spec, load_spec
from include.store.snapshots import Manifest

UNKNOWN = "unknown"
SPEC = "spec"
_ABSENT = object()


@dataclass(frozen=True)
class Change:
    """One thing that differs: `what` it is, as it was `then` and as it is `now`."""

    what: str
    then: str
    now: str

    def __str__(self) -> str:
        return f"{self.what} {self.then} → {self.now}"


@dataclass(frozen=True)
class Present:
    """What a training would be made from now.

    Attributes:
        sections: `Spec.shaping` of the spec as it stands; None where there is no valid one.
        git_commit: Commit of the code; empty where it cannot be told.
        lock_hash: Digest of the library lock.
        libraries: Versions by name.
    """

    sections: Mapping[str, Any] | None
    git_commit: str
    lock_hash: str
    libraries: Mapping[str, str]


def look_around(record: Record, settings: Settings) -> Present:
    """Return the present in the terms of a version's record."""
    sections: Mapping[str, Any] | None = None
    try:
        sections = load_spec(find_spec(record.spec.model, settings), settings).shaping()
    except SpecError:
        sections = None  # removed or broken since: the version carries its own
    return Present(sections, git_commit(), lock_hash(), installed_libraries(record.libraries))


def find_changes(record: Record, present: Present) -> list[Change]:
    """Return what differs, in the order spec, code, libraries; what was not recorded is left out."""
    found = list(_spec_changes(record.sections, present.sections))
    pairs = [
        ("git commit", record.tag("git_commit"), present.git_commit),
        ("library lock", record.tag("lock_hash"), present.lock_hash),
        *((name, then, present.libraries[name]) for name, then in record.libraries.items()),
    ]
    found += [
        Change(what, then, now or UNKNOWN) for what, then, now in pairs if then and then != now
    ]
    return found


def likely_reasons(record: Record, changes: Sequence[Change], manifest: Manifest) -> list[str]:
    """Say why a rebuilt model may predict otherwise than the stored one, likeliest first.

    Changes of the present spec are no reason: a version is made again from its own.

    Args:
        record: The version.
        changes: What `find_changes` found.
        manifest: The snapshot it was rebuilt from.
    """
    found = record.contradictions()
    found += [str(change) for change in changes if not change.what.startswith(SPEC)]
    if record.tag("git_commit").endswith("-dirty"):
        found.append("it was trained by code with local changes, which no commit holds")
    if _moment(manifest.created_at) > _moment(record.package.version.created_at):
        found.append("the snapshot was taken anew since: the same rows, perhaps in another order")
    return found or [
        "nothing recorded differs: the estimator may draw random numbers without random_state, or this machine "
        "computes in another order (processor, BLAS)"
    ]


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _spec_changes(then: Mapping[str, Any], now: Mapping[str, Any] | None) -> Iterator[Change]:
    if now is None:
        yield Change(SPEC, "as registered", "none that is valid")
        return
    before, after = dict(_leaves(then)), dict(_leaves(now))
    for key in dict.fromkeys([*before, *after]):
        pair = before.get(key, _ABSENT), after.get(key, _ABSENT)
        if pair[0] != pair[1]:
            yield Change(f"{SPEC}: {key}", *(_shown(value) for value in pair))


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a document's values by dotted key, as messages about specs name them."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{key}[{number}]")
    else:
        yield key, value


def _shown(value: Any) -> str:
    if value is _ABSENT or value is None:
        return "none"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return (text if len(text) <= 80 else text[:77] + "...") or "none"
