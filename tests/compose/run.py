"""Runs docker-compose.yaml for real: builds, starts, trains over REST, predicts, tears down.

Usage: python tests/compose/run.py [--keep]      (`make test-compose`)

Needs Docker with compose, or root and `dockerd` on PATH: then the engine is started here and stopped again.
Images come from the registry where one answers. Where none does, stand-ins are built from Debian packages
(debootstrap) under the same names; the compose file is the same in both cases.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))
PROJECT = "evergreen-test"
IMAGES = {"postgres:16": "postgres.Dockerfile", "redis:7": "redis.Dockerfile"}
PYTHON_IMAGE = "python:3.12-slim-bookworm"
STAND_IN = "evergreen-stand-in:base"


def say(text: str) -> None:
    print(f"== {text}", flush=True)


def run(*command: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=check, text=True, cwd=ROOT, **options)


def quiet(*command: str) -> bool:
    return run(*command, check=False, capture_output=True).returncode == 0


@contextlib.contextmanager
def docker_engine() -> Iterator[None]:
    """Use the running engine, or start one for as long as this lasts."""
    if quiet("docker", "info"):
        yield
        return
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        sys.exit("needs a running Docker engine, or root and dockerd to start one")
    say("starting dockerd")
    with tempfile.NamedTemporaryFile(prefix="dockerd-", suffix=".log", delete=False) as log:
        engine = subprocess.Popen(["dockerd"], stdout=log, stderr=log)
    try:
        wait_for("the Docker engine", lambda: quiet("docker", "info"), 60)
        yield
    finally:
        engine.terminate()
        engine.wait(30)


def wait_for(what: str, ready: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := ready():
            return answer
        time.sleep(1)
    raise SystemExit(f"{what}: not ready after {seconds:.0f} s")


def compose_command() -> list[str]:
    return ["docker", "compose"] if quiet("docker", "compose", "version") else ["docker-compose"]


def ensure_images() -> str:
    """Make every image the compose file names available; return the base image of our own."""
    missing = [name for name in IMAGES if not quiet("docker", "image", "inspect", name)]
    missing = [name for name in missing if not quiet("docker", "pull", "-q", name)]
    if not missing and quiet("docker", "pull", "-q", PYTHON_IMAGE):
        return PYTHON_IMAGE
    say("no registry answers: building stand-ins from Debian packages")
    if not quiet("docker", "image", "inspect", STAND_IN):
        debian_base()
    for name in missing:
        build(name, STAND_IN, HERE / "standins", IMAGES[name])
    return STAND_IN


def debian_base() -> None:
    """Import a minimal Debian with Python as the base image."""
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        root = Path(folder) / "root"
        packages = "ca-certificates,python3,python3-venv,libgomp1"
        run(
            "debootstrap",
            "--variant=minbase",
            f"--include={packages}",
            "bookworm",
            str(root),
            stdout=subprocess.DEVNULL,
        )
        shutil.copy(certificates, root / certificates.relative_to("/"))
        archive = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
        trust = [
            f"--change=ENV {name}={certificates}"
            for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
        ]
        run(
            "docker",
            "import",
            *trust,
            "-",
            STAND_IN,
            stdin=archive.stdout,
            stdout=subprocess.DEVNULL,
        )
        archive.wait()


def build(tag: str, base: str, context: Path, dockerfile: str = "Dockerfile") -> None:
    say(f"building {tag} on {base}")
    run(
        *("docker", "build", "-q", "--network", "host", "--build-arg", f"BASE_IMAGE={base}"),
        *("-t", tag, "-f", str(context / dockerfile), str(context)),
    )


def environment(folder: Path) -> dict[str, str]:
    """Make secrets and free ports for a project of the test's own."""
    import socket

    (folder / "deploy").mkdir()
    script = folder / "deploy/make-secrets.sh"
    shutil.copy(ROOT / "deploy/make-secrets.sh", script)
    run("sh", str(script), stdout=subprocess.DEVNULL)
    with contextlib.ExitStack() as stack:
        for name in ("AIRFLOW_PORT", "MLFLOW_PORT", "SERVING_PORT"):
            taken = stack.enter_context(socket.socket())
            taken.bind(("127.0.0.1", 0))
            with (folder / ".env").open("a") as file:
                file.write(f"{name}={taken.getsockname()[1]}\n")
    with (folder / ".env").open("a") as file:
        file.write(
            f"EVERGREEN_VERSION=test\nWORKER_CONCURRENCY=2\nEVERGREEN_DATA={folder / 'data'}\n"
        )
    return dict(line.split("=", 1) for line in (folder / ".env").read_text().split())


def all_healthy(compose: list[str]) -> bool:
    ids = run(*compose, "ps", "-q", capture_output=True).stdout.split()
    states = json.loads(run("docker", "inspect", *ids, capture_output=True).stdout)
    waiting = []
    for state in states:
        name, now = state["Name"], state["State"]
        if now["Status"] == "exited" and now["ExitCode"]:
            raise SystemExit(f"{name} ended with {now['ExitCode']}")
        if now["Status"] == "running" and now.get("Health", {}).get("Status") != "healthy":
            waiting.append(name)
    return not waiting and len(states) >= 10


def train_and_predict(env: dict[str, str], data: Path) -> None:
    """Do the main job from outside, over REST only."""
    from include.cli.demo import show_predictions
    from include.stack.airflow_client import AirflowClient

    url = f"http://127.0.0.1:{env['AIRFLOW_PORT']}"
    with AirflowClient(url, "admin", env["AIRFLOW_ADMIN_PASSWORD"]) as airflow:
        airflow.wait_for_dag("churn__train", timeout=120)
        started = airflow.trigger("churn__train", {"reason": "compose test"}, "compose-1")
        result = airflow.wait("churn__train", started["dag_run_id"], timeout=900)
        for task in result.tasks:
            say(f"{task.name:<40}{task.state}  {task.seconds or 0:.1f} s")
            if task.state == "failed":
                print(airflow.last_words("churn__train", result.run_id, task))
        if result.state != "success":
            raise SystemExit("the training run failed")
        deployed = airflow.xcom("churn__train", result.run_id, "deploy.promote")
    if str(deployed["version"]) != "1":
        raise SystemExit(f"expected version 1 deployed, got {deployed}")
    show_predictions(
        f"http://127.0.0.1:{env['SERVING_PORT']}",
        sorted((data / "churn").glob("*.parquet"))[-1],
        key=env["SERVING_KEY"],
    )


def sees_log(compose: list[str]) -> bool:
    """Tell whether what serving logged is where the monitor's tasks look for it."""
    look = "ls /store/predictions/churn/date=*/*.parquet"
    done = subprocess.run(
        [*compose, "exec", "-T", "worker", "sh", "-c", look], capture_output=True, check=False
    )
    return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="leave the containers running")
    keep = parser.parse_args().keep
    from include.simulator.batches import write_batches

    with docker_engine(), tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        base = ensure_images()
        build("evergreen:test", base, ROOT)
        env = environment(folder)
        from datetime import UTC, datetime, timedelta

        files = write_batches(
            folder / "data/churn", datetime.now(UTC).date() - timedelta(days=60), 60
        )
        for path in [folder / "data", folder / "data/churn", *files]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        compose = [*compose_command(), "-p", PROJECT, "--env-file", str(folder / ".env")]
        try:
            say("starting the services")
            run(*compose, "up", "-d", "--no-build")
            wait_for("the services", lambda: all_healthy(compose), 420)
            say("all healthy")
            run(*compose, "ps")
            train_and_predict(env, folder / "data")
            wait_for("the workers to see the prediction log", lambda: sees_log(compose), 60)
            say("passed")
        except BaseException:
            run(*compose, "logs", "--tail", "40", check=False)
            raise
        finally:
            if not keep:
                run(*compose, "down", "-v", "--remove-orphans", check=False)


if __name__ == "__main__":
    main()
