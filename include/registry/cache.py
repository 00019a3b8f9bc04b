"""Downloaded versions on disk: written once, atomically, verified every time they are read."""

from __future__ import annotations

import fcntl
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from include.errors import ModelError
from include.registry.folder import MODEL_FILE, folder_digest, read_metadata
from include.registry.package import LoadedPackage, Version, VersionFolder

# A model called like one of the files beside the models' folders would take that file's place.
_NAME, _DIGEST = re.compile(r"\w[\w .-]{0,255}"), re.compile(r"[0-9a-f]{64}")


def fetch_version(
    version: Version, cache: Path, download: Callable[[Version, Path], None]
) -> VersionFolder:
    """Return a version's verified folder, downloading it when the cache has no intact copy.

    Args:
        version: What to fetch.
        cache: Folder of all downloaded versions.
        download: Puts the version's files into a folder.

    Raises:
        ModelError: Evergreen did not register it, or its files are not those that were registered.
    """
    digest = version.digest
    where = f"{version.name} version {version.version}"
    if digest is None:
        raise ModelError(
            where,
            "must carry Evergreen's producer and digest tags, got a version without them",
            "Only versions that Evergreen registered are loaded: train the model with it.",
        )
    folder = _place(version, digest, where, cache)
    if not _intact(folder, digest):
        _fetch(version, folder, digest, where, download)
    return VersionFolder(read_metadata(folder), folder, version)


def load_version(
    version: Version, cache: Path, download: Callable[[Version, Path], None]
) -> LoadedPackage:
    """Return a version as `fetch_version` does, with its scikit-learn pipeline.

    Raises:
        ModelError: As `fetch_version`, or the pipeline is not to be trusted.
    """
    from include.registry.trust import load_model  # brings scikit-learn

    found = fetch_version(version, cache, download)
    # The types MLmodel lists are not looked at: a model must not vouch for itself.
    pipeline = load_model(found.folder / MODEL_FILE, str(found.meta["model_sha256"]))
    return LoadedPackage(found.meta, found.folder, version, pipeline)


def _place(version: Version, digest: str, where: str, cache: Path) -> Path:
    """Return where a version belongs. What the registry says becomes a path, and MLflow takes almost any name."""
    sane = _NAME.fullmatch(version.name) and not version.name.endswith(".json")
    if not sane or not version.version.isdecimal() or not _DIGEST.fullmatch(digest):
        raise ModelError(
            repr(where[:300]),
            f"must have a plain name, a whole number and a SHA-256 as digest, got {digest[:80]!r} as digest",
            "Register it through Evergreen.",
        )
    return cache / version.name / f"{version.version}-{digest[:12]}"


def _fetch(
    version: Version,
    folder: Path,
    digest: str,
    where: str,
    download: Callable[[Version, Path], None],
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        _lock(folder.parent),
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".part-") as scratch,
    ):
        if _intact(folder, digest):
            return  # another process was faster
        part = Path(scratch) / "model"
        part.mkdir()
        download(version, part)
        found = folder_digest(part)
        if found != digest:
            raise ModelError(
                where,
                f"must have the digest it was registered with, {digest[:12]}..., got {found[:12]}...",
                "Its files were changed in the artifact store: do not use it, train the model again.",
            )
        if folder.exists():
            folder.rename(Path(scratch) / "damaged")
        part.rename(folder)


def _intact(folder: Path, digest: str) -> bool:
    return folder.is_dir() and folder_digest(folder) == digest


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Let one process at a time change `folder`; the lock of a killed one is gone with it."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _sweep(folder)
        yield


def _sweep(folder: Path) -> None:
    """Remove what killed downloads left; nobody else downloads while we hold the lock."""
    for part in folder.glob(".part-*"):
        shutil.rmtree(part, ignore_errors=True)
