"""The models on serving's own disk: what lets it restart while the registry is away.

Owns `state.json` in the cache folder: for each model its aliases and rollout and, for each version in use, where its
files are and its metadata, which holds their digests. Written atomically after every change; read only when the registry does not
answer. The digest is checked again and the types are judged again on every load.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from include.engines.opening import open_version
from include.errors import ModelError
from include.registry.rollouts import Rollout
from include.serving.engine import LoadedModel
from include.serving.served import Wanted
from include.serving.telemetry import log_event

_STATE = "state.json"
_KEPT = 3  # retired versions per model that stay on disk, for a rollback without a download


class Entry(BaseModel):
    """One version on disk: its path relative to the cache folder, metadata (with digests) and input example."""

    folder: str
    meta: dict[str, Any]
    example: dict[str, list[Any]]


class State(BaseModel):
    """What the state file says."""

    aliases: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="Alias to version, by model."
    )
    rollouts: dict[str, str] = Field(
        default_factory=dict, description="Rollout as in the registry's tag, by model."
    )
    champions: dict[str, str] = Field(
        default_factory=dict, description="Version that last answered as champion, by model."
    )
    models: dict[str, dict[str, Entry]] = Field(
        default_factory=dict, description="Versions in use, by model and version."
    )
    retired: dict[str, list[str]] = Field(
        default_factory=dict, description="Folders no longer in use, newest last, by model."
    )

    def wanted(self) -> dict[str, Wanted]:
        """Return what the registry said last."""
        return {
            name: Wanted(aliases, Rollout.from_tag(self.rollouts.get(name)))
            for name, aliases in self.aliases.items()
        }


class Cache:
    """A folder of downloaded models and the state file beside them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self) -> State:
        """Return the stored state; an empty one when there is none or it is damaged."""
        path = self.root / _STATE
        try:
            return State.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return State()
        except (OSError, ValidationError) as error:
            log_event("cache_unreadable", path=str(path), error=str(error))
            return State()

    def write(
        self,
        wanted: Mapping[str, Wanted],
        models: Iterable[LoadedModel],
        champions: Mapping[str, str],
    ) -> None:
        """Store what is in use now; drop from disk what was retired long ago.

        Raises:
            OSError: The disk does not take it.
        """
        before = self.read()
        state = State(
            aliases={name: dict(of.aliases) for name, of in wanted.items()},
            rollouts={name: of.rollout.to_tag() for name, of in wanted.items() if of.rollout},
            champions=dict(champions),
        )
        for model in models:
            state.models.setdefault(model.name, {})[model.version] = self._entry(model)
        used = {entry.folder for of in state.models.values() for entry in of.values()}
        expired: list[str] = []
        for name in sorted({*before.models, *before.retired}):
            left = [entry.folder for entry in before.models.get(name, {}).values()]
            line = dict.fromkeys([*before.retired.get(name, []), *left])
            folders = [folder for folder in line if folder not in used]
            expired += folders[:-_KEPT]
            state.retired[name] = folders[-_KEPT:]
        self._write(state.model_dump_json(indent=2).encode())
        for folder in expired:
            self._remove(folder)

    def restore(self, name: str, version: str) -> LoadedModel | None:
        """Load a version from disk; None when the state file does not know it.

        Raises:
            ModelError: The file is missing, changed or not to be trusted.
        """
        entry = self.read().models.get(name, {}).get(version)
        if entry is None:
            return None
        folder = self.root / entry.folder
        if not folder.resolve().is_relative_to(self.root.resolve()):
            raise ModelError(
                f"{self.root / _STATE}",
                f"must lie in the cache, got {entry.folder[:200]!r} for {name} {version}",
                "Delete the file; serving writes it again when MLflow answers.",
            )
        predictor = open_version(folder, entry.meta)
        return LoadedModel(name, version, predictor, entry.meta, entry.example, folder)

    def _entry(self, model: LoadedModel) -> Entry:
        return Entry(
            folder=str(model.folder.resolve().relative_to(self.root.resolve())),
            meta=dict(model.meta),
            example={name: list(values) for name, values in model.example.items()},
        )

    def _write(self, data: bytes) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.root, prefix=f".{_STATE}.")
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.root / _STATE)
        finally:
            part.unlink(missing_ok=True)

    def _remove(self, folder: str) -> None:
        root, path = self.root.resolve(), (self.root / folder).resolve()
        if path != root and path.is_relative_to(root):
            shutil.rmtree(path, ignore_errors=True)
