"""What a version says it was made from. Owns the reading of a version as a recipe, without a look at the present."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from include.errors import ModelError
from include.registry.folder import read_libraries
from include.registry.package import LoadedPackage
from include.spec.schema import Candidate, Spec, sections_hash
from include.store.split import Split

_NEEDED = ("snapshot_id", "spec_hash", "spec", "split", "estimator", "fixed", "params")
_TAGGED = ("snapshot_id", "spec_hash", "seed")


@dataclass(frozen=True)
class Record:
    """Everything it takes to make a version again.

    Attributes:
        package: The version itself, verified.
        spec: The spec it was made from, with its features listed and its estimator, all arguments set, as the only
            candidate.
        sections: The spec's sections as they were registered.
        snapshot_id: The data.
        split: The rows held out.
        libraries: Versions of Python and the libraries it was trained with, by name.
    """

    package: LoadedPackage
    spec: Spec
    sections: Mapping[str, Any]
    snapshot_id: str
    split: Split
    libraries: Mapping[str, str]

    @property
    def title(self) -> str:
        """How messages name the version."""
        return _title(self.package)

    @property
    def estimator(self) -> Candidate:
        """The estimator with all its arguments."""
        return self.spec.train.candidates[0]

    def tag(self, name: str) -> str:
        """Return the version's tag `evergreen.<name>`; empty where there is none."""
        return str(self.package.version.tags.get(f"evergreen.{name}", ""))

    def contradictions(self) -> list[str]:
        """Say where the version's parts do not agree with each other, as they did when it was registered."""
        said = {
            "snapshot_id": self.snapshot_id,
            "spec_hash": str(self.package.meta["spec_hash"]),
            "seed": str(self.spec.train.seed),
        }
        found = [
            f"its tag evergreen.{name} says {self.tag(name)}, its metadata {said[name]}"
            for name in _TAGGED
            if self.tag(name) and self.tag(name) != said[name]
        ]
        if (real := sections_hash(self.sections)) != said["spec_hash"]:
            found.append(f"its spec has the hash {real}, its metadata says {said['spec_hash']}")
        return found


def read_record(package: LoadedPackage) -> Record:
    """Read a version as a recipe.

    Args:
        package: A version that `Registry.load` verified.

    Raises:
        ModelError: The version does not hold all it takes, or holds it in a form this code does not understand.
    """
    meta, where = package.meta, _title(package)
    absent = [name for name in _NEEDED if meta.get(name) is None]
    if absent:
        raise ModelError(
            where,
            f"must carry {', '.join(_NEEDED)} in its metadata, got no {', '.join(absent)}",
            "It was registered by something else than a training run, or before Evergreen kept them: train again.",
        )
    try:
        candidate = Candidate(
            estimator=meta["estimator"], params={**meta["fixed"], **meta["params"]}
        )
        spec = Spec.model_validate(meta["spec"]).with_features(**package.features.to_dict())
        train = spec.train.model_copy(update={"candidates": (candidate,)})
        return Record(
            package=package,
            spec=spec.model_copy(update={"train": train}),
            sections=meta["spec"],
            snapshot_id=str(meta["snapshot_id"]),
            split=Split.from_dict(meta["split"]),
            libraries=read_libraries(package.folder),
        )
    except (ValidationError, TypeError, KeyError) as error:
        commit = package.version.tags.get("evergreen.git_commit", "it was trained with")
        raise ModelError(
            where,
            f"must hold metadata this code reads, got {' '.join(str(error).split())[:300].rstrip('.')}",
            f"Check out the commit {commit} and try there.",
        ) from error


def _title(package: LoadedPackage) -> str:
    return f"{package.version.name} version {package.version.version}"
