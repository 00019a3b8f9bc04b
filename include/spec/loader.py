"""Reads specs from YAML files and says everything that is wrong with them at once."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from include.errors import SpecError
from include.settings import ROOT, Settings, get_settings
from include.spec.files import ENDING, spec_files
from include.spec.schema import Candidate, Spec
from include.spec.sources import PythonSource
from include.spec.yaml12 import parse

_SHOWN = 10


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one key of one file."""

    file: str
    key: str
    rule: str
    fix: str

    def __str__(self) -> str:
        where = f"{self.file}: {self.key}" if self.key else self.file
        return f"{where}: {self.rule}. {self.fix}"


class InvalidSpecError(SpecError):
    """A spec with all its problems; the text shows the first ten.

    Args:
        problems: Everything that is wrong, at least one entry.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        super().__init__(
            f"{first.file}: {first.key}" if first.key else first.file, first.rule, first.fix
        )

    def __str__(self) -> str:
        lines = [str(p) for p in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(
                f"... and {len(self.problems) - _SHOWN} more; `evergreen check` lists them all."
            )
        return "\n".join(lines)


def load_spec(path: Path, settings: Settings | None = None) -> Spec:
    """Read one spec.

    Args:
        path: The YAML file.
        settings: Where the allowed code prefixes come from; None reads the environment.

    Raises:
        InvalidSpecError: With every problem found.
    """
    settings = settings or get_settings()
    file = display_path(path)
    if path.suffix != ENDING:
        rule = f"must end in {ENDING}, got {path.suffix or 'no ending'}"
        raise InvalidSpecError([Problem(file, "", rule, f"Rename it to {path.stem}{ENDING}.")])
    data = _read(path, file)
    try:
        spec = Spec.model_validate(data)
    except ValidationError as error:
        raise InvalidSpecError(_from_pydantic(file, error)) from None
    problems = [Problem(file, key, rule, "Correct the key.") for key, rule in spec.problems()]
    problems += _code_problems(file, spec, settings.allowed_prefixes)
    if spec.model != path.stem:
        rule = f"must equal the file's stem {path.stem!r}, got {spec.model!r}"
        problems.append(Problem(file, "model", rule, "Rename the file or the model."))
    if problems:
        raise InvalidSpecError(problems)
    return spec


def find_spec(model: str, settings: Settings | None = None) -> Path:
    """Return the path of a model's spec.

    Raises:
        SpecError: There is no such model; the message suggests the nearest name.
    """
    settings = settings or get_settings()
    path = settings.models / f"{model}.yaml"
    if not path.is_file():
        names = [p.stem for p in spec_paths(settings)]
        hint = suggest(model, names) or f"Known models: {', '.join(names) or 'none'}."
        raise SpecError(
            str(display_path(settings.models)), f"must hold {model}.yaml, got no such file", hint
        )
    return path


def spec_paths(settings: Settings | None = None) -> list[Path]:
    """Return the paths of all specs, sorted by name; also of those whose ending `load_spec` refuses."""
    return spec_files((settings or get_settings()).models)


def suggest(word: str, known: Iterable[str]) -> str:
    """Return a sentence naming the nearest known word, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else ""


def display_path(path: Path) -> str:
    """Return a path the way a reader knows it: relative to the repository where it lies inside."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _read(path: Path, file: str) -> dict[str, Any]:
    try:
        data = parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSpecError(
            [
                Problem(
                    file,
                    "",
                    f"must be a readable text file, got {error}",
                    "Check the path and its permissions.",
                )
            ]
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "it cannot be parsed"
        raise InvalidSpecError(
            [Problem(file, place, f"must be valid YAML, got: {reason}", "Correct the line.")]
        ) from None
    if not isinstance(data, dict):
        kind = "nothing" if data is None else type(data).__name__
        raise InvalidSpecError(
            [
                Problem(
                    file, "", f"must hold a mapping of sections, got {kind}", "Start with `model:`."
                )
            ]
        )
    return data


def _code_problems(file: str, spec: Spec, prefixes: tuple[str, ...]) -> list[Problem]:
    allowed = f"must lie under an allowed prefix ({', '.join(prefixes)})"
    fix = "Move the code there, or add its prefix to EVERGREEN_CODE_PREFIXES."
    return [
        Problem(file, key, f"{allowed}, got {path!r}", fix)
        for key, path in code_paths(spec)
        if not path.startswith(prefixes)
    ]


def code_paths(spec: Spec) -> Iterator[tuple[str, str]]:
    """Yield every place where a spec names code, as (dotted key, dotted path)."""
    if isinstance(spec.ingest.source, PythonSource):
        yield "ingest.source.call", spec.ingest.source.call
    if spec.monitor.labels and isinstance(spec.monitor.labels.source, PythonSource):
        yield "monitor.labels.source.call", spec.monitor.labels.source.call
    if spec.score and isinstance(spec.score.source, PythonSource):
        yield "score.source.call", spec.score.source.call
    for number, candidate in enumerate(spec.train.candidates):
        if isinstance(candidate, Candidate):
            yield f"train.candidates[{number}].estimator", candidate.estimator


# --- from Pydantic's errors to ours ---------------------------------------------------------------------


def _from_pydantic(file: str, error: ValidationError) -> list[Problem]:
    problems: dict[str, Problem] = {}
    for item in error.errors():
        keys, owner = _resolve(item["loc"])
        key = _dotted(keys)
        if key not in problems:  # a union reports one error per branch: the first is enough
            problems[key] = Problem(file, key, *_explain(item, keys, owner))
    return list(problems.values())


def _explain(item: Any, keys: list[str | int], owner: type[BaseModel] | None) -> tuple[str, str]:
    kind, got = item["type"], item.get("input")
    if keys[:2] == ["notify", "to"]:
        # An address may hold a password, and this is shown on the Dag's page.
        return f"must be a list of texts, got {type(got).__name__}", "Write `to: [...]`."
    if kind == "extra_forbidden":
        known = _names(owner) if owner else []
        hint = suggest(str(keys[-1]), known) or f"Known keys here: {', '.join(known)}."
        return f"must be a known key, got {keys[-1]!r}", hint
    if kind == "missing":
        return "is required, got nothing", "Add the key."
    if kind == "union_tag_not_found":
        return "must name its kind: file, s3, sql or python", "Add `kind:`."
    if kind == "union_tag_invalid":
        return (
            f"must be one of file, s3, sql, python, got {_shorten(item['ctx']['tag'])}",
            "Correct `kind:`.",
        )
    if kind == "literal_error":
        expected = item["ctx"]["expected"]
        choices = [c.strip(" '") for c in expected.replace(" or ", ", ").split(",")]
        return f"must be one of {', '.join(choices)}, got {_shorten(got)}", suggest(
            str(got), choices
        ) or "Pick one of them."
    text = str(item["msg"]).removeprefix("Value error, ")
    if kind == "value_error":
        return text[:1].lower() + text[1:], "Correct the value."
    text = text[:1].lower() + text[1:]
    return f"{text.replace('input should', 'must')}, got {_shorten(got)}", "Correct the value."


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _dotted(keys: list[str | int]) -> str:
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text


def _names(owner: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in owner.model_fields.items()]


def _resolve(loc: tuple[str | int, ...]) -> tuple[list[str | int], type[BaseModel] | None]:
    """Drop Pydantic's union branch names from a location; return the keys and the section that owns the last."""
    keys: list[str | int] = []
    current: list[Any] = [Spec]
    owner: type[BaseModel] | None = Spec
    for part in loc:
        sections = [c for c in current if isinstance(c, type) and issubclass(c, BaseModel)]
        by_tag = [s for s in sections if part in _tags(s)]
        if by_tag and len(sections) > 1:
            current, owner = by_tag, by_tag[0]
            continue
        fields = [
            (s, f) for s in sections for n, f in s.model_fields.items() if part in (n, f.alias)
        ]
        if fields:
            owner = fields[0][0]
            current = _flatten(fields[0][1].annotation)
        elif isinstance(part, int) or any(get_origin(c) is dict for c in current):  # an item
            inner = [a for c in current for a in get_args(c) if a is not Ellipsis]
            current = [x for a in inner for x in _flatten(a)]
        elif len(current) == 1 and sections and part != sections[0].__name__:
            owner = sections[0]  # a key the section does not know
        else:
            current = [s for s in sections if s.__name__ == part] or current
            continue  # the name of a union's branch, such as `str` or `Approval`
        keys.append(part)
    return keys, owner


def _tags(section: type[BaseModel]) -> tuple[Any, ...]:
    field = section.model_fields.get("kind")
    return get_args(field.annotation) if field else ()


def _flatten(annotation: Any) -> list[Any]:
    """Return what a value may be; None is left out, for nothing lies below it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _flatten(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [x for a in get_args(annotation) if a is not type(None) for x in _flatten(a)]
    return [annotation]
