"""The connection to one MLflow server: its client, its errors, its secrets.

Owns the rule that nothing here reads or writes the environment, that a dead server is noticed within seconds
(MLflow's own client retries for minutes), and that a password in the URI never gets into a message.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from include.errors import ServiceError

MISSING = "RESOURCE_DOES_NOT_EXIST"
EXISTS = "RESOURCE_ALREADY_EXISTS"
_TIMEOUT = httpx.Timeout(8.0, connect=3.0)
_FRESH_SECONDS = (
    1.0  # shorter than any poll: a dead server never reaches MLflow's own minutes of retries
)
_USERINFO = re.compile(r"(?<=//)[^/@\s]+@")


class Connection:
    """One MLflow server, spoken to through an explicit client.

    Args:
        tracking_uri: Base URL of the server; may hold `user:password@` (percent-encoded), which MLflow's
            client then sends with every call, artifacts included.

    Raises:
        ServiceError: The URI is not an http(s) URL.
    """

    def __init__(self, tracking_uri: str) -> None:
        parts = urlsplit(tracking_uri.rstrip("/"))
        self._secrets = tuple(
            secret for raw in (parts.password,) if raw for secret in (raw, unquote(raw))
        )
        host = parts.netloc.rpartition("@")[2]
        self.url = urlunsplit((parts.scheme, host, parts.path, "", ""))
        if parts.scheme not in ("http", "https") or not host:
            raise ServiceError(
                "MLflow",
                f"must be reached over an http(s) URL, got {self.mask(self.url)!r}",
                "Set EVERGREEN_MLFLOW_URL or the connection's host to the MLflow server's base URL.",
            )
        self._uri = tracking_uri.rstrip("/")
        self._login = (
            (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        )
        self._client: MlflowClient | None = None
        self._answered: float | None = None

    def mask(self, text: str) -> str:
        """Return `text` without the password and without any URL's user information."""
        for secret in self._secrets:
            if len(secret) > 2:
                text = text.replace(secret, "***")
        return _USERINFO.sub("***@", text)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @property
    def client(self) -> MlflowClient:
        """MLflow's client, after a look whether the server answers unless it did just now.

        Raises:
            ServiceError: It does not, or it refuses us.
        """
        if self._answered is None or time.monotonic() - self._answered > _FRESH_SECONDS:
            self.ping()
        if self._client is None:
            self._client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        return self._client

    def ping(self) -> None:
        """Ask the real API for one experiment: `/health` answers even where the API refuses.

        Raises:
            ServiceError: The server is away, slow beyond 8 seconds, or refuses us.
        """
        self._call("GET", "experiments/search", params={"max_results": 1})

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Call one endpoint of MLflow's public REST API, once, with a short timeout."""
        endpoint = f"{self.url}/api/2.0/mlflow/{path}"
        try:
            response = httpx.request(
                method, endpoint, auth=self._login, timeout=_TIMEOUT, **options
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._answered = None
            found = str(error) or type(error).__name__
            raise self.failure(f"must answer, got {found}", _START) from None
        if response.is_error:
            self._answered = None
            raise self.failure(
                f"must answer, got HTTP {response.status_code}: {response.text[:300]}",
                _ADVICE.get(response.status_code, _LOGS),
            )
        self._answered = time.monotonic()
        return response

    def failure(self, rule: str, fix: str) -> ServiceError:
        """Return the error of this server, free of secrets."""
        return ServiceError(f"MLflow at {self.url}", self.mask(rule).rstrip("."), fix)

    @contextmanager
    def calls(self, doing: str) -> Iterator[None]:
        """Turn what MLflow's client raises into ours.

        The original error is not chained: MLflow writes the whole URI, password included, into it.

        Args:
            doing: What was being done, as in "register churn".
        """
        try:
            yield
        except MlflowException as error:
            failure = self.failure(f"must {doing}, got {_text(error)}", _LOGS)
        except OSError as error:
            if not type(error).__module__.startswith(("requests", "urllib3")):
                raise  # this machine's disk, not the server
            failure = self.failure(f"must {doing}, got {error}", _LOGS)
        else:
            return
        self._answered = None
        raise failure from None


_START = "Start it (`./evergreen up`), or correct its URL."
_LOGS = "Look into MLflow's log; try again once it is well."
_ADVICE = {
    401: "Put the right user:password@ into MLflow's URL or connection.",
    403: "Give this user access, and start MLflow with --allowed-hosts naming the host in its URL.",
    404: "Check that the URL is the MLflow server's base URL.",
}


def _text(error: MlflowException) -> str:
    return " ".join(str(error).split())[:500]


def is_missing(error: MlflowException) -> bool:
    """Return whether MLflow says that a thing does not exist (an alias is said in words only)."""
    if error.error_code == MISSING:
        return True
    return error.error_code == "INVALID_PARAMETER_VALUE" and "not found" in str(error)
