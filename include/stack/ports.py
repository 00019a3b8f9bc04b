"""Whether the stack's ports are free, said in terms of the settings that change them."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable

import psutil

from include.errors import ServiceError, SpecError
from include.stack.components import Component


def check_ports(components: Iterable[Component]) -> None:
    """Make sure that every port is free and none is given twice.

    Args:
        components: Those about to be started.

    Raises:
        SpecError: Two components are to listen on one port, or the address cannot be bound at all.
        ServiceError: A port is taken; names the setting that changes it.
    """
    seen: dict[int, str] = {}
    for component in components:
        if component.port is None or component.host is None:
            continue
        if component.port in seen:
            raise SpecError(
                component.setting,
                f"must differ from {seen[component.port]}, got {component.port} for both",
                "Choose another port for one of them.",
            )
        seen[component.port] = component.setting
        _check(component, component.host, component.port)


def _check(component: Component, host: str, port: int) -> None:
    with socket.socket() as probe:
        # As the servers do: connections of a stack that just ended are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                raise ServiceError(
                    f"Port {port} ({component.title})",
                    f"must be free on {host}, got one in use by {_holder(port)}",
                    f"Stop that program, or set {component.setting} to another port.",
                ) from error
            raise SpecError(
                component.setting,
                f"must be a port this user can listen on at {host}, got {port} ({error})",
                "Choose one between 1024 and 65535, and an address of this machine for EVERGREEN_HOST.",
            ) from error


def _holder(port: int) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another program"
