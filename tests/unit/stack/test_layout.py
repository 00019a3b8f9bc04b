import os
import stat
import threading
from pathlib import Path

import pytest

from include.errors import ServiceError, SpecError
from include.stack.layout import Layout, get_layout, prepare, write_private


def test_everything_is_private(layout: Layout) -> None:
    folders = [layout.home, layout.run, layout.logs, layout.airflow]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o700] * 4


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="EVERGREEN_HOME: must be a folder this user owns"):
        prepare(get_layout(tmp_path / "file" / "home"))


@pytest.mark.parametrize("char", ["?", "#", "$", "%", ";", '"'])
def test_characters_that_urls_and_settings_cannot_carry_are_refused(
    tmp_path: Path, char: str
) -> None:
    with pytest.raises(SpecError, match="EVERGREEN_HOME: must be a path without"):
        get_layout(tmp_path / f"a{char}b")


def test_a_long_home_gets_a_short_private_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tmp_path / "r"
    short.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    layout = get_layout(tmp_path / ("x" * 120))
    prepare(layout)
    socket = layout.socket()
    assert socket.is_relative_to(short)
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert socket != get_layout(tmp_path / ("y" * 120)).socket()


def test_a_short_home_keeps_its_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    assert get_layout(Path("/srv/e")).socket() == Path("/srv/e/run/supervisor.sock")


def test_state_survives_and_a_damaged_one_counts_as_none(layout: Layout) -> None:
    assert layout.read_state() == {}
    layout.write_state({"ports": {"airflow_port": 1}})
    assert layout.read_state() == {"ports": {"airflow_port": 1}}
    layout.state.write_text("{")
    assert layout.read_state() == {}
    layout.state.write_text("[1]")
    assert layout.read_state() == {}


def test_private_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)
    with pytest.raises(TypeError):
        write_private(path, 3)  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["secret"]


def test_the_lock_lets_one_work_and_tells_the_other(layout: Layout) -> None:
    order: list[str] = []
    told = threading.Event()

    def second() -> None:
        with layout.lock(told.set):
            order.append("second")

    with layout.lock(lambda: order.append("told")):
        thread = threading.Thread(target=second)
        thread.start()
        assert told.wait(5)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def test_the_lock_of_a_dead_holder_is_free(layout: Layout) -> None:
    pid = os.fork()
    if pid == 0:
        with layout.lock(lambda: None):
            os._exit(0)  # as a kill would: no clean-up runs
    os.waitpid(pid, 0)
    with layout.lock(lambda: pytest.fail("still locked")):
        pass
