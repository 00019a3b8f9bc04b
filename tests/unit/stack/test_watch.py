import os
import threading
from pathlib import Path

import pytest

from include.stack import watch


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "training.py").write_text("x = 1\n")
    os.utime(folder / "training.py", (1, 1))
    return folder


def test_touching_changes_no_content(dags: Path) -> None:
    assert watch.touch_loaders(dags) == []
    assert (dags / "training.py").read_text() == "x = 1\n"
    assert (dags / "training.py").stat().st_mtime > 1


@pytest.mark.parametrize("change", ["add", "edit", "remove", "misnamed"])
def test_every_change_of_a_spec_touches_the_loaders(
    tmp_path: Path, dags: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.02)
    models = tmp_path / "models"
    models.mkdir()
    (models / "old.yaml").write_text("a: 1")
    looked, stop = threading.Event(), threading.Event()
    stamps = watch.spec_stamps

    def first_look(folder: Path) -> dict[str, tuple[int, int]]:
        found = stamps(folder)
        looked.set()
        return found

    monkeypatch.setattr(watch, "spec_stamps", first_look)
    thread = threading.Thread(target=watch.watch, args=(models, dags, stop))
    thread.start()
    try:
        assert looked.wait(5)
        if change == "add":
            (models / "new.yaml").write_text("a: 1")
        elif change == "edit":
            (models / "old.yaml").write_text("a: 22")
        elif change == "remove":
            (models / "old.yaml").unlink()
        else:
            (models / "new.yml").write_text("a: 1")
        for _ in range(250):
            if (dags / "training.py").stat().st_mtime > 1:
                break
            stop.wait(0.02)
        assert (dags / "training.py").stat().st_mtime > 1
    finally:
        stop.set()
        thread.join(5)


def test_what_is_no_spec_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    assert watch.spec_stamps(tmp_path) == {}
    assert watch.spec_stamps(tmp_path / "missing") == {}
