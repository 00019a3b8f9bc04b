"""What Airflow's provider manager reads: our connection type and its form.

Found through the `apache_airflow_provider` entry point in `pyproject.toml`.
"""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description in the form Airflow's JSON schema asks for."""
    text = {"type": ["string", "null"]}
    return {
        "package-name": "airflow-evergreen",
        "name": "Evergreen",
        "description": "MLflow connections, hooks and operators.",
        "connection-types": [
            {
                "connection-type": "mlflow",
                "hook-class-name": "evergreen.hooks.mlflow_hook.MlflowHook",
                "hook-name": "MLflow",
                "ui-field-behaviour": {
                    "hidden-fields": ["port", "schema"],
                    "relabeling": {"host": "Tracking URL", "login": "User"},
                    "placeholders": {
                        "host": "http://127.0.0.1:5001",
                        "login": "only where the server asks for one",
                    },
                },
                "conn-fields": {
                    "ui_url": {
                        "label": "Web URL",
                        "schema": text,
                        "description": "Where browsers reach MLflow, if not at the tracking URL.",
                    },
                },
            }
        ],
    }
