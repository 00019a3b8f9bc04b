"""Creates and upgrades Airflow's and MLflow's SQLite files, in one step each.

Migrations are many statements and SQLite does not hold them in one transaction, so a killed one leaves
a file that neither version understands. They are therefore run on a copy, which replaces the file when
it is complete. Nobody writes meanwhile: the stack is down.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from include.errors import ServiceError
from include.stack.layout import Layout, write_private


@dataclass(frozen=True)
class Database:
    """A SQLite file and the package whose schema it holds.

    Args:
        package: Distribution whose version decides whether there is anything to do.
        path: The file.
        stamp: File that holds the version the schema was last brought to.
    """

    package: str
    path: Path
    stamp: Path

    def current(self) -> bool:
        """Whether file and installed package belong together already."""
        try:
            return self.path.exists() and self.stamp.read_text() == version(self.package)
        except OSError:
            return False


def airflow_database(airflow_home: Path) -> Database:
    """Return Airflow's database under its home."""
    return Database(
        "apache-airflow", airflow_home / "airflow.db", airflow_home / "airflow.db.version"
    )


def mlflow_database(layout: Layout) -> Database:
    """Return MLflow's database."""
    return Database("mlflow", layout.home / "mlflow.db", layout.home / "mlflow.db.version")


def _migrate(database: Database, environment: Mapping[str, str], log: Path) -> None:
    database.path.parent.mkdir(parents=True, exist_ok=True)
    for stale in database.path.parent.glob(f".{database.path.name}.*"):
        shutil.rmtree(stale, ignore_errors=True)  # of an attempt that was killed
    folder = Path(tempfile.mkdtemp(dir=database.path.parent, prefix=f".{database.path.name}."))
    try:
        copy = folder / database.path.name
        if database.path.exists():
            # Not a file copy: what a crash left in the journal must come along.
            with (
                contextlib.closing(sqlite3.connect(database.path)) as old,
                contextlib.closing(sqlite3.connect(copy)) as new,
            ):
                old.backup(new)
        url = f"sqlite:///{copy}"
        command = ["mlflow", "db", "upgrade", url]
        if database.package == "apache-airflow":
            command = ["airflow", "db", "migrate"]
        with log.open("ab") as output:
            finished = subprocess.run(
                [sys.executable, "-m", *command],
                env={**environment, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if finished.returncode:
            raise ServiceError(
                str(database.path),
                f"must be created or upgraded by `{' '.join(command[:3])}`, got exit status {finished.returncode}",
                f"See {log}; the file itself was left as it was.",
            )
        copy.replace(database.path)
        write_private(database.stamp, version(database.package))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def migrate(databases: list[Database], environment: Mapping[str, str], layout: Layout) -> None:
    """Bring databases to the installed versions' schema, side by side; does nothing where that is so already.

    Args:
        databases: What to create or upgrade; nothing may have them open.
        environment: Environment of the stack.
        layout: Paths of the stack.

    Raises:
        ServiceError: A migration failed; the file is as it was.
    """
    due = [database for database in databases if not database.current()]
    with ThreadPoolExecutor(max_workers=len(databases) or 1) as pool:
        log = layout.log("databases")
        for done in [pool.submit(_migrate, database, environment, log) for database in due]:
            done.result()
