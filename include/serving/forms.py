"""The forms in which a prediction can be asked for, each with its own way to read a body and to write an answer.

Owns nothing of the protocols themselves: those are `tensors`, `frames` and `fields`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from include.serving.arms import Asked
from include.serving.bodies import CSV, JSON
from include.serving.engine import Engine, Prediction
from include.serving.fields import Fields, answer_fields, read_fields
from include.serving.frames import read_csv, read_invocation
from include.serving.identity import ID_HEADER, request_id
from include.serving.prepared import Prepared
from include.serving.replies import dump
from include.serving.tensors import InferRequest


@dataclass(frozen=True)
class Form:
    """One way to ask.

    Args:
        route: Its name in metrics.
        media: Media types a body may have.
        read: Checks and converts a body, given the version asked and the most rows.
        name: Returns the request's id, given the request and what a header says.
        write: Returns the answer's body, given the version that answers, the request, the prediction and the id.
    """

    route: str
    media: tuple[str, ...]
    read: Callable[[bytes, Prepared, int], Asked]
    name: Callable[[Asked, str | None], str]
    write: Callable[[Engine, Asked, Prediction, str], bytes]


def _read_infer(body: bytes, version: Prepared, max_rows: int) -> Asked:
    return version.compiled.read(body, max_rows=max_rows)


def _name_infer(asked: Asked, given: str | None) -> str:
    if given:  # refused where it is too long, though the body's goes first
        given = request_id(given, ID_HEADER)
    return request_id(cast(InferRequest, asked).id or given)


def _write_infer(engine: Engine, asked: Asked, prediction: Prediction, _: str) -> bytes:
    request = cast(InferRequest, asked)
    answer: dict[str, Any] = {"model_name": engine.model.name, "model_version": engine.version}
    if request.id is not None:
        answer["id"] = request.id
    answer["outputs"] = engine.tensors(prediction, request.outputs)
    return dump(answer)


def _read_invocation(body: bytes, version: Prepared, max_rows: int) -> Asked:
    return read_invocation(body, version.schema, max_rows=max_rows)


def _read_csv(body: bytes, version: Prepared, max_rows: int) -> Asked:
    return read_csv(body, version.schema, max_rows=max_rows)


def _name_by_header(_: Asked, given: str | None) -> str:
    return request_id(given, ID_HEADER)


def _write_labels(_: Engine, __: Asked, prediction: Prediction, ___: str) -> bytes:
    return dump({"predictions": prediction.predict})


def _read_fields(body: bytes, version: Prepared, max_rows: int) -> Asked:
    return read_fields(body, version.schema, max_rows=max_rows)


def _write_fields(engine: Engine, asked: Asked, prediction: Prediction, named: str) -> bytes:
    return dump(
        answer_fields(
            engine.model.name,
            engine.version,
            prediction,
            engine.classes,
            request_id=named,
            many=cast(Fields, asked).many,
        )
    )


INFER = Form("infer", JSON, _read_infer, _name_infer, _write_infer)
INVOCATION = Form("invocations", (*JSON, *CSV), _read_invocation, _name_by_header, _write_labels)
CSV_INVOCATION = Form("invocations", CSV, _read_csv, _name_by_header, _write_labels)
FIELDS = Form("predict", JSON, _read_fields, _name_by_header, _write_fields)
