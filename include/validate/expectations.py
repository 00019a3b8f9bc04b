"""The user's own expectations, run by Great Expectations in an ephemeral context.

Owns everything that touches Great Expectations. Import this module only when a spec has expectations: the
import takes seconds. Nothing is written to disk, no environment variable changes, no progress bar is drawn.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.exceptions import ExpectationNotFoundError
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.registry import (
    get_expectation_impl,
    list_registered_expectation_implementations,
)

from include.errors import DataError, SpecError
from include.spec.loader import suggest
from include.spec.schema import Spec
from include.store.files import Store
from include.store.snapshots import Manifest, read_frame
from include.validate.findings import Finding, Severity, count, percent, plain, sentence

CHECK = "expectation"
_OURS = (
    "result_format",
    "catch_exceptions",
    "batch_id",
    "id",
    "rendered_content",
    "windows",
    "meta",
)
_SQL_ONLY = (
    "expect_query_results_to_match_comparison",
    "expect_table_row_count_to_equal_other_table",
    "unexpected_rows_expectation",
)
_COLUMN_KEYS = ("column", "column_A", "column_B", "column_list")
_ABOUT_COLUMNS = re.compile(r"expect_table_column|expect_column_to_exist$")
_NUMBER = "evergreen"  # key in `meta`: results come back in another order than they were asked for
_EXAMPLES = 3


def expectation_problems(spec: Spec) -> list[tuple[str, str, str]]:
    """Say what is wrong with a spec's expectations, without any data.

    Returns:
        One (key, rule and finding, way out) for each wrong expectation; empty when all can be run.
    """
    return [p for i in range(len(spec.validate_.expectations)) if (p := _problem(spec, i))]


def check_expectations(spec: Spec, store: Store, manifest: Manifest) -> list[Finding]:
    """Run the spec's expectations over every row, reading only the columns they name.

    Returns:
        One finding for each expectation, in the spec's order. GX's severities `warning` and `info` give `warn`,
        `critical` (the default) gives `error`. What cannot be computed counts as not met.

    Raises:
        SpecError: An expectation does not exist or has wrong arguments.
    """
    problems = expectation_problems(spec)
    if problems:
        key, rule, fix = problems[0]
        more = f" ({len(problems) - 1} more expectations are wrong too.)" if problems[1:] else ""
        raise SpecError(_where(spec, key), rule, fix + more)
    every = [_build(spec, i) for i in range(len(spec.validate_.expectations))]
    types = {c.name: c.type for c in manifest.columns}
    found: dict[int, Finding] = {}
    runnable: dict[bool, list[int]] = {True: [], False: []}
    for number, (name, arguments) in enumerate(_pairs(spec)):
        absent = [c for c in _named_columns(arguments) if c not in types]
        if _ABOUT_COLUMNS.match(name):
            runnable[True].append(number)
        elif absent:
            found[number] = _no_column(spec, number, every[number], absent[0], types)
        elif manifest.rows == 0:
            found[number] = _finding(spec, number, every[number], "got an empty snapshot", None)
        else:
            runnable[False].append(number)
    for about_columns, numbers in runnable.items():
        if numbers:
            frame = _frame(spec, store, manifest, numbers, about_columns)
            results = _run([every[i] for i in numbers], frame)
            found |= {i: _judge(spec, i, every[i], results.get(i)) for i in numbers}
    return [found[i] for i in sorted(found)]


def _pairs(spec: Spec) -> list[tuple[str, dict[str, Any]]]:
    return [next(iter(item.items())) for item in spec.validate_.expectations]


def _where(spec: Spec, key: str) -> str:
    return f"include/models/{spec.model}.yaml: {key}"


def _problem(spec: Spec, number: int) -> tuple[str, str, str] | None:
    name, arguments = _pairs(spec)[number]
    key = f"validate.expectations[{number}]"
    try:
        cls = get_expectation_impl(name)
    except ExpectationNotFoundError:
        known = [n for n in list_registered_expectation_implementations() if n not in _SQL_ONLY]
        hint = (
            suggest(name, known) or "See https://greatexpectations.io/expectations for their names."
        )
        return key, f"must name an expectation of Great Expectations, got {name!r}", hint
    if name in _SQL_ONLY:
        rule = f"must be an expectation about one snapshot, got {name}, which needs a database"
        return key, rule, "Put the rule into the source's query."
    allowed = sorted(set(cls.__fields__) - set(_OURS))
    for argument in arguments or {}:
        if argument not in allowed:
            hint = suggest(argument, allowed) or f"It takes {', '.join(allowed)}."
            return key, f"{name} must get arguments it knows, got {argument!r}", hint
    try:
        _build(spec, number)
    except (ValueError, TypeError) as error:
        return key, f"{name} must get fitting arguments, got {_reasons(error)}", "Correct them."
    return None


def _build(spec: Spec, number: int) -> Expectation:
    name, arguments = _pairs(spec)[number]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of Great Expectations' own
        return get_expectation_impl(name)(**(arguments or {}), meta={_NUMBER: number})


def _reasons(error: Exception) -> str:
    """Return the distinct reasons of a Pydantic 1 error, each with its argument."""
    details = getattr(error, "errors", None)
    if not callable(details):
        return str(error)
    by_argument: dict[str, list[str]] = {}
    for detail in details():
        where = ".".join(str(part) for part in detail["loc"][:1]).replace("__root__", "")
        by_argument.setdefault(where, []).append(detail["msg"])
    return "; ".join(
        (f"{where}: " if where else "") + " or ".join(dict.fromkeys(reasons))
        for where, reasons in by_argument.items()
    )


def _named_columns(arguments: Mapping[str, Any]) -> list[str]:
    named: list[str] = []
    for key in _COLUMN_KEYS:
        value = arguments.get(key)
        named += [value] if isinstance(value, str) else list(value or ())
    return named


def _mentioned(arguments: Mapping[str, Any], columns: Iterable[str]) -> set[str]:
    """Return the columns an expectation may read: those it names, and those in its row condition."""
    named = set(_named_columns(arguments))
    condition = str(arguments.get("row_condition") or "")
    return {c for c in columns if c in named or (condition and c in condition)}


def _frame(
    spec: Spec, store: Store, manifest: Manifest, numbers: Sequence[int], about_columns: bool
) -> pd.DataFrame:
    names = [c.name for c in manifest.columns]
    if about_columns:
        return pd.DataFrame(columns=pd.Index(names))  # only the names matter; no row is read
    pairs = _pairs(spec)
    wanted = set().union(*(_mentioned(pairs[i][1] or {}, names) for i in numbers))
    frame = read_frame(store, manifest, [n for n in names if n in wanted] or names[:1])
    for column in manifest.columns:
        if column.type == "timestamp" and column.name in frame:
            # Dates in a YAML file have no time zone; the snapshot's times are UTC.
            frame[column.name] = frame[column.name].dt.tz_localize(None)
    return frame


def _run(expectations: Sequence[Expectation], frame: pd.DataFrame) -> dict[int, Any]:
    """Return Great Expectations' results by the number of the expectation."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            context = gx.get_context(mode="ephemeral")
            context.variables.progress_bars = ProgressBarsConfig(globally=False)
            asset = context.data_sources.add_pandas("snapshot").add_dataframe_asset("rows")
            batch = asset.add_batch_definition_whole_dataframe("all").get_batch(
                {"dataframe": frame}
            )
            suite = gx.ExpectationSuite(name="spec", expectations=list(expectations))
            outcome = batch.validate(suite, result_format="BASIC")
    except Exception as error:  # whatever goes wrong inside, the data has not been shown to be good
        raise DataError(
            "validate.expectations",
            f"Great Expectations must be able to run them, got {type(error).__name__}: {error}",
            "Look for the expectation that does not fit its column's type.",
        ) from error
    return {r.expectation_config.meta[_NUMBER]: r for r in outcome.results}


def _judge(spec: Spec, number: int, expectation: Expectation, result: Any) -> Finding:
    if result is None:
        return _finding(spec, number, expectation, "got no result for it", None)
    raised = _raised(result.exception_info)
    if raised:
        return _finding(spec, number, expectation, f"got an error: {raised}", None)
    detail = dict(result.result or {})
    if not result.success:
        return _finding(spec, number, expectation, _got(detail), _observed(detail))
    if detail.get("element_count") is not None and _looked_at(detail) == 0:
        rule = f"{_told(spec, number)} must be checked on some rows, got none with a value"
        fix = "It passed without looking at anything; see its column and its row_condition."
        message = sentence(_where(spec, f"validate.expectations[{number}]"), rule, fix)
        return Finding(CHECK, _column(spec, number), "warn", message, _observed(detail), None)
    text = f"{_told(spec, number)} holds"
    return Finding(CHECK, _column(spec, number), "ok", text, _observed(detail), None)


def _looked_at(detail: Mapping[str, Any]) -> int:
    return int(detail["element_count"]) - int(detail.get("missing_count") or 0)


def _raised(info: Mapping[str, Any] | None) -> str:
    """Return the message of an exception inside Great Expectations, or an empty text.

    Its place differs: at the top, or one level down by metric.
    """
    if not info:
        return ""
    entries = [info] if "raised_exception" in info else list(info.values())
    for entry in entries:
        if isinstance(entry, Mapping) and entry.get("raised_exception"):
            lines = str(entry.get("exception_message") or "unknown").strip().splitlines()
            return lines[0][:300]
    return ""


def _got(detail: Mapping[str, Any]) -> str:
    number = detail.get("unexpected_count")
    some = [plain(v) for v in detail.get("partial_unexpected_list") or [] if _known(v)]
    shown = f", such as {_examples(some)}" if some else ""
    if number is not None and detail.get("element_count"):
        total = _looked_at(detail)
        if not total:
            return "got no value to look at"
        return f"got {int(number):,} of {count(total, 'value')} ({percent(number / total)}) that do not comply{shown}"
    if detail.get("observed_value") is not None:
        return f"got {plain(detail['observed_value'])}"
    return f"got that it does not hold{shown}"


def _known(value: Any) -> bool:
    return not (pd.api.types.is_scalar(value) and pd.isna(value))


def _examples(values: Iterable[Any]) -> str:
    return ", ".join(repr(v) for v in list(dict.fromkeys(map(str, values)))[:_EXAMPLES])


def _observed(detail: Mapping[str, Any]) -> dict[str, Any]:
    keys = (
        "element_count",
        "missing_count",
        "unexpected_count",
        "unexpected_percent",
        "observed_value",
    )
    observed = {k: plain(detail[k]) for k in keys if detail.get(k) is not None}
    if detail.get("partial_unexpected_list"):
        observed["examples"] = [plain(v) for v in detail["partial_unexpected_list"][:5]]
    return observed


def _no_column(
    spec: Spec, number: int, expectation: Expectation, name: str, types: Mapping[str, str]
) -> Finding:
    if name in spec.ingest.drop:
        got, fix = (
            f"got {name!r}, which ingest.drop keeps out of it",
            "Remove the expectation, or the column from ingest.drop.",
        )
    else:
        got, fix = f"got no {name!r}", suggest(name, types) or f"It has {', '.join(types)}."
    rule = f"{_told(spec, number)} must be about a column of the snapshot, {got}"
    message = sentence(_where(spec, f"validate.expectations[{number}]"), rule, fix)
    return Finding(CHECK, name, _severity(expectation), message, None, None)


def _finding(spec: Spec, number: int, expectation: Expectation, got: str, observed: Any) -> Finding:
    rule = f"{_told(spec, number)} must hold, {got}"
    fix = "Fix the source, or change the expectation."
    message = sentence(_where(spec, f"validate.expectations[{number}]"), rule, fix)
    name, arguments = _pairs(spec)[number]
    return Finding(
        CHECK, _column(spec, number), _severity(expectation), message, observed, {name: arguments}
    )


def _severity(expectation: Expectation) -> Severity:
    return "error" if str(expectation.severity.value) == "critical" else "warn"


def _column(spec: Spec, number: int) -> str | None:
    column = (_pairs(spec)[number][1] or {}).get("column")
    return column if isinstance(column, str) else None


def _told(spec: Spec, number: int) -> str:
    """Return the expectation as people write it: `expect_...(column='tenure', min_value=0)`."""
    name, arguments = _pairs(spec)[number]
    shown = {k: v for k, v in (arguments or {}).items() if k not in ("severity", "notes")}
    return f"{name}({', '.join(f'{k}={plain(v)!r}' for k, v in shown.items())})"
