"""The models on serving's own disk: what lets it restart while the registry is away.

Owns `state.json` in the cache folder: for each model its aliases and, for each version in use, where its file
is, its digest and its metadata. Written atomically after every change; read only when the registry does not
answer. The digest is checked again and the types are judged again on every load.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from include.errors import ModelError
from include.registry.trust import load_model
from include.serving.engine import LoadedModel
from include.serving.telemetry import log_event

_STATE = "state.json"
_KEPT = 3  # retired versions per model that stay on disk, for a rollback without a download

Aliases = dict[str, dict[str, str]]


@dataclass
class State:
    """What the state file says.

    Args:
        aliases: Alias to version, by model.
        champions: Version that last answered as champion, by model.
        models: Entry by model and version: file, sha256, meta and example.
        retired: Folders (relative) of versions no longer in use, newest last, by model.
    """

    aliases: Aliases = field(default_factory=dict)
    champions: dict[str, str] = field(default_factory=dict)
    models: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    retired: dict[str, list[str]] = field(default_factory=dict)


class Cache:
    """A folder of downloaded models and the state file beside them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self) -> State:
        """Return the stored state; an empty one when there is none or it is damaged."""
        path = self.root / _STATE
        try:
            stored = orjson.loads(path.read_bytes())
            return State(**{name: dict(stored[name]) for name in vars(State())})
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, KeyError, TypeError) as error:
            log_event("cache_unreadable", path=str(path), error=str(error))
            return State()

    def write(
        self,
        aliases: Mapping[str, Mapping[str, str]],
        models: Iterable[LoadedModel],
        champions: Mapping[str, str],
    ) -> None:
        """Store what is in use now; drop from disk what was retired long ago.

        Raises:
            OSError: The disk does not take it.
        """
        before = self.read()
        state = State({name: dict(of) for name, of in aliases.items()}, dict(champions))
        for model in models:
            state.models.setdefault(model.name, {})[model.version] = self._entry(model)
        used = {entry["folder"] for of in state.models.values() for entry in of.values()}
        expired: list[str] = []
        for name in sorted({*before.models, *before.retired}):
            left = [entry["folder"] for entry in before.models.get(name, {}).values()]
            line = dict.fromkeys([*before.retired.get(name, []), *left])
            folders = [folder for folder in line if folder not in used]
            expired += folders[:-_KEPT]
            state.retired[name] = folders[-_KEPT:]
        self._write(orjson.dumps(vars(state), option=orjson.OPT_INDENT_2))
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
        try:
            file = self.root / entry["file"]
            digest, meta, example = entry["sha256"], entry["meta"], entry["example"]
        except (KeyError, TypeError) as error:
            raise ModelError(
                str(self.root / _STATE),
                f"must describe {name} {version} fully, got {error}",
                "Delete the file; it is made anew from the registry.",
            ) from error
        return LoadedModel(name, version, load_model(file, digest), meta, example, file, digest)

    def _entry(self, model: LoadedModel) -> dict[str, Any]:
        file = model.file.resolve().relative_to(self.root.resolve())
        return {
            "folder": str(file.parent),
            "file": str(file),
            "sha256": model.sha256,
            "meta": dict(model.meta),
            "example": {name: list(values) for name, values in model.example.items()},
        }

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
