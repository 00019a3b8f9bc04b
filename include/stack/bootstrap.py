"""Makes `.venv` and installs the lock into it. Run by the launcher with any Python >= 3.11.

Nothing but the standard library is there yet. May be killed at any moment and run twice at once: a
kernel lock lets one work at a time, and the stamps that call the result complete are written last.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
STAMPS = VENV / ".evergreen"
#: What must be as it was installed; the launcher compares the same files.
_PROJECT = "pyproject.toml"
_LOCK, _DEV_LOCK = "requirements.txt", "requirements-dev.txt"


class SetupError(Exception):
    """A step failed; the message says which and what to do."""


def _say(text: str) -> None:
    print(f"evergreen: {text}", file=sys.stderr, flush=True)


def _run(command: Sequence[str | Path], *, quiet: bool = False) -> bool:
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    # uv brings certificates of its own; those of this machine know the company's proxy.
    environment = {"UV_NATIVE_TLS": "true", "UV_SYSTEM_CERTS": "true", **environment}
    output = subprocess.DEVNULL if quiet else None
    # Both streams go to standard error: standard output belongs to the command that follows.
    finished = subprocess.run(
        [str(part) for part in command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output or sys.stderr,
        stderr=output,
        check=False,
    )
    return finished.returncode == 0


def python_works() -> bool:
    """Whether `.venv` has an interpreter of a supported version that still starts."""
    python = VENV / "bin" / "python"
    supported = "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))"
    return python.exists() and _run([python, "-c", supported], quiet=True)


def make_environment(uv: str | None) -> None:
    """Create `.venv`, replacing one that does not work.

    Raises:
        SetupError: Neither uv nor the venv module could.
    """
    if python_works():
        return
    version = ".".join(map(str, sys.version_info[:3]))
    _say(f"making {VENV} with Python {version}")
    if VENV.exists():
        shutil.rmtree(VENV)
    if uv and _run([uv, "venv", "--quiet", "--python", sys.executable, VENV]):
        return
    if importlib.util.find_spec("ensurepip") and _run([sys.executable, "-m", "venv", VENV]):
        return
    short = ".".join(map(str, sys.version_info[:2]))
    raise SetupError(
        f"{sys.executable} cannot make virtual environments. On Debian and Ubuntu: "
        f"apt install python{short}-venv. Or install uv (https://docs.astral.sh/uv)."
    )


def find_uv() -> str | None:
    """Return the path of a uv that runs; None when there is none."""
    for candidate in (shutil.which("uv"), shutil.which(VENV / "bin" / "uv")):
        if candidate and _run([candidate, "--version"], quiet=True):
            return candidate
    return None


def get_installers(uv: str | None) -> dict[str, list[str]]:
    """Return the commands that install into `.venv`, the first to be tried first.

    uv is fetched if need be. pip stays behind it: it gets through some proxies that uv does not.

    Raises:
        SetupError: There is neither.
    """
    python = str(VENV / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    has_pip = _run([python, "-m", "pip", "--version"], quiet=True) or _run(
        [python, "-m", "ensurepip", "--upgrade"], quiet=True
    )
    if uv is None and has_pip and _run([*pip, "uv"], quiet=True):
        uv = find_uv()
    found = {}
    if uv:
        found["uv"] = [uv, "pip", "install", "--quiet", "--python", python, "--compile-bytecode"]
    if has_pip:
        found["pip"] = pip
    if not found:
        raise SetupError(f"{VENV} has no pip and no uv was found. Remove {VENV} and try again.")
    return found


def _install(installers: dict[str, list[str]], what: str, arguments: Sequence[str | Path]) -> None:
    for tool, command in installers.items():
        _say(f"installing {what} with {tool}")
        if _run([*command, *arguments]):
            return
    raise SetupError(f"installing {what} failed, see above. Check the network and try again.")


def _stamped(name: str) -> bool:
    try:
        return (STAMPS / name).read_bytes() == (ROOT / name).read_bytes()
    except OSError:
        return False


def _stamp(name: str, content: bytes) -> None:
    STAMPS.mkdir(exist_ok=True)
    temporary = STAMPS / f".{name}.new"
    temporary.write_bytes(content)
    temporary.replace(STAMPS / name)


def _moved() -> bool:
    try:
        return (STAMPS / "root").read_text().strip() != str(ROOT)
    except OSError:
        return True


def install(*, dev: bool) -> None:
    """Bring `.venv` up to date; does only what is due.

    Args:
        dev: Also install what tests and linters need.

    Raises:
        SetupError: A step failed.
    """
    uv = find_uv()
    make_environment(uv)
    installers = get_installers(uv)
    locks = [(_LOCK, "the libraries (minutes on a slow line)")]
    if dev:
        locks.append((_DEV_LOCK, "development tools"))
    for name, what in locks:
        if not _stamped(name):
            content = (
                ROOT / name
            ).read_bytes()  # what is stamped even if the file changes meanwhile
            _install(installers, what, ["-r", ROOT / name])
            _stamp(name, content)
    if not _stamped(_PROJECT) or _moved():
        content = (ROOT / _PROJECT).read_bytes()
        _install(installers, "Evergreen itself", ["--no-deps", "--editable", ROOT])
        _stamp("root", f"{ROOT}\n".encode())
        _stamp(_PROJECT, content)


def main(arguments: Sequence[str]) -> int:
    """Set up, one at a time; returns the exit status."""
    began = time.monotonic()
    # The folder itself is what is locked: no file to leave behind, and the kernel lets go of a dead holder.
    handle = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another set-up of this folder to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        install(dev="--dev" in arguments)
    except (SetupError, OSError) as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        _say("interrupted; the next call goes on from here")
        return 130
    finally:
        os.close(handle)
    _say(f"set-up took {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
