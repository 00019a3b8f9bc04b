"""Names of Dags, assets and runs, derived from a model's name in one place."""

from __future__ import annotations

import hashlib
import re

SEPARATOR = "__"


def training_dag_id(model: str) -> str:
    """Return the id of a model's training Dag."""
    return f"{model}{SEPARATOR}train"


def monitor_dag_id(model: str) -> str:
    """Return the id of the Dag that watches a model."""
    return f"{model}{SEPARATOR}monitor"


def score_dag_id(model: str) -> str:
    """Return the id of the Dag that scores batches of rows."""
    return f"{model}{SEPARATOR}score"


def monitor_experiment(model: str) -> str:
    """Return the MLflow experiment of the monitor's runs; no model can have a hyphen in its name."""
    return f"{model}-monitor"


def retrain_run_id(version: str, window: str, attempt: int = 1) -> str:
    """Return the id of a training run that the monitor starts.

    Args:
        version: The version that was judged.
        window: The window's key.
        attempt: Counts the runs of a window; a later one comes where the earlier one was refused or died.
    """
    first = f"retrain{SEPARATOR}{version}{SEPARATOR}{window}"
    return first if attempt == 1 else f"{first}{SEPARATOR}{attempt}"


def config_error_dag_id(stem: str) -> str:
    """Return the id of the Dag that shows a broken spec; any file stem gives a valid one."""
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', stem)}{SEPARATOR}config_error"


def data_asset_uri(model: str) -> str:
    """Return the URI of the asset that upstream jobs update when a model's data is new."""
    return f"x-evergreen://data/{model}"


def champion_asset_uri(model: str) -> str:
    """Return the URI of the asset that a promotion updates."""
    return f"x-evergreen://champion/{model}"


def scores_asset_uri(model: str) -> str:
    """Return the URI of the asset that a scored partition updates."""
    return f"x-evergreen://scores/{model}"


def fingerprint(snapshot_id: str, spec_hash: str, salt: str = "") -> str:
    """Return the identity of a training: the same data and spec give the same one; 16 hex digits.

    Args:
        snapshot_id: The data.
        spec_hash: The spec.
        salt: Tells a forced training from the one before it; empty for all others.
    """
    return hashlib.sha256(f"{snapshot_id}:{spec_hash}:{salt}".encode()).hexdigest()[:16]
