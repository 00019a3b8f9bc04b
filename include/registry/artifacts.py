"""Files of runs and versions in MLflow's artifact store: fetched one by one, folders complete or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from include.errors import ConflictError

#: Schemes of artifact stores that are reached over the network; never file: or a path of the server.
REMOTE = ("mlflow-artifacts", "s3", "gs", "wasbs", "abfss")


def fetch_all(store: Any, into: Path, below: str | None = None) -> None:
    """Download file by file: `download_artifacts` draws a progress bar only the environment can switch off.

    Args:
        store: MLflow's artifact repository.
        into: Folder the paths in the store start from.
        below: Path in the store; None for everything.

    Raises:
        ConflictError: A path in the store leads out of the folder.
    """
    for item in store.list_artifacts(below):
        target = into / item.path
        if not target.resolve().is_relative_to(into.resolve()):
            raise ConflictError(
                "MLflow artifacts",
                f"must lie inside their folder, got {item.path!r}",
                "The artifact store was tampered with: look at it.",
            )
        if item.is_dir:
            target.mkdir(parents=True, exist_ok=True)
            fetch_all(store, into, item.path)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            store._download_file(item.path, str(target))
