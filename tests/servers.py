"""Real servers for tests: started on free ports of 127.0.0.1, polled until they answer, stopped by pid."""

from __future__ import annotations

import base64
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psycopg

_HOP = ("host", "authorization", "connection", "content-length", "transfer-encoding")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def start_mlflow(folder: Path, *, port: int | None = None) -> Iterator[str]:
    """Run a real MLflow server with its state in `folder`; yield its base URL.

    Args:
        folder: Where the SQLite database and the artifacts live; a second start on the same folder finds them.
        port: The port to use; None for a free one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    url = f"http://127.0.0.1:{port}"
    with run_process(command, folder / "mlflow.log", environment) as process:
        wait_for(f"{url}/health", process, folder / "mlflow.log")
        yield url


@contextmanager
def start_guard(url: str, user: str, password: str) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Run a proxy in front of `url` that lets nobody through without this Basic authentication.

    Yields:
        The proxy's base URL without credentials, and its growing list of (path, status).
    """
    wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    seen: list[tuple[str, int]] = []

    class Guard(BaseHTTPRequestHandler):
        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") == wanted:
                headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
                answer = httpx.request(
                    self.command, url + self.path, content=body, headers=headers, timeout=30
                )
                status, content = answer.status_code, answer.content
                kind = answer.headers.get("Content-Type", "text/plain")
            else:
                status, content, kind = 401, b"who are you?", "text/plain"
            seen.append((self.path, status))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Guard)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def start_postgres() -> Iterator[str]:
    """Run a real Postgres on a free port; yield the URL of its empty database, password included.

    Postgres refuses to run as root: there it runs as the user `postgres`.

    Raises:
        FileNotFoundError: This machine has no Postgres server, or is root without that user.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = found[-1] if found else Path(shutil.which("initdb") or "/nonexistent")
    if not initdb.exists():
        raise FileNotFoundError("no Postgres server binaries on this machine")
    folder = Path(tempfile.mkdtemp(prefix="evergreen-postgres-"))
    as_user: dict[str, Any] = {}
    try:
        if os.geteuid() == 0:
            try:
                account = pwd.getpwnam("postgres")
            except KeyError:
                raise FileNotFoundError("root, and no user named postgres") from None
            os.chown(folder, account.pw_uid, account.pw_gid)
            as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        secret = "only-for-tests"
        (folder / "password").write_text(secret)
        (folder / "password").chmod(0o644)
        setup = [str(initdb), "-D", str(folder / "data"), "-U", "evergreen", "-N"]
        setup += ["-A", "scram-sha-256", "--pwfile", str(folder / "password")]
        subprocess.run(
            setup,
            check=True,
            capture_output=True,
            cwd=folder,
            **as_user,
        )
        port = free_port()
        command = [str(initdb.with_name("postgres")), "-D", str(folder / "data"), "-p", str(port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
        with run_process(command, folder / "log", os.environ, **as_user) as process:
            url = f"postgresql://evergreen:{secret}@127.0.0.1:{port}/postgres"
            _poll(lambda: _connects(url), "Postgres", process, folder / "log", 60.0)
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def run_process(
    command: list[str], log: Path, environment: Mapping[str, str], **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in its own process group; stop the whole group on leaving."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
            **options,
        )
    try:
        yield process
    finally:
        stop_group(process)


def stop_group(process: subprocess.Popen[bytes], patience: float = 10.0) -> None:
    """Ask a process group to end, and after `patience` seconds make it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(patience)


def wait_for(
    url: str, process: subprocess.Popen[bytes], log: Path, deadline: float = 120.0
) -> None:
    """Poll `url` until it answers 200.

    Raises:
        RuntimeError: The process ended, or the deadline (in seconds) passed; with the end of its log.
    """

    def answers() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(url, timeout=2.0).status_code == httpx.codes.OK
        return False

    _poll(answers, url, process, log, deadline)


def _connects(url: str) -> bool:
    with suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=2):
        return True
    return False


def _poll(
    ready: Callable[[], bool],
    what: str,
    process: subprocess.Popen[bytes],
    log: Path,
    deadline: float,
) -> None:
    until = time.monotonic() + deadline
    while time.monotonic() < until and process.poll() is None:
        if ready():
            return
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-3000:]
    raise RuntimeError(f"{what} did not answer (process: {process.poll()}). Its log ends:\n{tail}")
