"""The stack's life with small stand-ins for its components; the real ones are started in tests/e2e."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.errors import ServiceError
from include.settings import Settings
from include.stack import leftovers, lifecycle, status, supervision
from include.stack.components import Component
from include.stack.layout import Layout, get_layout
from include.stack.lifecycle import Reports, down, up
from include.stack.status import find_supervisor, get_status

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")
CRASH = (sys.executable, "-c", "raise SystemExit('the disk is full')")


@pytest.fixture
def components(monkeypatch: pytest.MonkeyPatch) -> list[Component]:
    monkeypatch.setattr(supervision, "START_SECONDS", 1)
    found = [Component("one", SLEEP, "One"), Component("two", SLEEP, "Two")]
    for module in (lifecycle, status):
        monkeypatch.setattr(module, "get_components", lambda _settings, _layout: tuple(found))
    return found


@pytest.fixture
def stack(settings: Settings, components: list[Component]) -> Iterator[Settings]:
    del components
    yield settings
    down(settings)
    assert leftovers.find(settings.home) == []


def _pids(settings: Settings) -> dict[str, int]:
    return {item.name: item.process.pid for item in get_status(settings).components}


def _supervisord(settings: Settings) -> int:
    return int((get_layout(settings.home).run / "supervisord.pid").read_text())


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_up_twice_and_down_twice(stack: Settings) -> None:
    assert get_status(stack).supervised is False
    first = up(stack)
    assert first.already is False
    assert get_status(stack).healthy
    pids = _pids(stack)
    again = up(stack)
    assert (again.already, again.credentials) == (True, first.credentials)
    assert _pids(stack) == pids
    assert down(stack) == 2
    assert down(stack) == 0
    assert get_status(stack).components[0].process.state == "STOPPED"


def test_two_ups_at_once_make_one_stack(stack: Settings) -> None:
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(up(stack).already)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == [False, True]


def test_what_a_killed_supervisor_left_is_ended(stack: Settings) -> None:
    up(stack)
    old = set(_pids(stack).values())
    _kill(_supervisord(stack))
    assert set(get_status(stack).leftovers) == old
    said: list[str] = []
    assert up(stack, Reports(say=said.append)).already is False
    assert "Ended 2 processes an earlier stack left behind." in said
    assert not old & set(_pids(stack).values())


def test_down_ends_what_a_killed_supervisor_left(stack: Settings) -> None:
    up(stack)
    _kill(_supervisord(stack))
    assert down(stack) == 2


def test_a_stale_pidfile_and_socket_do_not_matter(stack: Settings) -> None:
    layout = get_layout(stack.home)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(layout.socket()))
    (layout.run / "supervisord.pid").write_text(str(os.getpid()))
    layout.write_state({"socket": str(layout.socket()), "ports": {}})
    assert up(stack).already is False
    assert get_status(stack).healthy


def test_a_removed_state_file_does_not_double_the_stack(stack: Settings) -> None:
    up(stack)
    old = set(_pids(stack).values())
    get_layout(stack.home).state.unlink()
    up(stack)
    assert not old & set(_pids(stack).values())
    assert len(leftovers.find(stack.home)) == 3  # supervisord and its two


def test_what_cannot_start_is_said_with_its_last_words(
    stack: Settings, components: list[Component]
) -> None:
    components.append(Component("three", CRASH, "Three"))
    with pytest.raises(ServiceError, match="three: must stay up") as caught:
        up(stack)
    assert "the disk is full" in str(caught.value)
    assert leftovers.find(stack.home) == []  # nothing half-started is left


def test_silence_has_an_end(
    stack: Settings, components: list[Component], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status.probes, "check", lambda found, _p: {c.name: False for c in found})
    with pytest.raises(ServiceError, match="one, two: must answer within 1 s, got silence"):
        up(stack, timeout=1)
    assert len(components) == 2


def test_a_taken_port_stops_it_before_anything_starts(
    stack: Settings, components: list[Component]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        components.append(Component("web", SLEEP, "Web", "127.0.0.1", port, "EVERGREEN_WEB_PORT"))
        with pytest.raises(ServiceError, match=f"Port {port} .Web.: must be free"):
            up(stack)
    assert get_status(stack).supervised is False


def test_a_part_first_and_the_rest_later(stack: Settings) -> None:
    up(stack, only={"two"})
    pids = _pids(stack)
    assert (pids["one"], bool(pids["two"])) == (0, True)
    said: list[str] = []
    assert up(stack, Reports(say=said.append)).already is False
    assert said == ["Starting one."]
    assert _pids(stack)["two"] == pids["two"]
    assert get_status(stack).healthy


def test_the_ports_of_the_start_are_remembered(stack: Settings) -> None:
    up(stack.model_copy(update={"airflow_port": 9999}))
    assert status.running_settings(stack).airflow_port == 9999
    assert up(stack).settings.airflow_port == 9999
    down(stack)
    assert status.running_settings(stack).airflow_port == 8080


def test_two_stacks_do_not_see_each_other(
    stack: Settings, components: list[Component], tmp_path: Path
) -> None:
    del components
    other = Settings(home=tmp_path / "other")
    up(stack)
    up(other)
    try:
        assert down(stack) == 2
        assert get_status(other).healthy
    finally:
        down(other)


def test_a_down_that_was_killed_is_finished_by_up(stack: Settings, layout: Layout) -> None:
    up(stack)
    supervisor = find_supervisor(layout)
    assert supervisor is not None
    supervisor.shutdown()
    assert up(stack).already is False
    assert get_status(stack).healthy
