"""What goes into the registry and what comes out: plain frozen values, no MLflow here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from include.store.inputs import Features

PRODUCER = "evergreen"
TAG_PRODUCER = "evergreen.producer"
TAG_DIGEST = "evergreen.digest"
TAG_KEY = "evergreen.key"
TAG_MODEL_ID = "evergreen.model_id"


@dataclass(frozen=True)
class Package:
    """A fitted model and everything a version needs to be served, explained and rebuilt.

    Attributes:
        name: Registered-model name, the spec's `model`.
        model_path: The skops file `include.registry.trust.dump_model` wrote.
        sha256: That file's digest.
        features: The columns the pipeline takes, in order.
        types: Manifest type of each feature: int, float, bool, string or timestamp.
        classes: Class labels by code, [negative, positive] for binary; empty for regression.
        task: binary, multiclass or regression.
        target: Name of the predicted column.
        example: A few typical, synthetic rows as `model_frame` makes them.
        meta: Further facts for MLmodel's metadata: snapshot_id, spec_hash, cutoff, ...
        required: Features declared to never be missing; whole numbers among them stay whole.
        engine: What serving computes with, see `include.engines.convert`; empty means scikit-learn.
        files: Further files of the version by name, for that engine.
    """

    name: str
    model_path: Path
    sha256: str
    features: Features
    types: Mapping[str, str]
    classes: list[Any]
    task: str
    target: str
    example: pd.DataFrame
    meta: Mapping[str, Any] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    engine: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """Return what MLmodel's `metadata["evergreen"]` holds: the contract with serving."""
        return {
            **self.meta,
            "task": self.task,
            "target": self.target,
            "features": self.features.to_dict(),
            "types": dict(self.types),
            "classes": list(self.classes),
            "model_sha256": self.sha256,
            "engine": dict(self.engine),
        }


@dataclass(frozen=True)
class Version:
    """One registered version."""

    name: str
    version: str
    run_id: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...]
    created_at: str

    @property
    def digest(self) -> str | None:
        """Digest of the version's model folder; None for one Evergreen did not register."""
        ours = self.tags.get(TAG_PRODUCER) == PRODUCER
        return self.tags.get(TAG_DIGEST) if ours else None


def chosen(same: Iterable[Version]) -> Version:
    """Return the version of a key that stays: an aliased one before others, then the oldest."""
    return min(same, key=lambda v: (not v.aliases, int(v.version)))


@dataclass(frozen=True)
class VersionFolder:
    """A version on disk, with the digest it was registered with."""

    meta: dict[str, Any]
    folder: Path
    version: Version

    @property
    def features(self) -> Features:
        """The columns the model takes, in order."""
        from include.store.inputs import Features

        return Features.from_dict(self.meta["features"])

    @property
    def classes(self) -> list[Any]:
        """Class labels by code; empty for regression."""
        return list(self.meta["classes"])


@dataclass(frozen=True)
class LoadedPackage(VersionFolder):
    """A verified version, ready to predict."""

    pipeline: Any
