"""A version's folder as it is read: its digest, its metadata, its libraries.

Imports nothing that a model is made of, so that serving reads an ONNX version without scikit-learn.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from include.errors import ModelError

MODEL_FILE = "model.skops"


def folder_digest(folder: Path) -> str:
    """Return the sha256 over the sorted listing of every file's path and sha256."""
    lines = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        lines.append(f"{digest}  {path.relative_to(folder).as_posix()}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def read_metadata(folder: Path) -> dict[str, Any]:
    """Return what `Package.metadata` put into the folder's MLmodel file.

    Raises:
        ModelError: There is no such file, or Evergreen did not write it.
    """
    try:
        content = yaml.safe_load((folder / "MLmodel").read_text())
        return dict(content["metadata"]["evergreen"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ModelError(
            str(folder),
            f"must hold an MLmodel file with Evergreen's metadata, got {type(error).__name__}: {error}",
            "Train the model again.",
        ) from error


def read_libraries(folder: Path) -> dict[str, str]:
    """Return the versions of Python and of the libraries that trained a version, by name."""
    python = yaml.safe_load((folder / "python_env.yaml").read_text())["python"]
    lines = (folder / "requirements.txt").read_text().splitlines()
    pins = (line.partition("==") for line in lines if "==" in line)
    return {"Python": str(python), **{name: version for name, _, version in pins}}


def installed_libraries(names: Iterable[str]) -> dict[str, str]:
    """Return the versions installed here of what `read_libraries` named; `none` for one that is not."""
    return {
        name: platform.python_version() if name == "Python" else _installed(name) for name in names
    }


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"
