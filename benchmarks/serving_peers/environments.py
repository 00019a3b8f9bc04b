"""Environments of their own for the peers that do not belong into Evergreen's."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


class InstallError(Exception):
    """A peer that cannot be installed here; its text says why."""


def ensure(peer: str) -> Path:
    """Return the Python of a peer's environment, made when it is not there.

    Its requirements file is `<peer>.txt` beside this one; other requirements are another environment.

    Raises:
        InstallError: pip failed.
    """
    listed = HERE / f"{peer}.txt"
    digest = hashlib.sha256(listed.read_bytes() + sys.version.encode()).hexdigest()[:12]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "evergreen-bench" / f"{peer}-{digest}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return python
    print(f"installing {peer} into {folder}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(listed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise InstallError(said[-1] if said else f"pip ended with {done.returncode}")
    ready.touch()
    return python
