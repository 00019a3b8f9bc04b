"""The models on serving's own disk: what lets it restart while the registry is away, and how much that may take.

Owns `state.json` in the cache folder, which holds what the registry said last; beside each version's folder a file
with its metadata; and the bound on all of them. Every file is written whole or not at all, and several processes
may share the folder. The digest is checked again and the types are judged again on every load.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
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
_LOOK_SECONDS = 10.0  # shortest pause between two looks at what the folder takes
_YOUNG_SECONDS = 60.0  # another process may be about to open a folder of this age
_DEFAULT_BYTES = 4 * 2**30


class Entry(BaseModel):
    """One version on disk: its folder's name, metadata (with digests) and input example."""

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

    def wanted(self) -> dict[str, Wanted]:
        """Return what the registry said last."""
        return {
            name: Wanted(aliases, Rollout.from_tag(self.rollouts.get(name)))
            for name, aliases in self.aliases.items()
        }


class Cache:
    """A folder of downloaded models.

    Args:
        root: The folder.
        limit_bytes: What the downloaded versions may take together.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        root: Path,
        limit_bytes: int = _DEFAULT_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = root
        self._limit_bytes, self._clock = limit_bytes, clock
        self._looked: float | None = None
        self._sizes: dict[Path, int] = {}
        self._over = False

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

    def write(self, wanted: Mapping[str, Wanted], champions: Mapping[str, str]) -> None:
        """Store what the registry says and who answered.

        Another process may have loaded models that this one has not: what it knows of them stays.

        Raises:
            OSError: The disk does not take it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with self._locked():
            known = {**self.read().champions, **champions}
            state = State(
                aliases={name: dict(of.aliases) for name, of in wanted.items()},
                rollouts={name: of.rollout.to_tag() for name, of in wanted.items() if of.rollout},
                champions={name: version for name, version in known.items() if name in wanted},
            )
            _write(self.root / _STATE, state.model_dump_json(indent=2).encode())

    def remember(self, model: LoadedModel) -> None:
        """Store what it takes to load a version without the registry, and that it was in use just now.

        Raises:
            OSError: The disk does not take it.
            ValueError: The version does not lie in this folder.
        """
        model.folder.resolve().relative_to(self.root.resolve())
        entry = Entry(
            folder=model.folder.name,
            meta=dict(model.meta),
            example={name: list(values) for name, values in model.example.items()},
        )
        path, data = self._entry(model.name, model.version), entry.model_dump_json().encode()
        if not path.is_file() or path.read_bytes() != data:
            _write(path, data)
        os.utime(model.folder)

    def restore(self, name: str, version: str) -> LoadedModel | None:
        """Load a version from disk; None when it is not there.

        Raises:
            ModelError: The file is missing, changed or not to be trusted.
        """
        entry = self._read_entry(name, version)
        if entry is None:
            return None
        folder = self.root / name / entry.folder
        if folder.resolve().parent != (self.root / name).resolve():
            raise ModelError(
                f"{self._entry(name, version)}",
                f"must lie in the cache beside it, got {entry.folder[:200]!r} for {name} {version}",
                "Delete the file; serving writes it again when MLflow answers.",
            )
        if not folder.is_dir():
            return None
        predictor = open_version(folder, entry.meta)
        return LoadedModel(name, version, predictor, entry.meta, entry.example, folder)

    def trim(self, keep: Callable[[], Collection[tuple[str, str]]]) -> None:
        """Remove the longest unused versions until the rest fits; looks at the disk only now and then.

        Args:
            keep: Returns model and version of what a restart needs; it stays, even where it alone is too much.
        """
        now = self._clock()
        if self._looked is not None and now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        folders = self._folders()
        total = sum(size for size, _ in folders.values())
        if total <= self._limit_bytes:
            return
        kept = {self._kept(*key) for key in keep()}
        for folder, (size, used) in sorted(folders.items(), key=lambda item: item[1][1]):
            if folder in kept or time.time() - used < _YOUNG_SECONDS:
                continue
            self._remove(folder)
            total -= size
            if total <= self._limit_bytes:
                break
        over = total > self._limit_bytes
        if over and not self._over:
            log_event("cache_over_limit", bytes=total, limit=self._limit_bytes)
        self._over = over

    def _folders(self) -> dict[Path, tuple[int, float]]:
        """Return size and time of last use of every version's folder."""
        found: dict[Path, tuple[int, float]] = {}
        for model in self.root.iterdir():
            if not model.is_dir():
                continue
            for folder in model.iterdir():
                if folder.is_dir() and not folder.name.startswith("."):
                    if folder not in self._sizes:
                        files = [path for path in folder.rglob("*") if path.is_file()]
                        self._sizes[folder] = sum(path.stat().st_size for path in files)
                    found[folder] = (self._sizes[folder], folder.stat().st_mtime)
        return found

    def _kept(self, name: str, version: str) -> Path | None:
        entry = self._read_entry(name, version)
        return self.root / name / entry.folder if entry else None

    def _entry(self, name: str, version: str) -> Path:
        return self.root / name / f".entry-{version}.json"

    def _read_entry(self, name: str, version: str) -> Entry | None:
        path = self._entry(name, version)
        if path.resolve().parent.parent != self.root.resolve():
            return None  # the registry takes almost any name, and here it is part of a path
        try:
            return Entry.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log_event("cache_unreadable", path=str(path), error=str(error))
            return None

    def _remove(self, folder: Path) -> None:
        self._sizes.pop(folder, None)
        # Renamed first: whoever looks sees the whole folder or none. Leftovers of that name are swept at downloads.
        gone = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".part-"))
        folder.rename(gone / folder.name)
        shutil.rmtree(gone, ignore_errors=True)
        for entry in folder.parent.glob(".entry-*.json"):
            version = entry.stem.removeprefix(".entry-")
            stored = self._read_entry(folder.parent.name, version)
            if stored is not None and stored.folder == folder.name:
                entry.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.root / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".part-{path.name}.")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
