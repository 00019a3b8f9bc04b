"""The processes of the embedded stack: what each runs, where it listens, where that is set."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from include.settings import Settings
from include.stack.layout import Layout

#: MLflow has no login here, so it never listens beyond this machine, whatever EVERGREEN_HOST says.
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Component:
    """One supervised process.

    Args:
        name: Name in `status`, in log file names and in supervisord.
        command: Program and arguments.
        title: What a person reads.
        host: Address it listens on; None when it does not listen.
        port: Port it listens on; None when it does not listen.
        setting: Environment variable that changes the port; empty without a port.
    """

    name: str
    command: tuple[str, ...]
    title: str
    host: str | None = None
    port: int | None = None
    setting: str = ""

    @property
    def url(self) -> str:
        """Base URL of the component on this machine; empty when it does not listen."""
        if self.port is None:
            return ""
        host = LOOPBACK if self.host in {"0.0.0.0", "", None} else self.host  # noqa: S104 - compared, not bound
        return f"http://{host}:{self.port}"


def _python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *arguments)


def get_components(settings: Settings, layout: Layout) -> tuple[Component, ...]:
    """Return the components in the order they are started and shown."""
    host, mlflow_port = settings.host, settings.mlflow_port
    # Matching is exact, so each name is given with and without the port.
    hosts = [
        f"{name}{port}" for name in (LOOPBACK, "localhost") for port in ("", f":{mlflow_port}")
    ]
    return (
        Component(
            "mlflow",
            _python(
                *("mlflow", "server", "--host", LOOPBACK, "--port", str(mlflow_port)),
                *("--workers", "1", "--allowed-hosts", ",".join(hosts)),
                *("--uvicorn-opts", "--no-access-log"),
                *("--backend-store-uri", f"sqlite:///{layout.home / 'mlflow.db'}"),
                *("--artifacts-destination", str(layout.home / "mlflow-artifacts")),
            ),
            "MLflow",
            LOOPBACK,
            mlflow_port,
            "EVERGREEN_MLFLOW_PORT",
        ),
        Component(
            "api-server",
            _python(
                *("airflow", "api-server", "--host", host, "--port", str(settings.airflow_port)),
                *("--workers", "1"),
            ),
            "Airflow UI and REST API",
            host,
            settings.airflow_port,
            "EVERGREEN_AIRFLOW_PORT",
        ),
        # Without --skip-serve-logs these two serve log files on every interface.
        Component(
            "scheduler", _python("airflow", "scheduler", "--skip-serve-logs"), "Airflow scheduler"
        ),
        Component("dag-processor", _python("airflow", "dag-processor"), "Airflow Dag processor"),
        Component(
            "triggerer", _python("airflow", "triggerer", "--skip-serve-logs"), "Airflow triggerer"
        ),
        Component(
            "serving",
            _python("include.serving"),
            "Predictions",
            host,
            settings.serving_port,
            "EVERGREEN_SERVING_PORT",
        ),
        Component("watcher", _python("include.stack.watch"), "Watches specs for changes"),
    )
