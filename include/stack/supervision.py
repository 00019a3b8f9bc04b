"""supervisord: the file it is started with, starting it, and talking to it over its socket."""

from __future__ import annotations

import contextlib
import http.client
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.errors import ServiceError
from include.stack.components import Component
from include.stack.layout import Layout, write_private
from include.stack.leftovers import COMPONENT_MARK

LOG_BYTES, LOG_BACKUPS = 10_000_000, 3
#: Seconds a component gets to end by itself before it is killed.
STOP_SECONDS = 10
#: A component that ends within this many seconds of its start has failed to start.
START_SECONDS = 3
#: After so many failed starts in a row (waiting 1, 2, 3... s between them) supervisord gives up.
START_RETRIES = 8
#: States of a component that will not start by itself.
IDLE = ("STOPPED", "FATAL", "EXITED")
_CHILD = (sys.executable, "-m", "include.stack.child")
_SHUTTING_DOWN, _ALREADY_STARTED = 6, 60  # faults of supervisord's interface


@dataclass(frozen=True)
class Process:
    """What supervisord says about one component.

    Args:
        name: The component.
        state: RUNNING, STARTING, BACKOFF, FATAL, STOPPED, STOPPING, EXITED or UNKNOWN.
        pid: Process id; 0 when it does not run.
        started: Seconds since the epoch of the last start; 0 before the first.
        now: Seconds since the epoch by supervisord's clock.
        description: supervisord's own words, such as the exit status.
    """

    name: str
    state: str
    pid: int
    started: float
    now: float
    description: str

    @property
    def uptime(self) -> float | None:
        """Seconds since the start; None when it does not run."""
        return self.now - self.started if self.pid else None


def render(
    layout: Layout, socket: Path, components: Iterable[Component], autostart: Collection[str]
) -> str:
    """Return supervisord's configuration. It holds no secret: those are inherited as environment.

    Args:
        layout: Paths of the stack.
        socket: Control socket.
        components: What to run.
        autostart: Names of those to start at once; the others wait to be asked.
    """
    config: dict[str, dict[str, str]] = {}
    config["unix_http_server"] = {"file": str(socket), "chmod": "0600"}
    config["supervisord"] = {
        "logfile": str(layout.log("supervisord")),
        "logfile_maxbytes": str(LOG_BYTES),
        "logfile_backups": str(LOG_BACKUPS),
        "pidfile": str(layout.run / "supervisord.pid"),
        "childlogdir": str(layout.logs),
        "umask": "077",
        "identifier": "evergreen",
        "nocleanup": "true",
    }
    config["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    for component in components:
        config[f"program:{component.name}"] = {
            "command": shlex.join([*_CHILD, *component.command]).replace("%", "%%"),
            "environment": f'{COMPONENT_MARK}="{component.name}"',
            "directory": str(layout.run),
            "autostart": "true" if component.name in autostart else "false",
            "autorestart": "true",
            "startsecs": str(START_SECONDS),
            "startretries": str(START_RETRIES),
            "stopwaitsecs": str(STOP_SECONDS),
            # Airflow's workers belong to the scheduler's group: none may outlive it.
            "stopasgroup": "true",
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": str(layout.log(component.name)),
            "stdout_logfile_maxbytes": str(LOG_BYTES),
            "stdout_logfile_backups": str(LOG_BACKUPS),
        }
    lines = []
    for section, options in config.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {value}" for key, value in options.items()]
    return "\n".join(lines) + "\n"


def start(
    layout: Layout,
    socket: Path,
    components: Iterable[Component],
    autostart: Collection[str],
    environment: Mapping[str, str],
) -> None:
    """Start supervisord in the background; it starts the components.

    Args:
        layout: Paths of the stack.
        socket: Control socket.
        components: All components.
        autostart: Names of those to start at once.
        environment: Environment of supervisord and of all components.

    Raises:
        ServiceError: supervisord refused, with its last words.
    """
    write_private(layout.supervisor_conf, render(layout, socket, components, autostart))
    finished = subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(layout.supervisor_conf)],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if finished.returncode:
        said = finished.stdout.strip().splitlines()
        raise ServiceError(
            "supervisord",
            f"must start, got exit status {finished.returncode}: {said[-1] if said else 'no message'}",
            f"See {layout.log('supervisord')}.",
        )


class Supervisor:
    """The control socket of a running supervisord."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def _call(self, method: str, *arguments: Any) -> Any:
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            return getattr(proxy.supervisor, method)(*arguments)
        except (OSError, http.client.HTTPException) as error:
            raise ServiceError(
                "supervisord",
                f"must answer on {self._socket}, got {error}",
                "Start it with `./evergreen up`.",
            ) from error
        finally:
            transport.close()

    def processes(self) -> dict[str, Process]:
        """Return every component's state.

        Raises:
            ServiceError: supervisord does not answer, or is shutting down.
        """
        try:
            infos = self._call("getAllProcessInfo")
        except xmlrpc.client.Fault as fault:
            raise ServiceError(
                "supervisord",
                f"must be running, got {fault.faultString}",
                "Wait until it has ended.",
            ) from fault
        return {
            info["name"]: Process(
                info["name"],
                info["statename"],
                info["pid"],
                info["start"],
                info["now"],
                info["spawnerr"] or info["description"],
            )
            for info in infos
        }

    def state(self) -> str | None:
        """Return RUNNING, SHUTDOWN (on its way out) or another state; None when nobody answers."""
        try:
            return str(self._call("getState")["statename"])
        except xmlrpc.client.Fault:  # the answer to every call while it shuts down
            return "SHUTDOWN"
        except ServiceError:
            return None

    def start(self, name: str) -> None:
        """Start a component that does not run; returns at once.

        Raises:
            ServiceError: It cannot be started.
        """
        try:
            self._call("startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != _ALREADY_STARTED:
                raise ServiceError(
                    name, f"must start, got {fault.faultString}", f"See its log, {name}.log."
                ) from fault

    def stop(self, names: Iterable[str]) -> None:
        """Ask components to end, all at once, and wait until they have (or were killed).

        Raises:
            ServiceError: supervisord does not answer, or is shutting down.
        """
        asked = set(names)
        running = [
            name for name, process in self.processes().items() if name in asked and process.pid
        ]
        for name in running:
            with contextlib.suppress(xmlrpc.client.Fault):  # ended since it was listed
                self._call("stopProcess", name, False)
        deadline = time.monotonic() + STOP_SECONDS * 2
        while time.monotonic() < deadline:
            if not any(p.state == "STOPPING" for p in self.processes().values()):
                return
            time.sleep(0.1)

    def shutdown(self) -> None:
        """Ask supervisord to stop what still runs and to end; returns at once.

        Raises:
            ServiceError: supervisord does not answer.
        """
        try:
            self._call("shutdown")
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != _SHUTTING_DOWN:
                raise


def last_lines(path: Path, count: int = 15) -> list[str]:
    """Return the end of a log file; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 16_384))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        return []


def wait_until_gone(supervisor: Supervisor, seconds: float) -> bool:
    """Wait until supervisord no longer answers; False when it still does after `seconds`."""
    deadline = time.monotonic() + seconds
    while supervisor.state():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
