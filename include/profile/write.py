"""Writes a draft as a commented YAML spec, in the order of the documentation."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from include.profile.column import Column
from include.profile.decide import Draft, value_set
from include.spec.schema import Candidate, Spec

_WIDTH = 100
_COMMENT_AT = 40
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*( [A-Za-z0-9_./-]+)*")
_RESERVED = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
_RANGES, _SETS, _NOT_NULL = 4, 3, 2
_SMALL_SET = 12


def render(draft: Draft, *, name: str, path: str) -> str:
    """Return the text of the new spec.

    Args:
        draft: The decisions.
        name: Name of the model.
        path: Path of the data as the spec should name it.
    """
    columns = len(draft.numeric) + len(draft.categorical) + len(draft.drop) + 1
    columns += sum(1 for c in (draft.key, draft.time) if c)
    lines = [
        f"# Written by `evergreen new` from {_one_line(path)}: {draft.rows:,} rows, {columns} columns.",
        "# A comment says what each decision rests on; change what you know better. All keys: docs/spec.md.",
        f"model: {name}",
        f"description: {scalar(f'Predicts {draft.target.column.name}')}",
        _line(f"task: {draft.target.task}", draft.target.reason),
        "",
        *_ingest(draft, path),
        "",
        *_validate(draft),
        "",
        *_train(draft, name),
        "",
        *_evaluate(draft),
        "",
        *_retrain(draft),
    ]
    return "\n".join(lines) + "\n"


def scalar(value: Any) -> str:
    """Return a value as YAML, quoted wherever a reader might take it for something else."""
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)


# --- sections -------------------------------------------------------------------------------------------


def _ingest(draft: Draft, path: str) -> list[str]:
    lines = ["ingest:", "  source:", "    kind: file", f"    path: {scalar(path)}"]
    extra = [m for m in draft.missing or () if m]
    blank = next((c for c in _columns(draft) if any(m == "" for m, _ in c.markers)), None)
    if extra:
        why = "these mean missing: " + _marker_evidence(draft)
        lines.append(_line(f"    missing: {_flow(draft.missing or ())}", why))
    elif blank and draft.missing:
        why = "blanks mean missing: " + _marker_evidence(draft)
        lines.append(_line('    missing: [""]', why))
    if draft.key:
        why = f"{draft.key.distinct:,} different values, none missing"
        lines.append(_line(f"  key: {scalar(draft.key.name)}", why))
    if draft.time:
        lines += _time(draft.time)
    target = draft.target
    lines.append(f"  target: {scalar(target.column.name)}")
    if target.positive is not None:
        why = f"the event; {target.positive_share:.1%} of the rows"
        lines.append(_line(f"  positive: {scalar(target.positive)}", why))
    lines.append("  features:")
    if draft.numeric:
        lines += _wrapped("    numeric: ", [scalar(c.name) for c in draft.numeric])
    if draft.categorical:
        lines += _wrapped("    categorical: ", [scalar(c.name) for c in draft.categorical])
    if draft.drop:
        lines.append(_line("  drop:", "never reach snapshot, log or report"))
        lines += [_line(f"    - {scalar(name)}", why) for name, why in draft.drop]
    return lines


def _time(column: Column) -> list[str]:
    lines = [_line(f"  time: {scalar(column.name)}", f"{column.low} to {column.high}")]
    if column.date and column.date.format:
        why = column.date.evidence
        if column.date.ambiguous:
            why = f"CHECK THIS: {why}"
        lines.append(_line(f"  time_format: {json.dumps(column.date.format)}", why))
    return lines


def _columns(draft: Draft) -> list[Column]:
    special = [c for c in (draft.key, draft.time) if c]
    return [*special, draft.target.column, *draft.numeric, *draft.categorical]


def _marker_evidence(draft: Draft) -> str:
    places: dict[str, list[str]] = {}
    for column in _columns(draft):
        for text, count in column.markers:
            places.setdefault(text, []).append(f"{column.name} ({count:,})")
    texts = []
    for text, found in places.items():
        more = f" and {len(found) - 2} more" if len(found) > 2 else ""
        texts.append(f"{text!r} in {', '.join(found[:2])}{more}")
    return "; ".join(texts)


def _validate(draft: Draft) -> list[str]:
    lines = ["validate:", _line(f"  min_rows: {draft.min_rows}", "half of today's rows")]
    if draft.time:
        lines.append(
            _line("  # max_age: 2d", f"set it once new rows arrive; newest {draft.time.high}")
        )
    expectations = [*_not_null(draft), *_ranges(draft), *_sets(draft)]
    if expectations:
        lines.append(_line("  expectations:", "Great Expectations' own names and arguments"))
        lines += [line for name, arguments in expectations for line in _item(name, arguments)]
    return lines


def _item(name: str, arguments: dict[str, Any]) -> list[str]:
    head, flow = f"    - {name}:", _mapping(arguments)
    whole = f"{head} {flow}"
    return [whole] if len(whole) <= _WIDTH else [head, f"        {flow}"]


Expectation = tuple[str, dict[str, Any]]


def _not_null(draft: Draft) -> list[Expectation]:
    full = [c for c in (*draft.numeric, *draft.categorical) if c.nulls == 0]
    return [("expect_column_values_to_not_be_null", {"column": c.name}) for c in full[:_NOT_NULL]]


def _ranges(draft: Draft) -> list[Expectation]:
    """Ranges with a tenth of slack to either side; what was never negative stays so."""
    wide = [c for c in draft.numeric if c.numeric and c.distinct > 2]
    return [
        (
            "expect_column_values_to_be_between",
            {"column": c.name, **_bounds(c), "mostly": 0.99},
        )
        for c in wide[:_RANGES]
    ]


def _bounds(column: Column) -> dict[str, float]:
    low, high = float(column.low or 0), float(column.high or 0)
    slack = (high - low) / 10
    bottom, top = low - slack, high + slack
    if low >= 0:
        bottom = max(bottom, 0.0)
    if column.type == "int":
        return {"min_value": math.floor(bottom), "max_value": math.ceil(top)}
    digits = 3 - math.floor(math.log10(max(abs(bottom), abs(top), 1e-300)))
    return {"min_value": round(bottom, digits), "max_value": round(top, digits)}


def _sets(draft: Draft) -> list[Expectation]:
    small = [c for c in draft.categorical if c.distinct <= _SMALL_SET and value_set(c)]
    return [
        (
            "expect_column_values_to_be_in_set",
            {"column": c.name, "value_set": value_set(c), "mostly": 0.99},
        )
        for c in small[:_SETS]
    ]


def _train(draft: Draft, name: str) -> list[str]:
    # The spec's own defaults, written out so that a reader can change them.
    minimal = {
        "model": name,
        "task": draft.target.task,
        "ingest": {"source": {"kind": "file", "path": "x"}, "target": "y"},
    }
    lines = ["train:", "  candidates:"]
    for candidate in Spec.model_validate(minimal).candidates:
        lines += _candidate(candidate)
    return [*lines, _line("  tune: {trials: 10, timeout: 5m, folds: 3}", "for each candidate")]


def _candidate(candidate: Candidate) -> list[str]:
    lines = [f"    - estimator: {candidate.estimator}"]
    if candidate.params:
        lines.append(f"      params: {_mapping(candidate.params)}")
    if candidate.search:
        lines.append("      search:")
        for argument, search in candidate.search.items():
            given = search.model_dump(exclude_defaults=True)
            lines.append(f"        {argument}: {_mapping(given)}")
    return lines


def _evaluate(draft: Draft) -> list[str]:
    how = "a fixed hash of the rows"
    if draft.time:
        how = f"the newest rows by {draft.time.name}"
    elif draft.key:
        how = f"a fixed hash of {draft.key.name}"
    metric = draft.metric
    why = ""
    if draft.target.positive_share is not None:
        why = f"{draft.target.positive_share:.1%} of the rows are the event"
    lines = [
        "evaluate:",
        _line("  holdout: 20%", how),
        _line(f"  primary: {{metric: {metric}}}", why),
        _line(
            f"  # minimum: {{{metric}: ...}}", "the worst you accept, once you know what is usual"
        ),
    ]
    sliced = next((c for c in draft.categorical if 2 <= c.distinct <= _SMALL_SET), None)
    if sliced:
        text = f"  # slices: [{{column: {scalar(sliced.name)}, max_regression: 0.05}}]"
        lines.append(_line(text, "no group may get much worse"))
    return lines


def _retrain(draft: Draft) -> list[str]:
    return [
        "# retrain:",
        _line('#   schedule: "0 2 * * *"', "every night at two, UTC"),
        _line("#   on: [data]", "and whenever the data asset is updated"),
        _line(f"#   min_new_rows: {max(draft.rows // 100, 1)}", "not for fewer rows than that"),
    ]


# --- text -----------------------------------------------------------------------------------------------


def _line(text: str, comment: str = "") -> str:
    if not comment:
        return text
    return f"{text:<{_COMMENT_AT - 2}}  # {_one_line(comment)}"


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _flow(values: Iterable[Any]) -> str:
    return "[" + ", ".join(scalar(v) for v in values) + "]"


def _mapping(values: dict[str, Any]) -> str:
    parts = (
        f"{key}: {_flow(value) if isinstance(value, (list, tuple)) else scalar(value)}"
        for key, value in values.items()
    )
    return "{" + ", ".join(parts) + "}"


def _wrapped(head: str, items: Sequence[str]) -> list[str]:
    lines, current = [], head + "["
    indent = " " * len(current)
    for number, item in enumerate(items):
        text = item + ("," if number < len(items) - 1 else "]")
        if len(current) + len(text) + 1 > _WIDTH and current.strip() and number:
            lines.append(current.rstrip())
            current = indent
        current += text + " "
    return [*lines, current.rstrip()]
