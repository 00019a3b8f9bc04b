"""Migrations with stand-ins for `python -m airflow` and `python -m mlflow`; tests/e2e runs the real ones."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from include.errors import ServiceError
from include.settings import ROOT
from include.stack.databases import airflow_database, migrate, mlflow_database
from include.stack.layout import Layout

MIGRATION = """
import os, sqlite3, sys, time
url = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].removeprefix("sqlite:///")
assert {module!r} == "airflow" or sys.argv[1:] == ["db", "upgrade", "sqlite:///" + url], sys.argv
database = sqlite3.connect(url)
database.execute("create table if not exists runs (n)")
database.execute("insert into runs values (1)")
database.commit()
open(os.environ["STARTED"], "w").close()
time.sleep(float(os.environ.get("LASTS", 0)))
sys.exit(int(os.environ.get("STATUS", 0)))
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    for module in ("airflow", "mlflow"):
        (tmp_path / "fake" / module).mkdir(parents=True)
        code = MIGRATION.format(module=module)
        (tmp_path / "fake" / module / "__main__.py").write_text(code)
        (tmp_path / "fake" / module / "__init__.py").write_text("")
    return {
        **os.environ,
        "PYTHONPATH": str(tmp_path / "fake"),
        "STARTED": str(tmp_path / "started"),
    }


def _runs(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return int(database.execute("select count(*) from runs").fetchone()[0])


def test_created_once_and_left_alone(layout: Layout, environment: dict[str, str]) -> None:
    both = [airflow_database(layout.airflow), mlflow_database(layout)]
    assert not any(database.current() for database in both)
    for _ in range(2):
        migrate(both, environment, layout)
    assert all(database.current() for database in both)
    assert [_runs(database.path) for database in both] == [1, 1]


def test_another_version_upgrades_and_keeps_the_rows(
    layout: Layout, environment: dict[str, str]
) -> None:
    database = mlflow_database(layout)
    migrate([database], environment, layout)
    database.stamp.write_text("0.0.1")
    # Rows that a killed server left in the write-ahead log.
    code = (
        f"import sqlite3, os; d = sqlite3.connect({str(database.path)!r}); "
        "d.execute('pragma journal_mode=wal'); d.execute('insert into runs values (7)'); "
        "d.commit(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    migrate([database], environment, layout)
    assert _runs(database.path) == 3


def test_a_failure_leaves_the_file_as_it_was(layout: Layout, environment: dict[str, str]) -> None:
    database = airflow_database(layout.airflow)
    migrate([database], environment, layout)
    database.stamp.write_text("0.0.1")
    with pytest.raises(ServiceError, match=r"got exit status 3\. See .*databases\.log"):
        migrate([database], {**environment, "STATUS": "3"}, layout)
    assert _runs(database.path) == 1
    assert not database.current()


def test_a_killed_migration_leaves_nothing_half_made(
    layout: Layout, environment: dict[str, str], tmp_path: Path
) -> None:
    code = (
        "import os; from pathlib import Path; from include.stack.layout import Layout; "
        "from include.stack.databases import *; "
        f"layout = Layout(Path({str(layout.home)!r})); "
        f"env = dict(os.environ, PYTHONPATH={environment['PYTHONPATH']!r}, LASTS='3'); "
        "migrate([airflow_database(layout.airflow)], env, layout)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**environment, "PYTHONPATH": str(ROOT)}
    )
    deadline = time.monotonic() + 20
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    database = airflow_database(layout.airflow)
    assert not database.path.exists()
    migrate([database], environment, layout)
    assert _runs(database.path) == 1
    assert [p.name for p in layout.airflow.iterdir() if p.name.startswith(".airflow.db")] == []
