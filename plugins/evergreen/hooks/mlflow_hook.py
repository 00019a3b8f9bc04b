"""The Airflow connection `mlflow` and the one door to the model registry."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from airflow.sdk import BaseHook

from include.errors import EvergreenError, SpecError

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from include.registry.gateway import Registry

_FIX = "Set the host to MLflow's URL, such as http://127.0.0.1:5001."


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
        ui_url = _web_url(self.connection)
        return ui_url + url.removeprefix(self.registry.url) if ui_url else url

    def get_conn(self) -> Registry:
        """Return the registry gateway."""
        return self.registry

    def test_connection(self) -> tuple[bool, str]:
        """Answer the *Test* button of the connection form."""
        try:
            _web_url(self.connection)
            self.registry.ping()
        except EvergreenError as error:
            return False, str(error)
        return True, f"MLflow answers at {self.registry.url}."


def tracking_uri(connection: Connection) -> str:
    """Build the tracking URI of a connection, credentials included.

    The host may be a whole URL, or a name with `schema` (default http) and `port` beside it.

    Raises:
        SpecError: The connection has no host, or one that is not an HTTP address.
    """
    where, host = f"connection {connection.conn_id}", (connection.host or "").strip()
    if not host:
        raise SpecError(where, "must have a host, got none", "Set it to MLflow's URL.")
    parts, port = _address(
        where, host if "://" in host else f"{connection.schema or 'http'}://{host}"
    )
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = port or connection.port
    place = f"{name}:{port}" if port else f"{name}"
    if connection.login:
        user = quote(connection.login, safe="")
        place = f"{user}:{quote(connection.password or '', safe='')}@{place}"
    return urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", ""))


def _address(where: str, url: str) -> tuple[SplitResult, int | None]:
    """Take an http(s) URL apart; it must hold no credentials, which would stand in it for all to see."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SpecError(where, f"must name an http or https URL, got {error}", _FIX) from None
    if "@" in parts.netloc:
        raise SpecError(
            where,
            "must have no credentials in a URL, got some",
            "Use the fields User and Password.",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SpecError(where, f"must name an http or https URL, got {url!r}", _FIX)
    return parts, port


def _web_url(connection: Connection) -> str | None:
    ui_url = str(connection.extra_dejson.get("ui_url") or "").strip().rstrip("/")
    if not ui_url:
        return None
    _address(f"connection {connection.conn_id}: ui_url", ui_url)
    return ui_url
