"""Which files of a folder are specs. Standard library only: the watcher, which stays small, reads it too."""

from __future__ import annotations

from pathlib import Path

ENDING = ".yaml"
_PATTERNS = ("*.yaml", "*.yml")  # the second so that its reader is told to rename it


def spec_files(models: Path) -> list[Path]:
    """Return the specs of a folder, sorted by name; subfolders are not looked into."""
    return sorted(path for pattern in _PATTERNS for path in models.glob(pattern))
