import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from include.errors import ServiceError
from include.settings import ROOT
from include.stack import leftovers, supervision
from include.stack.components import Component
from include.stack.layout import Layout
from include.stack.supervision import Supervisor, last_lines, render

SLEEP = Component("sleeper", (sys.executable, "-c", "import time; time.sleep(60)"), "Sleeps")
ODD = Component(
    "odd",
    (sys.executable, "-c", "print('100% of \"it\"; a\\'b'); import time; time.sleep(60)"),
    "Odd",
)
BROKEN = Component("broken", (sys.executable, "-c", "raise SystemExit('no such luck')"), "Breaks")
IDLE = Component("idle", ("/bin/sleep", "60"), "Not started at once")


def _until(ready: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


@pytest.fixture
def supervisor(layout: Layout) -> Iterator[Supervisor]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        leftovers.STACK_MARK: str(layout.home),
    }
    components = (SLEEP, ODD, BROKEN, IDLE)
    names = {"sleeper", "odd", "broken"}
    supervision.start(layout, layout.socket(), components, names, environment)
    supervisor = Supervisor(layout.socket())
    try:
        yield supervisor
    finally:
        if supervisor.state():
            supervisor.shutdown()
            supervision.wait_until_gone(supervisor, 15)
        leftovers.end_all(layout.home, grace=1)


def test_a_whole_life(layout: Layout, supervisor: Supervisor) -> None:
    assert stat.S_IMODE(layout.socket().stat().st_mode) == 0o600
    _until(lambda: supervisor.processes()["sleeper"].state == "RUNNING")
    assert supervisor.processes()["idle"].state == "STOPPED"
    assert supervisor.processes()["idle"].uptime is None

    # What dies is there again.
    first = supervisor.processes()["sleeper"].pid
    os.kill(first, signal.SIGKILL)
    _until(lambda: supervisor.processes()["sleeper"].pid not in {0, first})

    # Odd characters in a command arrive as they are.
    _until(lambda: last_lines(layout.log("odd")))
    assert last_lines(layout.log("odd")) == ['100% of "it"; a\'b']

    # What cannot start is tried again, and says why.
    assert supervisor.processes()["broken"].state in {"STARTING", "BACKOFF"}
    _until(lambda: "no such luck" in last_lines(layout.log("broken")))

    supervisor.start("idle")
    supervisor.start("idle")
    _until(lambda: supervisor.processes()["idle"].pid)
    supervisor.stop({"idle", "sleeper"})
    states = {name: p.state for name, p in supervisor.processes().items()}
    assert (states["idle"], states["sleeper"]) == ("STOPPED", "STOPPED")

    supervisor.shutdown()
    assert supervision.wait_until_gone(supervisor, 15)
    assert supervisor.state() is None
    with pytest.raises(ServiceError, match="supervisord: must answer"):
        supervisor.processes()


def test_a_second_supervisord_is_refused(layout: Layout, supervisor: Supervisor) -> None:
    with pytest.raises(ServiceError, match="supervisord: must start, got exit status"):
        supervision.start(layout, layout.socket(), (SLEEP,), (), dict(os.environ))
    assert supervisor.state() == "RUNNING"


def test_the_file_is_safe_to_show(layout: Layout) -> None:
    text = render(layout, layout.socket(), (SLEEP,), {"sleeper"})
    assert "EVERGREEN_COMPONENT" in text
    assert not any(word in text.lower() for word in ("password", "secret", "fernet"))


def test_last_lines(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "none") == []
    path = tmp_path / "log"
    path.write_bytes(b"x" * 30_000 + b"\n" + b"\n".join(b"%d" % n for n in range(50)) + b"\n\xff\n")
    assert last_lines(path, 3) == ["48", "49", "\N{REPLACEMENT CHARACTER}"]


def test_the_watcher_imports_nothing_big() -> None:
    code = (
        "import sys, include.stack.watch; "
        "print([m for m in ('pydantic', 'httpx', 'psutil', 'airflow') if m in sys.modules])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "[]"
