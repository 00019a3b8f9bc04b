"""The HTTP face of serving: Open Inference Protocol v2, MLflow's invocations, health and metrics.

Owns the routes and the answers about models; requests for predictions are answered in front of it (`front`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route

from include.serving.access import Access
from include.serving.access_log import AccessLog
from include.serving.bodies import Bodies
from include.serving.docs import Docs
from include.serving.follower import Follower
from include.serving.front import Front
from include.serving.guard import Guard, caller_of
from include.serving.labels import Labels
from include.serving.limits import Limits
from include.serving.lookup import Lookup, not_answering
from include.serving.prediction_log import LogLimits, PredictionLog
from include.serving.predictions import Predictions
from include.serving.rejection import RequestError
from include.serving.replies import as_json, crashed, http_error, refused
from include.serving.telemetry import METRICS_TYPE, Metrics
from include.store.files import Store

SERVER = {"name": "evergreen", "version": "1", "extensions": []}


def create_app(
    follower: Follower,
    metrics: Metrics,
    *,
    limits: Limits | None = None,
    store: Store | None = None,
    log_limits: LogLimits | None = None,
    access: Access | None = None,
    access_log: AccessLog | None = None,
) -> Front:
    """Return the application; it starts and stops the follower and the log with its own lifespan.

    Args:
        follower: Keeps the models.
        metrics: The same object the follower counts in.
        limits: Request limits; None for the defaults.
        store: Where predictions are logged and labels kept; None: no log, and labels are refused.
        log_limits: How much the log may hold, and how long; None for the defaults.
        access: Who may ask; None: everybody.
        access_log: Where requests are noted; None for nowhere.
    """
    lookup = Lookup(follower)
    limits = limits or Limits()
    status = _Status(lookup, metrics, access)
    log = PredictionLog(store, metrics, log_limits) if store else None
    predictions = Predictions(metrics, limits, log)
    metrics.each_refresh(lambda: metrics.show_shares(_shares(follower)))
    labels = Labels(lookup, metrics, limits, store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        follower.start()
        for each in (access, log, access_log):
            if each:
                each.start()
        ticking = asyncio.create_task(_tick(metrics, front.bodies))
        yield
        ticking.cancel()
        if access:
            access.stop()
        # What hangs must not cost the log: each of these takes a few seconds at most, and all of them together less
        # than the parent waits after the drain (`workers`).
        await asyncio.to_thread(predictions.close)
        last = [labels.close, follower.stop, *(each.close for each in (log, access_log) if each)]
        await asyncio.gather(*map(asyncio.to_thread, last))

    # No generated docs: their page would load its scripts from a CDN, and the routes below are not FastAPI's own; ours
    # are in `docs`.
    app = FastAPI(title="Evergreen serving", openapi_url=None, lifespan=lifespan)
    if access:
        app.add_middleware(Guard, access=access, metrics=metrics)
    app.add_exception_handler(RequestError, refused)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, crashed)
    model, version = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
    get: dict[str, Callable[[Request], Any]] = {
        "/v2": status.server,
        "/v2/health/live": status.live,
        "/v2/health/ready": status.server_ready,
        "/v2/models": status.models,
        "/metrics": status.metrics_page,
        "/ping": status.server_ready,
        "/health": status.server_ready,
    }
    docs = Docs(lookup, access)
    get |= {"/openapi.json": docs.openapi, "/docs": docs.page, "/docs/{file}": docs.asset}
    for base in (model, version):
        get |= {
            base: status.metadata,
            f"{base}/ready": status.ready,
            f"{base}/example": status.example,
        }
    post = {f"{model}/labels": labels.post} | dict.fromkeys(
        (
            f"{model}/infer",
            f"{version}/infer",
            "/invocations",
            "/models/{name}/invocations",
            "/predict/{name}",
        ),
        _in_front,
    )
    # Plain routes: FastAPI's own would parse, validate and answer 422 in a form the protocol does not know.
    app.router.routes.extend(Route(path, call, methods=["GET"]) for path, call in get.items())
    app.router.routes.extend(Route(path, call, methods=["POST"]) for path, call in post.items())
    front = Front(app, lookup, predictions, access, access_log)
    labels.bodies = front.bodies  # one count of what bodies take
    return front


async def _in_front(_: Request) -> Response:
    """Stand for a path that `Front` answers: any method but POST is a 405 here."""
    raise HTTPException(404)


def _shares(follower: Follower) -> dict[tuple[str, str, str], float]:
    """Return the share of each rollout by model, version and mode."""
    rollouts = ((served.name, served.rollout) for served in follower.table.values())
    return {(name, of.version, of.mode): of.share for name, of in rollouts if of is not None}


async def _tick(metrics: Metrics, bodies: Bodies) -> None:
    while True:
        await asyncio.sleep(1.0)
        metrics.refresh()
        bodies.sweep()


class _Status:
    """The endpoints that tell what is there."""

    def __init__(self, lookup: Lookup, metrics: Metrics, access: Access | None) -> None:
        self._lookup, self._metrics, self._follower = lookup, metrics, lookup.follower
        self._access = access

    async def server(self, _: Request) -> Response:
        return as_json(SERVER)

    async def live(self, _: Request) -> Response:
        return as_json({"live": True, "ready": self._follower.ready})

    async def server_ready(self, _: Request) -> Response:
        known = self._access is None or self._access.known
        ready = self._follower.ready and known
        body: dict[str, Any] = {"live": True, "ready": ready}
        if not known:
            body["error"] = "serving: must know its API keys, got no ledger. Try again shortly."
        elif not ready:
            reason = self._follower.registry_error or "models are being loaded"
            body["error"] = f"serving: must load its models first, got {reason}. Try again shortly."
        return as_json(body, 200 if ready else 503)

    async def metrics_page(self, _: Request) -> Response:
        return Response(await self._metrics.page(), media_type=METRICS_TYPE)

    async def models(self, request: Request) -> Response:
        caller = caller_of(request.scope)
        seen = [served for served in self._follower.table.values() if caller.sees(served.name)]
        return as_json({"models": [self._lookup.state(served) for served in seen]})

    async def metadata(self, request: Request) -> Response:
        served = await self._lookup.loaded(request.path_params["name"], caller_of(request.scope))
        version = request.path_params.get("version")
        engine = served.engine(version) if version else next(iter(served.engines), None)
        if engine is None:
            raise not_answering(served, version)
        return as_json(
            {
                "name": served.name,
                "versions": [each.version for each in served.engines],
                "platform": engine.platform,
                "inputs": engine.input_metadata(),
                "outputs": engine.output_metadata(),
                "parameters": self._lookup.state(served)
                | {"version": engine.version, "task": engine.task, "engine": engine.kind}
                | {"key": engine.schema.key, "time": engine.schema.time},
            }
        )

    async def ready(self, request: Request) -> Response:
        served = await self._lookup.loaded(request.path_params["name"], caller_of(request.scope))
        version = request.path_params.get("version")
        engine = served.engine(version)
        body: dict[str, Any] = {"name": served.name, "ready": engine is not None}
        if version:
            body["version"] = version
        status = 200
        if engine is None:
            reason = not_answering(served, version)
            status, body["error"] = reason.status, str(reason)
        return as_json(body | self._lookup.state(served), status)

    async def example(self, request: Request) -> Response:
        engine = await self._lookup.engine(request)
        return as_json(engine.example_body())
