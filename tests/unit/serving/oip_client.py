"""A client of the Open Inference Protocol v2, written from its text alone; it knows nothing of Evergreen.

It refuses whatever the protocol does not promise, so that a test with it tests the server against the text.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import httpx

DATATYPES = {
    "BOOL": bool,
    **dict.fromkeys(
        ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"), int
    ),
    **dict.fromkeys(("FP16", "FP32", "FP64"), (int, float)),
    "BYTES": str,
}


class ProtocolError(Exception):
    """The server did not do what the protocol says."""


@dataclass(frozen=True)
class Refused(Exception):  # noqa: N818  it is the server's answer, not a fault
    """An error status with the error object."""

    status: int
    error: str


@dataclass(frozen=True)
class Tensor:
    """One output."""

    datatype: str
    shape: tuple[int, ...]
    data: list[Any]


def need(held: bool, what: str) -> None:
    """Raise unless it holds."""
    if not held:
        raise ProtocolError(what)


class OipClient:
    """Speaks to one server."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def server(self) -> dict[str, Any]:
        body = self._get("/v2")
        need(isinstance(body.get("name"), str), "server: name")
        need(isinstance(body.get("version"), str), "server: version")
        need(all(isinstance(e, str) for e in body["extensions"]), "server: extensions")
        return body

    def live(self) -> bool:
        return self._flag("/v2/health/live", "live")

    def server_ready(self) -> bool:
        self._flag("/v2/health/ready", "live")
        return self._http.get("/v2/health/ready").status_code == 200

    def model_ready(self, model: str, version: str | None = None) -> bool:
        answer = self._http.get(f"{_path(model, version)}/ready")
        body = answer.json()
        if "name" not in body:
            raise Refused(answer.status_code, body["error"])
        need(body["name"] == model, "ready: name")
        need(isinstance(body["ready"], bool), "ready: ready")
        need(body["ready"] == (answer.status_code == 200), "ready: status and body agree")
        return bool(body["ready"])

    def metadata(self, model: str, version: str | None = None) -> dict[str, Any]:
        body = self._get(_path(model, version))
        need(body["name"] == model, "metadata: name")
        need(all(isinstance(v, str) for v in body.get("versions", [])), "metadata: versions")
        need(isinstance(body["platform"], str), "metadata: platform")
        for each in (*body["inputs"], *body["outputs"]):
            need(isinstance(each["name"], str), "tensor metadata: name")
            need(each["datatype"] in DATATYPES, "tensor metadata: datatype")
            need(all(type(d) is int and d >= -1 for d in each["shape"]), "tensor metadata: shape")
        return body

    def infer(
        self,
        model: str,
        inputs: list[dict[str, Any]],
        version: str | None = None,
        **more: Any,
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the answer and its outputs by name."""
        answer = self._http.post(f"{_path(model, version)}/infer", json={"inputs": inputs, **more})
        body = self._body(answer)
        need(body["model_name"] == model, "infer: model_name")
        need(version in (None, body.get("model_version")), "infer: model_version")
        need(body.get("id") == more.get("id"), "infer: id is returned")
        allowed = {"model_name", "model_version", "id", "parameters", "outputs"}
        need(body.keys() <= allowed, f"infer: {body.keys() - allowed}")
        made = {output["name"]: self._tensor(output) for output in body["outputs"]}
        if more.get("outputs"):
            asked = [output["name"] for output in more["outputs"]]
            need(list(made) == asked, "infer: the outputs asked for")
        return body, made

    def _tensor(self, output: dict[str, Any]) -> Tensor:
        need(output.keys() <= {"name", "shape", "datatype", "parameters", "data"}, "output: fields")
        shape, data = tuple(output["shape"]), _flat(output["data"])
        need(len(data) == math.prod(shape), "output: as many values as the shape says")
        kind: Any = DATATYPES[output["datatype"]]
        need(all(isinstance(value, kind) for value in data), "output: values of the datatype")
        return Tensor(output["datatype"], shape, data)

    def _flag(self, path: str, name: str) -> bool:
        body = self._http.get(path).json()
        need(isinstance(body[name], bool), f"{path}: {name}")
        return bool(body[name])

    def _get(self, path: str) -> dict[str, Any]:
        return self._body(self._http.get(path))

    def _body(self, answer: httpx.Response) -> dict[str, Any]:
        need(answer.headers["content-type"].startswith("application/json"), "content type")
        body = answer.json()
        if answer.status_code != 200:
            need(list(body) == ["error"] and isinstance(body["error"], str), "error object")
            raise Refused(answer.status_code, body["error"])
        return dict(body)


def _path(model: str, version: str | None) -> str:
    return f"/v2/models/{model}" + (f"/versions/{version}" if version else "")


def _flat(data: Any) -> list[Any]:
    return [v for each in data for v in (_flat(each) if isinstance(each, list) else [each])]
