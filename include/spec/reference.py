"""Generates what people and editors read about the spec: `docs/spec.md` and `docs/spec.schema.json`."""

from __future__ import annotations

import json
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from include.spec.metrics import HIGHER_IS_BETTER, METRICS
from include.spec.schema import Spec
from include.spec.values import format_duration

_HEAD = """# The spec

One YAML file per model under `include/models/`, named like the model. Only `model`, `task`,
`ingest.source` and `ingest.target` are required. Unknown keys are errors. Files are read by YAML 1.2's
rules: `on` and `Yes` are plain text. Durations are written `90s`, `10m`, `24h`, `30d`, `1d12h`;
shares `20%` or `0.2`.

`./evergreen check` lists every problem of every spec. For completion in an editor, put this line first:

```yaml
# yaml-language-server: $schema=../../docs/spec.schema.json
```

This page and the schema are generated from `include/spec/schema.py` by `make docs`.
"""


def json_schema() -> str:
    """Return the JSON Schema of a spec, as text with a final newline."""
    schema = Spec.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2) + "\n"


def reference_page() -> str:
    """Return the reference page in Markdown."""
    parts = [_HEAD]
    top = [(n, f) for n, f in _fields(Spec) if not _sections(f.annotation)]
    parts.append(_table("Top level", "", top))
    for name, field in _fields(Spec):
        for section in _sections(field.annotation):
            parts += _section(name, section)
    parts.append(_metrics_table())
    return "\n".join(parts)


def _section(path: str, section: type[BaseModel]) -> list[str]:
    own = list(_fields(section))
    kind = section.model_fields.get("kind")
    title = f"{path} (kind: {get_args(kind.annotation)[0]})" if kind else path
    parts = [_table(title, (section.__doc__ or "").strip(), own)]
    for name, field in own:
        suffix = "[]" if _is_list(field.annotation) else ".*" if _is_dict(field.annotation) else ""
        for inner in _sections(field.annotation):
            parts += _section(f"{path}.{name}{suffix}", inner)
    return parts


def _table(title: str, text: str, rows: list[tuple[str, FieldInfo]]) -> str:
    lines = [f"## `{title}`" if "." in title or title.islower() else f"## {title}", ""]
    if text:
        lines += [text, ""]
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in rows:
        meaning = field.description or ""
        lines.append(
            f"| `{name}` | {_type(field)} | {_default(field)} | {meaning} |".replace("\n", " ")
        )
    return "\n".join([*lines, ""])


def _metrics_table() -> str:
    lines = ["## Metrics", "", "| metric | tasks | better is |", "|---|---|---|"]
    for metric, up in HIGHER_IS_BETTER.items():
        tasks = ", ".join(t for t, names in METRICS.items() if metric in names)
        lines.append(f"| `{metric}` | {tasks} | {'higher' if up else 'lower'} |")
    return "\n".join([*lines, ""])


def _fields(section: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    return [(field.alias or name, field) for name, field in section.model_fields.items()]


def _branches(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _branches(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [b for a in get_args(annotation) for b in _branches(a)]
    return [annotation]


def _is_list(annotation: Any) -> bool:
    return any(get_origin(b) is tuple for b in _branches(annotation))


def _is_dict(annotation: Any) -> bool:
    return any(get_origin(b) is dict for b in _branches(annotation))


def _sections(annotation: Any) -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = []
    for branch in _branches(annotation):
        if isinstance(branch, type) and issubclass(branch, BaseModel):
            found.append(branch)
        elif get_origin(branch) in (tuple, dict):
            found += [s for a in get_args(branch) if a is not Ellipsis for s in _sections(a)]
    return found


def _type(field: FieldInfo) -> str:
    if any("timedelta" in str(b) for b in _branches(field.annotation)):
        return "duration"
    if any(type(m).__name__ == "BeforeValidator" for m in field.metadata) or "parse_share" in str(
        field
    ):
        return "share"
    names = [_name(b) for b in _branches(field.annotation) if b is not type(None)]
    return " or ".join(dict.fromkeys(names))


def _name(branch: Any) -> str:
    origin = get_origin(branch)
    if origin is Literal:
        return ", ".join(f"`{a}`" for a in get_args(branch))
    if origin is tuple:
        inner = " or ".join(dict.fromkeys(_name(b) for b in _branches(get_args(branch)[0])))
        return f"list of {inner}"
    if origin is dict or branch is dict:
        return "mapping"
    if isinstance(branch, type) and issubclass(branch, BaseModel):
        return "section"
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(
        getattr(branch, "__name__", ""), "any"
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if field.default_factory is not None or field.default in (None, (), ""):
        return ""
    value = field.default
    text = format_duration(value) if hasattr(value, "total_seconds") else str(value)
    if isinstance(value, tuple):
        text = ", ".join(map(repr, value))
    return f"`{text}`"
