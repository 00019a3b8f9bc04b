"""The Airflow connection `mlflow` and the one door to the model registry."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

from airflow.sdk import BaseHook

from include.errors import EvergreenError, SpecError

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from include.registry.gateway import Registry


class MlflowHook(BaseHook):
    """Opens the registry that a connection of type `mlflow` names.

    Nothing is written to the environment: address and credentials stay in the client.

    Args:
        mlflow_conn_id: Id of the Airflow connection.
    """

    conn_name_attr = "mlflow_conn_id"
    default_conn_name = "mlflow_default"
    conn_type = "mlflow"
    hook_name = "MLflow"

    def __init__(self, mlflow_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id

    @cached_property
    def connection(self) -> Connection:
        """The Airflow connection."""
        return self.get_connection(self.mlflow_conn_id)

    @cached_property
    def registry(self) -> Registry:
        """The registry gateway, bound to this connection's address and credentials."""
        from include.registry.gateway import Registry

        return Registry(tracking_uri(self.connection))

    def run_url(self, run_id: str) -> str:
        """Return the page of a run, at the address browsers use."""
        url = self.registry.run_url(run_id)
        ui_url = self.connection.extra_dejson.get("ui_url")
        return ui_url.rstrip("/") + url.removeprefix(self.registry.url) if ui_url else url

    def get_conn(self) -> Registry:
        """Return the registry gateway."""
        return self.registry

    def test_connection(self) -> tuple[bool, str]:
        """Answer the *Test* button of the connection form."""
        try:
            self.registry.ping()
        except EvergreenError as error:
            return False, str(error)
        return True, "MLflow answers."


def tracking_uri(connection: Connection) -> str:
    """Build the tracking URI of a connection, credentials included.

    The host may be a whole URL, or a name with `schema` (default http) and `port` beside it.

    Raises:
        SpecError: The connection has no host, or one that is not an HTTP address.
    """
    where = f"connection {connection.conn_id}"
    if not connection.host:
        raise SpecError(where, "must have a host, got none", "Set it to MLflow's URL.")
    whole = (
        connection.host
        if "://" in connection.host
        else f"{connection.schema or 'http'}://{connection.host}"
    )
    parts = urlsplit(whole)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SpecError(
            where, f"must name an http or https URL, got {connection.host!r}", "Correct the host."
        )
    port = parts.port or connection.port
    place = parts.hostname + (f":{port}" if port else "")
    if connection.login:
        user = quote(connection.login, safe="")
        place = f"{user}:{quote(connection.password or '', safe='')}@{place}"
    return urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", ""))
