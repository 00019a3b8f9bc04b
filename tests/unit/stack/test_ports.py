import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from include.errors import ServiceError, SpecError
from include.stack.components import Component
from include.stack.ports import check_ports

COMPONENT = Component("web", ("true",), "The web", "127.0.0.1", 0, "EVERGREEN_WEB_PORT")


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_taken_port_names_its_holder_and_its_setting(taken: int) -> None:
    with pytest.raises(ServiceError, match=f"Port {taken} .The web.: must be free") as caught:
        check_ports([replace(COMPONENT, port=taken)])
    assert f"pid {os.getpid()}" in str(caught.value)
    assert "set EVERGREEN_WEB_PORT to another port" in str(caught.value)


def test_one_port_for_two_is_refused() -> None:
    other = replace(COMPONENT, setting="EVERGREEN_OTHER_PORT", port=4321)
    with pytest.raises(SpecError, match="must differ from EVERGREEN_OTHER_PORT, got 4321 for both"):
        check_ports([other, replace(COMPONENT, port=4321)])


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70_000), ("203.0.113.7", 4321)])
def test_what_cannot_be_bound_at_all_is_the_settings_fault(host: str, port: int) -> None:
    with pytest.raises(
        SpecError, match="EVERGREEN_WEB_PORT: must be a port this user can listen on"
    ):
        check_ports([replace(COMPONENT, host=host, port=port)])


def test_a_port_whose_connections_have_just_ended_is_free() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # this side waits in TIME_WAIT
        client.close()
    check_ports([replace(COMPONENT, port=port), replace(COMPONENT, port=None)])
