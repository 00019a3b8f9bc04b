"""JSON Schemas of what a served model takes and answers, for the OpenAPI document.

Owns the translation of a model's columns: what `columns` accepts is what is written here.
"""

from __future__ import annotations

from typing import Any

from include.serving.engine import Engine
from include.serving.fields import class_name

Json = dict[str, Any]
_CATEGORY = {
    "int": ["integer", "string", "null"],
    "float": ["number", "string", "null"],
    "bool": ["boolean", "string", "null"],
    "string": ["string", "null"],
}
_ANY_CATEGORY = ["number", "boolean", "string", "null"]
_LABEL = {"FP64": "number", "INT64": "integer", "BOOL": "boolean", "BYTES": "string"}
_KEY: Json = {
    "type": ["string", "number", "boolean", "null"],
    "description": "Who the row is about. Logged, no input of the model.",
}
_TIME: Json = {
    "type": ["string", "number", "null"],
    "description": "When: ISO text, or seconds since 1970. Logged, no input of the model.",
}
_DATATYPES = "BOOL BYTES FP16 FP32 FP64 INT8 INT16 INT32 INT64 UINT8 UINT16 UINT32 UINT64"


def feature(engine: Engine, name: str) -> Json:
    """Return the schema of one value of a feature."""
    kind = engine.schema.types.get(name, "")
    if name in engine.schema.numeric:
        return {"type": ["number", "boolean", "null"], "description": f"{kind or 'number'} feature"}
    return {
        "type": _CATEGORY.get(kind, _ANY_CATEGORY),
        "description": f"category ({kind or 'of any kind'})",
    }


def row(engine: Engine) -> Json:
    """Return the schema of one row of named fields."""
    schema = engine.schema
    fields = {name: feature(engine, name) for name in schema.names}
    beside = {name: (_KEY if name == schema.key else _TIME) for name in sorted(schema.beside)}
    return {
        "type": "object",
        "description": "Every feature by name, null where its value is missing.",
        "properties": fields | beside,
        "required": list(schema.names),
        "additionalProperties": False,
        "examples": [example_row(engine)],
    }


def example_row(engine: Engine) -> Json:
    """Return the first row of the stored input example."""
    return {name: next(iter(engine.model.example[name])) for name in engine.schema.names}


def prediction(engine: Engine) -> Json:
    """Return the schema of what is said about one row of named fields."""
    said: Json = {"prediction": {"type": _LABEL[engine.label_datatype]}}
    if engine.label_datatype == "BYTES":
        del said["prediction"]["type"]  # a class of a mixed target is answered as it is
    if engine.has_probability:
        names = [class_name(each) for each in engine.classes]
        each: Json = {"type": "number", "minimum": 0, "maximum": 1}
        said["probability"] = {
            "type": "object",
            "properties": dict.fromkeys(names, each),
            "required": names,
        }
    return said


def tensor(names: list[str]) -> Json:
    """Return the schema of one input or output tensor of the Open Inference Protocol."""
    return {
        "type": "object",
        "properties": {
            "name": {"type": "string", "enum": names},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": {"type": "string", "enum": _DATATYPES.split()},
            "parameters": {"type": ["object", "null"]},
            "data": {"type": "array", "description": "Flat, or nested as the shape is."},
        },
        "required": ["name", "shape", "datatype", "data"],
    }


def infer_request(engine: Engine) -> Json:
    """Return the schema of an infer request."""
    schema = engine.schema
    outputs: Json = {
        "type": "object",
        "properties": {"name": {"type": "string", "enum": list(engine.outputs)}},
        "required": ["name"],
    }
    return {
        "type": "object",
        "properties": {
            "id": {"type": ["string", "null"], "maxLength": 256},
            "parameters": {
                "type": ["object", "null"],
                "properties": {"routing_key": {"type": ["string", "null"]}},
            },
            "inputs": {
                "type": "array",
                "minItems": 1,
                "items": tensor([*schema.names, *sorted(schema.beside)]),
                "description": "One tensor per feature, all with as many rows.",
            },
            "outputs": {"type": ["array", "null"], "items": outputs},
        },
        "required": ["inputs"],
        "examples": [engine.example_body()],
    }


def infer_answer(engine: Engine) -> Json:
    """Return the schema of an infer request's answer."""
    return {
        "type": "object",
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": tensor(list(engine.outputs))},
        },
        "required": ["model_name", "model_version", "outputs"],
    }


def invocation(engine: Engine) -> Json:
    """Return the schema of MLflow's four forms. Columns the model does not know are ignored."""
    names = list(engine.schema.names)
    record = {**row(engine), "additionalProperties": True}
    del record["examples"], record["required"]
    records: Json = {"type": "array", "minItems": 1, "items": record}
    split: Json = {
        "type": "object",
        "properties": {
            "columns": {"type": "array", "items": {"type": "string"}},
            "data": {"type": "array", "items": {"type": "array"}},
        },
        "required": ["columns", "data"],
    }
    columns: Json = {
        "type": "object",
        "properties": {name: {"type": "array", "items": feature(engine, name)} for name in names},
        "required": names,
    }
    forms: Json = {
        "dataframe_split": split,
        "dataframe_records": records,
        "instances": {"type": "array", "minItems": 1},
        "inputs": {"anyOf": [columns, {"type": "array", "minItems": 1}]},
    }
    return {
        "type": "object",
        "description": "Exactly one of the four forms.",
        "properties": forms,
        "minProperties": 1,
        "examples": [{"dataframe_records": [example_row(engine)]}],
    }


def labels(engine: Engine) -> Json:
    """Return the schema of a batch of labels."""
    label: Json = {"type": _LABEL[engine.label_datatype]} if not engine.classes else {}
    if engine.classes:
        label = {"enum": list(engine.classes)}
    by_request: Json = {
        "type": "object",
        "properties": {
            "request_id": {"type": "string", "minLength": 1, "maxLength": 256},
            "row": {"type": "integer", "minimum": 0},
            "label": label,
        },
        "required": ["request_id", "label"],
        "additionalProperties": False,
    }
    by_key: Json = {
        "type": "object",
        "properties": {
            "key": {**_KEY, "type": ["string", "number", "boolean"]},
            "time": _TIME,
            "label": label,
        },
        "required": ["key", "label"],
        "additionalProperties": False,
    }
    example = next(iter(engine.classes), 1.5)
    return {
        "type": "object",
        "properties": {
            "batch": {"type": ["string", "null"], "maxLength": 256},
            "labels": {"type": "array", "minItems": 1, "items": {"anyOf": [by_request, by_key]}},
        },
        "required": ["labels"],
        "examples": [{"labels": [{"request_id": "42", "row": 0, "label": example}]}],
    }
