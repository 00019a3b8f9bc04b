"""DuckDB over Parquet files, in bounded memory: how every room opens it, and how files become a relation."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb


def connect(spill: str | Path, *, memory_mb: int = 1024) -> duckdb.DuckDBPyConnection:
    """Open a database in memory.

    Args:
        spill: Folder for what does not fit.
        memory_mb: Most memory it takes, in MiB; a quarter of the machine's where that is less, but at least 256.
    """
    machine_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    config: dict[str, Any] = {
        "threads": min(4, os.cpu_count() or 1),
        "memory_limit": f"{max(256, min(memory_mb, machine_mb // 4))}MB",
        "temp_directory": str(spill),
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,  # never reach for the network
        "autoload_known_extensions": False,
    }
    return duckdb.connect(":memory:", config=config)


def source(paths: Iterable[Path]) -> str:
    """Return files as a table function: names are no patterns, and a folder `x=7` is no column `x`."""
    files = ", ".join("'" + glob.escape(str(p)).replace("'", "''") + "'" for p in paths)
    return f"read_parquet([{files}], hive_partitioning = false)"
