"""What is being validated: the snapshot, what it is compared with, and each column's part in the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Literal

from include.errors import DataError
from include.spec.schema import Spec
from include.store.features import Features, resolve_features
from include.store.snapshots import Manifest
from include.validate.scan import Statistics

Role = Literal["target", "key", "time", "feature", "unused"]


@dataclass(frozen=True)
class Subject:
    """A snapshot seen with its spec.

    Args:
        spec: The model's spec.
        manifest: The snapshot on trial.
        reference: The champion's snapshot; None for the first run.
        now: When the run happens; aware.
        features: Columns the model would learn from, as far as they can be told.
        statistics: By column, over every row; empty for an empty snapshot.
    """

    spec: Spec
    manifest: Manifest
    reference: Manifest | None
    now: datetime
    features: Features
    statistics: Mapping[str, Statistics] = field(default_factory=dict)

    def role(self, name: str) -> Role:
        """Return the part a column plays; one that is missing now has the part it had for the champion."""
        ingest = self.spec.ingest
        if name == ingest.target:
            return "target"
        if name == ingest.key:
            return "key"
        if name == ingest.time:
            return "time"
        if name in self._wanted:
            return "feature"
        return "unused"

    def matters(self, name: str) -> bool:
        """Return whether a fault of the column reaches the model."""
        return self.role(name) != "unused"

    @property
    def first(self) -> bool:
        """True when there is no champion's snapshot to compare with."""
        return self.reference is None

    @cached_property
    def _wanted(self) -> frozenset[str]:
        """Features now, in the spec, or for the champion."""
        listed = self.spec.ingest.features
        if listed:
            return frozenset((*listed.numeric, *listed.categorical))
        before = known_features(self.spec, self.reference)
        return frozenset((*self.features.names, *before.names))


def known_features(spec: Spec, manifest: Manifest | None) -> Features:
    """Return the features of a snapshot that may be faulty: listed ones it lacks are left out."""
    if manifest is None:
        return Features((), ())
    listed = spec.ingest.features
    if listed is None:
        try:
            return resolve_features(spec, manifest)
        except DataError:
            return Features((), ())
    types = {c.name: c.type for c in manifest.columns}
    return Features(
        tuple(n for n in listed.numeric if types.get(n) in ("int", "float", "bool")),
        tuple(n for n in listed.categorical if n in types),
    )
