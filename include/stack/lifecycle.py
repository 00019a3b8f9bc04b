"""Starts and stops the embedded stack, whatever state it is found in."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from include.errors import ServiceError
from include.settings import Settings
from include.stack import databases, leftovers, supervision
from include.stack.components import Component, get_components
from include.stack.credentials import Credentials, ensure_credentials
from include.stack.environment import stack_environment
from include.stack.layout import Layout, get_layout, prepare
from include.stack.ports import check_ports
from include.stack.status import (
    ComponentStatus,
    Status,
    find_supervisor,
    get_status,
    running_settings,
)
from include.stack.supervision import Supervisor

_POLL_SECONDS = 0.5
_LAST_MOMENT_SECONDS = 2.0
#: A component that failed to start so often is broken, not slow.
_FAILED_STARTS = 3
#: What others talk to while they end.
_LAST = frozenset({"api-server", "mlflow"})
_BUSY = "Waiting for another `up` or `down` of this stack."


@dataclass(frozen=True)
class Reports:
    """What `up` and `down` tell their caller while they work.

    Args:
        say: A line of text.
        progress: The status, at every look.
    """

    say: Callable[[str], None] = lambda _text: None
    progress: Callable[[Status], None] = lambda _status: None


@dataclass(frozen=True)
class Up:
    """What `up` found and did.

    Args:
        already: Everything ran before.
        settings: The settings the stack runs with (those of its start, not of this call).
        credentials: Passwords of the stack.
        seconds: From the call until everything answered.
    """

    already: bool
    settings: Settings
    credentials: Credentials
    seconds: float


def up(
    settings: Settings,
    reports: Reports | None = None,
    *,
    timeout: float = 240.0,
    only: Collection[str] | None = None,
) -> Up:
    """Start what does not run, and wait until it answers.

    Safe to call twice, also at the same time, and after any kind of crash.

    Args:
        settings: Where things are.
        reports: Told about progress.
        timeout: Seconds until giving up.
        only: Names of the components that are needed; None means all.

    Raises:
        ServiceError: A port is taken, or a component does not come up; then a stack that this call
            started has been stopped again.
    """
    began = time.monotonic()
    reports = reports or Reports()
    layout = get_layout(settings.home)
    prepare(layout)
    with layout.lock(lambda: reports.say(_BUSY)):
        credentials = ensure_credentials(layout)
        _ensure_client_key(settings)
        supervisor = find_supervisor(layout)
        if supervisor is not None and supervisor.state() != "RUNNING":
            _stop(layout, reports)  # on its way out, say by a `down` that was killed half-way
            supervisor = None
        already = False
        if supervisor is None:
            components = get_components(settings, layout)
            names = {c.name for c in components if only is None or c.name in only}
            _start_all(settings, layout, credentials, names, reports)
            try:
                _wait_healthy(settings, layout, names, reports, timeout)
            except BaseException:
                _stop(layout, reports)
                raise
        else:
            settings = running_settings(settings)
            components = get_components(settings, layout)
            names = {c.name for c in components if only is None or c.name in only}
            already = get_status(settings).only(names).healthy
            _start_missing(settings, layout, supervisor, names, reports)
            _wait_healthy(settings, layout, names, reports, timeout)
        return Up(already, running_settings(settings), credentials, time.monotonic() - began)


def down(settings: Settings, reports: Reports | None = None) -> int:
    """Stop everything of this stack, also what a crash left behind.

    Returns:
        How many processes were asked to end; 0 when nothing ran.
    """
    reports = reports or Reports()
    layout = get_layout(settings.home)
    if not layout.run.exists():
        return 0
    with layout.lock(lambda: reports.say(_BUSY)):
        return _stop(layout, reports)


def _start_all(
    settings: Settings,
    layout: Layout,
    credentials: Credentials,
    names: Collection[str],
    reports: Reports,
) -> None:
    if count := leftovers.end_all(layout.home):
        reports.say(f"Ended {count} processes an earlier stack left behind.")
    components = get_components(settings, layout)
    wanted = [component for component in components if component.name in names]
    check_ports(wanted)
    environment = stack_environment(settings, layout, credentials, os.environ)
    _migrate(layout, environment, wanted, reports)
    socket = layout.socket()
    ports = {
        name: getattr(settings, name) for name in Settings.model_fields if name.endswith("_port")
    }
    layout.write_state({"socket": str(socket), "ports": ports})
    marked = {**environment, leftovers.STACK_MARK: str(layout.home)}
    supervision.start(layout, socket, components, names, marked)


def _start_missing(
    settings: Settings,
    layout: Layout,
    supervisor: Supervisor,
    names: Collection[str],
    reports: Reports,
) -> None:
    idle = {p.name for p in supervisor.processes().values() if p.state in supervision.IDLE}
    missing = [c for c in get_components(settings, layout) if c.name in names and c.name in idle]
    if not missing:
        return
    check_ports(missing)
    environment = stack_environment(settings, layout, ensure_credentials(layout), os.environ)
    _migrate(layout, environment, missing, reports)
    reports.say(f"Starting {', '.join(c.name for c in missing)}.")
    for component in missing:
        supervisor.start(component.name)


def _ensure_client_key(settings: Settings) -> None:
    """Give our own clients a key where serving will ask everybody for one."""
    if settings.on_loopback:
        return
    from include.ledger.ledger import Ledger
    from include.stack.client_key import ensure_client_key

    ensure_client_key(settings, Ledger(settings.ledger_dsn), datetime.now(UTC))


def _migrate(
    layout: Layout, environment: dict[str, str], starting: list[Component], reports: Reports
) -> None:
    names = {component.name for component in starting}
    due = []
    if "mlflow" in names:
        due.append(databases.mlflow_database(layout))
    # Only when all of Airflow is about to start does nobody have its database open.
    if {"api-server", "scheduler", "dag-processor", "triggerer"} <= names:
        due.append(databases.airflow_database(layout.airflow))
    if not all(database.current() for database in due):
        reports.say("Preparing databases (once, about 15 s).")
        databases.migrate(due, environment, layout)


def _wait_healthy(
    settings: Settings,
    layout: Layout,
    names: Collection[str],
    reports: Reports,
    timeout: float,
) -> None:
    deadline = time.monotonic() + timeout
    failures: dict[str, set[float]] = {}
    while True:
        current = get_status(settings).only(names)
        reports.progress(current)
        if current.healthy:
            return
        if not current.supervised:
            raise ServiceError(
                "supervisord", "must stay up, got no answer", f"See {layout.log('supervisord')}."
            )
        if broken := _find_broken(current, failures):
            raise _crashed(layout, broken)
        if time.monotonic() > deadline:
            late = [item.name for item in current.components if not item.healthy]
            raise ServiceError(
                ", ".join(late),
                f"must answer within {timeout:.0f} s, got silence",
                f"See {', '.join(str(layout.log(name)) for name in late)}.",
            )
        time.sleep(_POLL_SECONDS)


def _find_broken(current: Status, failures: dict[str, set[float]]) -> ComponentStatus | None:
    for item in current.components:
        process = item.process
        if process.state == "BACKOFF":
            failures.setdefault(item.name, set()).add(process.started)
        if process.state == "FATAL" or len(failures.get(item.name, ())) >= _FAILED_STARTS:
            return item
    return None


def _crashed(layout: Layout, item: ComponentStatus) -> ServiceError:
    log = layout.log(item.name)
    lines = [line for line in supervision.last_lines(log) if line.strip()]
    shown = "".join(f"\n    {line}" for line in lines)
    return ServiceError(
        item.name,
        f"must stay up, got a process that ends right after its start ({item.process.description})",
        f"The end of {log}:{shown}" if shown else f"Its log, {log}, is empty.",
    )


def _stop(layout: Layout, reports: Reports) -> int:
    supervisor = find_supervisor(layout)
    stopped = 0
    if supervisor is not None:
        with contextlib.suppress(ServiceError):  # it may be on its way out already
            processes = supervisor.processes()
            stopped = sum(1 for process in processes.values() if process.pid)
            # A task that is told to end still reports to the api-server and to MLflow.
            supervisor.stop(processes.keys() - _LAST)
            supervisor.stop(_LAST)
            supervisor.shutdown()
        if not supervision.wait_until_gone(supervisor, supervision.STOP_SECONDS * 2 + 5):
            reports.say("supervisord did not end in time; ending it.")
    # Its socket closes a moment before it is gone itself.
    deadline = time.monotonic() + _LAST_MOMENT_SECONDS
    while supervisor and leftovers.find(layout.home) and time.monotonic() < deadline:
        time.sleep(0.05)
    stopped += leftovers.end_all(layout.home)
    layout.state.unlink(missing_ok=True)
    return stopped
