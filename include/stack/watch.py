"""Has Airflow parse its Dags again as soon as a spec changes.

Airflow looks at Dag files only, and a spec is not one. Touching the loaders when a spec was added,
changed or removed makes the Dag processor read them at its next look, a few seconds later, so that the
interval for unchanged files can stay long and cost nothing.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from include.spec.files import spec_files

# Nothing beyond the standard library: this process lives as long as the stack and stays small.
ROOT = Path(__file__).resolve().parent.parent.parent
POLL_SECONDS = 1.0


def spec_stamps(models: Path) -> dict[str, tuple[int, int]]:
    """Return modification time (ns) and size (bytes) of each spec; a folder that is not there has none."""
    stamps = {}
    for path in spec_files(models):
        try:
            status = path.stat()
        except OSError:  # removed since it was listed, or not readable: either way not there
            continue
        stamps[str(path)] = (status.st_mtime_ns, status.st_size)
    return stamps


def touch_loaders(dags: Path) -> list[str]:
    """Set the modification time of the Dag files to now; their content is left alone.

    Returns:
        A line for each file that could not be touched.
    """
    problems = []
    for path in sorted(dags.glob("*.py")):
        try:
            os.utime(path)
        except OSError as error:
            problems.append(f"{path}: cannot be touched ({error.strerror})")
    return problems


def watch(models: Path, dags: Path, stop: threading.Event) -> None:
    """Compare the specs once a second until `stop` is set.

    Args:
        models: Folder of the specs.
        dags: Folder of the Dag files.
        stop: Ends the loop.
    """
    before = spec_stamps(models)
    while not stop.wait(POLL_SECONDS):
        now = spec_stamps(models)
        if now != before:
            changed = sorted(Path(p).name for p in before.keys() ^ now.keys()) + sorted(
                Path(p).name for p in before.keys() & now.keys() if before[p] != now[p]
            )
            problems = touch_loaders(dags)
            print(f"Changed: {', '.join(changed)}. Dags are parsed again.", *problems, sep="\n")
            before = now


if __name__ == "__main__":
    models_folder = Path(os.environ.get("EVERGREEN_MODELS") or ROOT / "include" / "models")
    try:
        watch(models_folder, ROOT / "dags", threading.Event())
    except KeyboardInterrupt:
        sys.exit(0)
