"""The documentation that serving carries with it: `/openapi.json`, and the page at `/docs` that shows it.

Owns that the page loads nothing from elsewhere: its scripts come from this process, and a policy forbids others.
Everything here is made when it is first asked for.
"""

from __future__ import annotations

from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from fastapi import Request, Response
from starlette.exceptions import HTTPException

from include.serving.access import Access
from include.serving.engine import Engine
from include.serving.guard import caller_of
from include.serving.lookup import Lookup
from include.serving.replies import dump
from include.serving.served import Served

_OURS = {"docs.css": "text/css", "docs.js": "text/javascript"}
_BUNDLED = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
_KEPT = 8  # documents: one per scope of keys and set of versions
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Docs:
    """The endpoints.

    Args:
        lookup: Finds the models.
        access: Who may ask; None: everybody.
    """

    def __init__(self, lookup: Lookup, access: Access | None) -> None:
        self._lookup, self._access = lookup, access
        self._documents: dict[object, bytes] = {}

    async def openapi(self, request: Request) -> Response:
        """Return the OpenAPI document of the models the caller may ask; `?model=NAME` for one of them."""
        from include.serving.openapi import MOST_MODELS, build_document

        caller, name = caller_of(request.scope), request.query_params.get("model")
        if name:
            caller.check(name)
            models = [await self._lookup.loaded(name, caller)]
        else:
            table = self._lookup.follower.table
            models = [served for served in table.values() if caller.sees(served.name)]
        answering = [(served, served.engines[0]) for served in models if served.engines]
        shown = answering[:MOST_MODELS]
        keys = self._access is not None and not self._access.open
        left_out = len(models) - len(shown)
        wanted = (tuple(map(_state, shown)), left_out, keys)
        document = self._documents.get(wanted)
        if document is None:
            document = dump(build_document(shown, keys=keys, left_out=left_out))
            while len(self._documents) >= _KEPT:
                del self._documents[next(iter(self._documents))]
            self._documents[wanted] = document
        return Response(document, media_type="application/json")

    async def page(self, _: Request) -> Response:
        """Return the page; it says nothing about models and needs no key."""
        return Response(_page("docs.html"), media_type="text/html", headers=_HEADERS)

    async def asset(self, request: Request) -> Response:
        """Return a script, a style sheet or the icon of the page."""
        name = request.path_params["file"]
        headers = {**_HEADERS, "Cache-Control": "max-age=3600"}
        if name in _OURS:
            return Response(_page(name), media_type=_OURS[name], headers=headers)
        folder = _swagger_folder()
        if name not in _BUNDLED or folder is None:
            raise HTTPException(404)
        return Response((folder / name).read_bytes(), media_type=_BUNDLED[name], headers=headers)


def _state(shown: tuple[Served, Engine]) -> tuple[str, tuple[str, ...]]:
    served, _ = shown
    return served.name, tuple(engine.version for engine in served.engines)


def _page(name: str) -> bytes:
    return resources.files("include.serving").joinpath("page", name).read_bytes()


def _swagger_folder() -> Path | None:
    if find_spec("swagger_ui_bundle") is None:
        return None
    from swagger_ui_bundle import swagger_ui_path

    return Path(swagger_ui_path)
