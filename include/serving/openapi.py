"""The OpenAPI 3.1 document of serving, made from what is served now.

Owns the list of paths a caller may use. A model's own fields are written out, so that the page at `/docs` shows
them and a generated client or a fuzzer knows them.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote as percent

from include.serving import field_schemas as schemas
from include.serving.engine import Engine
from include.serving.served import Served

Json = dict[str, Any]
#: Models written out in one document; any other one has a document of its own at `?model=NAME`.
MOST_MODELS = 50
_DESCRIPTION = """Predictions of the models this process serves.

`POST /predict/MODEL` takes named fields and is made for people; the Open Inference Protocol v2 and MLflow's
`/invocations` are made for programs. An error is `{"error": "where: rule, got what. What to do."}`. Every answer to a
prediction has a header `x-request-id`, by which labels refer to it.
"""
_ERRORS = {
    400: "The request is wrong; the error names the field and says what to do.",
    401: "No API key, or not a valid one.",
    403: "The API key is not for this model.",
    404: "No such model or version is served.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not in a media type this path takes.",
    422: "The model has no answer for these values.",
    429: "Too much waits to be answered. Wait as `Retry-After` says.",
    503: "Not able to answer now. Wait as `Retry-After` says.",
    504: "The answer took too long.",
}
_ID = {
    "name": "x-request-id",
    "in": "header",
    "schema": {"type": "string", "maxLength": 256},
    "description": "What you call this request; labels refer to it. Left out, it gets one.",
}
_OPEN: Json = {"security": []}


def build_document(
    served: Sequence[tuple[Served, Engine]], *, keys: bool, left_out: int = 0
) -> Json:
    """Return the document.

    Args:
        served: The models to write out, each with the version whose fields count.
        keys: Whether callers need an API key.
        left_out: How many more models there are.
    """
    components: Json = {"Error": _ERROR, "Ready": _READY, "Metadata": _METADATA}
    paths: Json = {}
    for (model, engine), base in zip(served, _bases(m.name for m, _ in served), strict=True):
        paths |= _model_paths(model, engine, base, components, keys)
    paths |= _server_paths(keys)
    said = _DESCRIPTION
    if left_out:
        said += f"\n{left_out} more models are served: see `/v2/models`, then `/openapi.json?model=NAME`.\n"
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": "Evergreen serving", "version": "1", "description": said},
        "tags": [*({"name": model.name} for model, _ in served), {"name": "server"}],
        "paths": paths,
        "components": {"schemas": components},
    }
    if keys:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
        }
        document["security"] = [{"bearer": []}, {"header": []}]
    return document


_ERROR: Json = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
    "additionalProperties": False,
}
_READY: Json = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "ready": {"type": "boolean"}},
    "required": ["ready"],
}
_METADATA: Json = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "versions": {"type": "array", "items": {"type": "string"}},
        "platform": {"type": "string"},
        "inputs": {"type": "array", "items": {"type": "object"}},
        "outputs": {"type": "array", "items": {"type": "object"}},
        "parameters": {"type": "object"},
    },
    "required": ["name", "versions", "platform", "inputs", "outputs"],
}


def _server_paths(keys: bool) -> Json:
    live: Json = {"type": "object", "required": ["live", "ready"]}
    server: Json = {"type": "object", "required": ["name", "version", "extensions"]}
    listing: Json = {"type": "object", "required": ["models"]}
    errors = (401,) if keys else ()

    def get(id: str, summary: str, schema: Json, *codes: int) -> Json:
        return {"get": _operation("server", id, summary, schema, codes)}

    starting = {"content": _json(live), "description": "Not ready yet."}
    ready = get("server_ready", "Whether it has loaded its models", live)
    ready["get"]["responses"]["503"] = starting
    metrics: Json = {"get": _operation("server", "metrics", "Metrics for Prometheus", {}, errors)}
    metrics["get"]["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    if keys:
        metrics["get"]["responses"]["403"] = _error(403)
    live_path = get("server_live", "Whether the process answers", live)
    live_path["get"] |= _OPEN
    ready["get"] |= _OPEN
    return {
        "/v2": get("server_metadata", "Server metadata", server, *errors),
        "/v2/health/live": live_path,
        "/v2/health/ready": ready,
        "/v2/models": get("models", "The models and their versions", listing, *errors),
        "/metrics": metrics,
    }


def _model_paths(
    model: Served, engine: Engine, base: str, components: Json, keys: bool
) -> dict[str, Json]:
    components |= {
        f"{base}.row": schemas.row(engine),
        f"{base}.infer": schemas.infer_request(engine),
        f"{base}.outputs": schemas.infer_answer(engine),
        f"{base}.prediction": _predicted(engine),
    }
    access = (401, 403) if keys else ()
    refusals = (400, *access, 404, 408, 413, 415, 422, 429, 503, 504)
    tag = model.name

    def post(id: str, summary: str, body: Json, answer: Json, codes: Iterable[int]) -> Json:
        operation = _operation(tag, f"{id}_{base}", summary, answer, codes)
        operation["requestBody"] = {"required": True, "content": _json(body)}
        return operation

    def predict(id: str, summary: str, body: Json, answer: Json) -> Json:
        operation = post(id, summary, body, answer, refusals)
        operation["parameters"] = [_ID]
        operation["responses"]["200"]["headers"] = {
            "x-request-id": {"schema": {"type": "string"}, "required": True}
        }
        return operation

    one = _ref(f"{base}.row")
    body: Json = {"anyOf": [one, _object({"rows": _array(one)}, strict=True)]}
    body["examples"] = [schemas.example_row(engine)]
    accepted = _object({"accepted": {"type": "integer"}})
    labels = post(
        "labels",
        "Tell the truth about earlier predictions",
        schemas.labels(engine),
        accepted,
        (400, *access, 404, 413, 415, 429, 503),
    )
    predictions = _object({"predictions": {"type": "array"}})
    invoke = predict("invoke", "Predict, MLflow's way", schemas.invocation(engine), predictions)
    text_csv: Json = {"text/csv": {"schema": {"type": "string"}, "example": _csv(engine)}}
    invoke["requestBody"]["content"] |= text_csv
    name = percent(model.name, safe="")
    paths: dict[str, Json] = {
        f"/predict/{name}": {
            "post": predict(
                "predict", "Predict from named fields", body, _ref(f"{base}.prediction")
            )
        },
        f"/models/{name}/invocations": {"post": invoke},
        f"/v2/models/{name}/labels": {"post": labels},
    }
    versions = [each.version for each in model.engines]
    version: Json = {
        "name": "version",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": versions},
    }
    whole, part = f"/v2/models/{name}", f"/v2/models/{name}/versions/{{version}}"
    for at, suffix in ((whole, ""), (part, "_version")):
        common: Json = {"parameters": [version]} if suffix else {}
        infer = predict(
            f"infer{suffix}",
            "Predict, Open Inference Protocol v2",
            _ref(f"{base}.infer"),
            _ref(f"{base}.outputs"),
        )
        paths[f"{at}/infer"] = {"post": infer, **common}
        answers = (
            ("", f"metadata{suffix}", "Inputs, outputs and state", _ref("Metadata")),
            ("/ready", f"ready{suffix}", "Whether it answers", _ref("Ready")),
            ("/example", f"example{suffix}", "A ready-made infer request", _ref(f"{base}.infer")),
        )
        for end, id, summary, schema in answers:
            get = _operation(tag, f"{id}_{base}", summary, schema, (*access, 404, 503))
            if end == "/ready":
                either = _json({"anyOf": [_ref("Ready"), _ref("Error")]})
                get["responses"]["404"]["content"] = get["responses"]["503"]["content"] = either
            paths[f"{at}{end}"] = {"get": get, **common}
    return paths


def _predicted(engine: Engine) -> Json:
    said = schemas.prediction(engine)
    head = {name: {"type": "string"} for name in ("model", "version", "request_id")}
    one = _object(said | head)
    many = _object({"predictions": _array(_object(said))} | head)
    return {"anyOf": [one, many]}


def _operation(tag: str, id: str, summary: str, schema: Json, codes: Iterable[int]) -> Json:
    responses: Json = {"200": {"description": "The answer.", "content": _json(schema)}}
    responses |= {str(code): _error(code) for code in codes}
    return {"tags": [tag], "operationId": id, "summary": summary, "responses": responses}


def _error(code: int) -> Json:
    return {"description": _ERRORS[code], "content": _json(_ref("Error"))}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _array(items: Json) -> Json:
    return {"type": "array", "minItems": 1, "items": items}


def _object(properties: Json, *, strict: bool = False) -> Json:
    made: Json = {"type": "object", "properties": properties, "required": list(properties)}
    return made | {"additionalProperties": False} if strict else made


def _csv(engine: Engine) -> str:
    row, text = schemas.example_row(engine), io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([row.keys(), row.values()])
    return text.getvalue()


def _bases(names: Iterable[str]) -> list[str]:
    """Return a name for each model that a component and an operation may have, all different."""
    made: dict[str, None] = {}
    for name in names:
        base = plain = re.sub(r"[^A-Za-z0-9_.-]", "-", name)
        number = 2
        while base in made:
            base, number = f"{plain}.{number}", number + 1
        made[base] = None
    return list(made)
