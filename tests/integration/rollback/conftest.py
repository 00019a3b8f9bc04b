"""The registry's own fixtures: a real MLflow, a model nobody else uses, a ledger."""

from tests.integration.registry.conftest import (  # noqa: F401
    fitted,
    ledger,
    mlflow_url,
    name,
    no_telemetry,
    package,
    registry,
    run_id,
    versions,
)
