"""What a version was made with: the commit of the code and the lock of its libraries."""

from __future__ import annotations

import hashlib
import os
import subprocess

from include.settings import ROOT


def git_commit() -> str:
    """Return the commit of the code, with `-dirty` after local changes; empty where it cannot be told.

    An image holds no repository: there `EVERGREEN_GIT_COMMIT` says it.
    """
    if named := os.environ.get("EVERGREEN_GIT_COMMIT"):
        return named
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def lock_hash() -> str:
    """Return the sha256 of `requirements.txt`, shortened to 16 hex digits."""
    return hashlib.sha256((ROOT / "requirements.txt").read_bytes()).hexdigest()[:16]
