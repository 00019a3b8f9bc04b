"""The launcher and its set-up in a copy of the project, with a stand-in for uv: no network, real processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from include.settings import ROOT

# Knows the three calls the set-up makes, and writes each down. `venv` links this test's Python.
UV = """#!/bin/sh
[ "$1" = --version ] && exit 0
echo "$@" >> "$CALLS"
case $1 in
venv)
    for folder; do :; done
    mkdir -p "$folder/bin"
    # Runs everything but pip, which would install into the environment of these tests.
    printf '#!/bin/sh\\n[ "$2" = pip -o "$2" = ensurepip ] && exit 1\\nexec "%s" "$@"\\n' \\
        "$REAL_PYTHON" > "$folder/bin/python"
    chmod +x "$folder/bin/python" ;;
pip)
    echo installing >> "$CALLS.now"
    sleep "${LASTS:-0}"
    exit "${STATUS:-0}" ;;
esac
"""
# Stands for include.cli: tells where it is and what it was given.
CLI = "import os, sys; print(sys.argv[1:], os.environ['PYTHONPATH'], os.getcwd(), sep='|')"


@dataclass
class Project:
    """A copy of the project with nothing in it but what set-up needs."""

    root: Path
    calls: Path
    environment: dict[str, str]

    def run(self, *arguments: str, program: Path | None = None, **options: object) -> list[str]:
        """Run the launcher; return what the command line printed, split."""
        finished = subprocess.run(
            [str(program or self.root / "evergreen"), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
            **options,  # type: ignore[call-overload]
        )
        return str(finished.stdout).strip().split("|")

    def installed(self) -> list[str]:
        """Return what was installed so far, in short."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        names = []
        for line in lines:
            if line.startswith("pip"):
                names.append("project" if "--editable" in line else line.rpartition("/")[2])
        return names


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = tmp_path / "a project"
    (root / "include" / "stack").mkdir(parents=True)
    (root / "include" / "cli").mkdir()
    shutil.copy(ROOT / "evergreen", root)
    shutil.copy(ROOT / "include" / "stack" / "bootstrap.py", root / "include" / "stack")
    (root / "include" / "cli" / "__main__.py").write_text(CLI)
    # Regular packages, or this Python would prefer the ones it has installed.
    (root / "include" / "__init__.py").touch()
    (root / "include" / "cli" / "__init__.py").touch()
    for name in ("requirements.txt", "requirements-dev.txt", "pyproject.toml"):
        (root / name).write_text(f"# {name}\n")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "uv").write_text(UV)
    (tools / "uv").chmod(0o755)
    (tools / "python3.11").symlink_to(sys.executable)
    calls = tmp_path / "calls"
    environment = {
        "PATH": f"{tools}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "CALLS": str(calls),
        "REAL_PYTHON": sys.executable,
        "EVERGREEN_PYTHON": sys.executable,
        "EVERGREEN_HOME": str(tmp_path / "home"),
    }
    return Project(root, calls, environment)


def test_first_use_sets_up_and_later_ones_do_not(project: Project) -> None:
    assert project.run("check", "two words")[0] == "['check', 'two words']"
    assert project.installed() == ["requirements.txt", "project"]
    project.run("check")
    assert project.installed() == ["requirements.txt", "project"]


def test_works_from_any_folder_and_through_links(project: Project, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    # A file of the user's must not be taken for a library.
    (elsewhere / "os.py").write_text("raise SystemExit('shadowed')")
    (elsewhere / "include.py").write_text("raise SystemExit('shadowed')")
    (elsewhere / "one").symlink_to("../a project/evergreen")
    (tmp_path / "two").symlink_to(elsewhere / "one")
    for program in (elsewhere / "one", tmp_path / "two"):
        said = project.run("up", program=program, cwd=elsewhere)
        assert said == ["['up']", str(project.root), str(elsewhere)]


def test_a_changed_lock_is_installed(project: Project) -> None:
    project.run("up")
    (project.root / "requirements.txt").write_text("more==1\n")
    project.run("up")
    assert project.installed() == ["requirements.txt", "project", "requirements.txt"]
    (project.root / "pyproject.toml").write_text("[changed]\n")
    project.run("up")
    assert project.installed()[3:] == ["project"]


def test_development_tools_on_demand(project: Project) -> None:
    project.run("setup")
    project.run("setup", "--dev")
    project.run("setup", "--dev")
    assert project.installed() == ["requirements.txt", "project", "requirements-dev.txt"]


def test_a_moved_folder_is_installed_again(project: Project) -> None:
    project.run("up")
    moved = project.root.with_name("moved")
    project.root.rename(moved)
    assert project.run("up", program=moved / "evergreen")[1] == str(moved)
    assert project.installed() == ["requirements.txt", "project", "project"]


def test_a_broken_environment_is_made_anew(project: Project) -> None:
    project.run("up")
    (project.root / ".venv" / "bin" / "python").unlink()
    (project.root / ".venv" / "bin" / "python").symlink_to("/nowhere/python3")
    project.run("up")
    assert project.installed() == ["requirements.txt", "project"] * 2


def test_a_failed_installation_is_said_and_tried_again(project: Project) -> None:
    environment = {**project.environment, "STATUS": "2"}
    finished = subprocess.run(
        [str(project.root / "evergreen"), "up"], env=environment, capture_output=True, text=True
    )
    assert finished.returncode == 1
    assert "evergreen: installing the libraries (minutes on a slow line) failed" in finished.stderr
    assert finished.stdout == ""
    assert project.run("up")[0] == "['up']"


def test_without_uv_and_without_a_network_it_goes_on_with_pip(project: Project) -> None:
    environment = {
        **project.environment,
        "PATH": "/usr/bin:/bin",
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }
    finished = subprocess.run(
        [str(project.root / "evergreen"), "up"], env=environment, capture_output=True, text=True
    )
    assert "installing the libraries (minutes on a slow line) with pip" in finished.stderr
    # The lock of this copy is empty; building the project itself is what needs the network.
    assert "evergreen: installing Evergreen itself failed, see above." in finished.stderr
    assert finished.returncode == 1
    assert (project.root / ".venv" / ".evergreen" / "requirements.txt").exists()


def _start(project: Project, seconds: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(project.root / "evergreen"), "up"],
        env={**project.environment, "LASTS": seconds},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _until_installing(project: Project) -> None:
    deadline = time.monotonic() + 20
    while not Path(f"{project.calls}.now").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_set_up_goes_on(project: Project) -> None:
    process = _start(project, "60")
    _until_installing(project)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert project.run("up")[0] == "['up']"
    assert project.installed() == ["requirements.txt", "requirements.txt", "project"]


def test_two_set_ups_at_once_work_one_after_the_other(project: Project) -> None:
    first = _start(project, "1")
    _until_installing(project)
    second = _start(project, "1")
    said = [process.communicate(timeout=30) for process in (first, second)]
    assert [out.partition("|")[0] for out, _ in said] == ["['up']", "['up']"]
    assert "waiting for another set-up" in said[1][1]
    assert project.installed() == ["requirements.txt", "project"]


def test_no_python_is_said_plainly(project: Project, tmp_path: Path) -> None:
    tools = tmp_path / "only"
    tools.mkdir()
    for name in ("sh", "dirname", "readlink", "cat", "cmp"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    (tools / "python3.12").write_text("#!/bin/sh\nexit 127\n")  # as pyenv's do
    (tools / "python3.12").chmod(0o755)
    finished = subprocess.run(
        [str(project.root / "evergreen"), "up"],
        env={"PATH": str(tools), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 1
    assert "needs Python 3.11, 3.12 or 3.13, and found none" in finished.stderr


def test_set_up_leaves_standard_output_alone(project: Project) -> None:
    finished = subprocess.run(
        [str(project.root / "evergreen"), "status"],
        env=project.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.startswith("['status']|")
    lines = finished.stderr.splitlines()
    assert all(line.startswith("evergreen: ") for line in lines)
    assert len(lines) == 4, lines
