"""Small models for tests: a spec that trains in seconds, and simulated data that always gives the same result."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from include.simulator.batches import write_batches

START = date(2026, 1, 1)
DAYS, ROWS = 40, 60


def small_spec(name: str, data: Path, **changes: Any) -> dict[str, Any]:
    """Return a spec of the simulated churn data: two candidates, two trials each.

    Args:
        name: Name of the model.
        data: Folder of its Parquet files.
        changes: Sections to merge into it, each a mapping; a value that is none replaces the section.
    """
    spec: dict[str, Any] = {
        "model": name,
        "task": "binary",
        "owner": "tests",
        "ingest": {
            "source": {"kind": "file", "path": str(data / "*.parquet")},
            "key": "customer_id",
            "time": "observed_at",
            "target": "churned",
            "drop": ["email"],
        },
        "validate": {"min_rows": 100},
        "train": {
            "candidates": [
                {
                    "estimator": "sklearn.linear_model.LogisticRegression",
                    "params": {"max_iter": 300},
                    "search": {"C": {"low": 0.01, "high": 10, "log": True}},
                },
                {
                    "estimator": "sklearn.tree.DecisionTreeClassifier",
                    "search": {"max_depth": {"low": 2, "high": 5}},
                },
            ],
            "tune": {"trials": 2, "timeout": "1m", "folds": 2},
        },
        # A second version of the same world is as good, not better: it shall still be promoted.
        "evaluate": {"primary": {"metric": "roc_auc", "promote": "not_worse", "margin": 0.1}},
    }
    for section, change in changes.items():
        merged = isinstance(change, Mapping) and isinstance(spec.get(section), dict)
        spec[section] = {**spec[section], **change} if merged else change
    return spec


def write_spec(models: Path, spec: Mapping[str, Any]) -> Path:
    """Write a spec to `models`, in one step so that nobody reads half of it; return its path."""
    models.mkdir(parents=True, exist_ok=True)
    path = models / f"{spec['model']}.yaml"
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(yaml.safe_dump(dict(spec), sort_keys=False))
    draft.replace(path)
    return path


def write_days(data: Path, *, first: int = 0, days: int = DAYS, rows: int = ROWS) -> list[Path]:
    """Write daily batches of the simulated world; day 0 is always the same day."""
    return write_batches(data, START + timedelta(days=first), days, rows=rows)


def example_columns(data: Path, rows: int = 3) -> dict[str, list[Any]]:
    """Return the first rows of the newest batch, column by column, without key, time, target and e-mail."""
    newest = sorted(data.glob("*.parquet"))[-1]
    table = pq.read_table(newest).slice(0, rows)
    table = table.drop_columns(["customer_id", "observed_at", "churned", "email"])
    found: dict[str, list[Any]] = table.to_pydict()
    return found
