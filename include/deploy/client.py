"""A small client of the serving process: readiness, stored examples, predictions.

Owns the line between "serving is away, try again" (ServiceError) and an answer, whatever its status (Reply).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import orjson

from include.errors import ServiceError


@dataclass(frozen=True)
class Reply:
    """One answer of serving.

    Args:
        status: HTTP status.
        body: The parsed JSON object; `{"error": text}` where the answer was something else.
        ms: Milliseconds from the request to the whole answer.
    """

    status: int
    body: Mapping[str, Any]
    ms: float

    @property
    def ok(self) -> bool:
        """Whether the request was answered as asked."""
        return self.status == 200

    @property
    def said(self) -> str:
        """The answer in a few words, for a message."""
        reason = str(self.body.get("error", "no reason"))[:500].rstrip(".")
        return f"HTTP {self.status}: {reason}"


class ServingClient:
    """Speaks to one serving process; usable as a context manager.

    Args:
        base_url: Such as `http://127.0.0.1:8090`.
        key: API key to send; empty for none.
        timeout_seconds: For each request.
        transport: Another httpx transport, for tests; None for the network.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str = "",
        timeout_seconds: float = 10.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.base_url,
            headers=key_header(key),
            timeout=timeout_seconds,
            transport=transport,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def server_ready(self) -> Reply:
        """Ask whether the process has loaded its models."""
        return self._call("GET", "/v2/health/ready")

    def metadata(self, model: str, version: str | None = None) -> Reply:
        """Ask for inputs, outputs and state of a model."""
        return self._call("GET", _path(model, version))

    def ready(self, model: str, version: str | None = None) -> Reply:
        """Ask whether a model (None: its champion) answers; the body says what keeps it from it."""
        return self._call("GET", f"{_path(model, version)}/ready")

    def example(self, model: str, version: str | None = None) -> Reply:
        """Ask for the stored input example, as a ready-made body for `infer`."""
        return self._call("GET", f"{_path(model, version)}/example")

    def infer(
        self, model: str, body: Mapping[str, Any], version: str | None = None, *, log: bool = True
    ) -> Reply:
        """Predict.

        Args:
            model: Its name.
            body: An infer request of the Open Inference Protocol.
            version: The version to ask; None for the champion.
            log: Whether this is live traffic; a probe is none, and stays out of the prediction log.

        Raises:
            ServiceError: Serving cannot be reached (this goes for every method).
        """
        headers = {"Content-Type": "application/json"} | ({} if log else {"x-evergreen-log": "off"})
        return self._call("POST", f"{_path(model, version)}/infer", orjson.dumps(body), headers)

    def _call(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        started = time.perf_counter()
        try:
            answer = self._http.request(method, path, content=content, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServiceError(
                f"serving at {self.base_url}",
                f"must answer, got {type(error).__name__}: {error}",
                "Start it (`./evergreen up`), or correct EVERGREEN_SERVING_URL.",
            ) from error
        ms = (time.perf_counter() - started) * 1000
        try:
            body = orjson.loads(answer.content)
        except orjson.JSONDecodeError:
            body = None
        if not isinstance(body, dict):
            body = {"error": f"no JSON object but {answer.text[:200]!r}"}
        return Reply(answer.status_code, body, ms)


def key_header(key: str) -> dict[str, str]:
    """Return the header that carries an API key; none for an empty one."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def _path(model: str, version: str | None) -> str:
    base = f"/v2/models/{quote(model, safe='')}"
    return base if version is None else f"{base}/versions/{quote(version, safe='')}"
