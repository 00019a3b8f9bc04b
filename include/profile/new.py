"""From a data file to a spec on disk: what `evergreen new` does."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from include.errors import SpecError
from include.profile.columns import read_columns
from include.profile.decide import Draft, decide
from include.profile.table import open_table
from include.profile.write import render
from include.settings import ROOT, Settings
from include.spec.loader import display_path
from include.spec.schema import NAME_PATTERN, Spec
from include.spec.yaml12 import parse


@dataclass(frozen=True)
class NewSpec:
    """A spec that was just written.

    Args:
        path: Where it is.
        text: What it says.
        draft: The decisions and findings behind it.
    """

    path: Path
    text: str
    draft: Draft


def new_spec(
    name: str,
    source: str,
    target: str,
    *,
    settings: Settings,
    time: str | None = None,
    key: str | None = None,
    task: str | None = None,
    force: bool = False,
) -> NewSpec:
    """Profile a file and write the spec for it.

    Args:
        name: Name of the new model.
        source: Path or glob of a CSV, Parquet or JSON-lines file; relative to the working directory.
        target: Column to predict.
        settings: Where specs live.
        time: Event time; None looks for one.
        key: Entity id; None looks for one.
        task: binary, multiclass or regression; None goes by the target's values.
        force: Overwrite an existing spec.

    Raises:
        SpecError: The name is not allowed, or the spec exists already.
        DataError: The file cannot be read or a named column cannot play its part.
    """
    path = settings.models / f"{name}.yaml"
    _check_name(name)
    if path.exists() and not force:
        raise SpecError(
            display_path(path), "must not exist yet, got a file", "Use --force to overwrite it."
        )
    absolute = os.path.abspath(Path(source).expanduser())  # noqa: PTH100  # resolve() would follow links
    shown = source_path(absolute)
    with open_table(absolute) as raw:
        table, columns = read_columns(raw)
        draft = decide(table, columns, target=target, time=time, key=key, task=task, path=shown)
    text = render(draft, name=name, path=shown)
    _check_text(text, path)
    _write(path, text, force=force)
    return NewSpec(path, text, draft)


def source_path(absolute: str) -> str:
    """Return a path as a spec names it: relative to the repository where it lies inside."""
    path = Path(absolute)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.as_posix()


def _check_name(name: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        near = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        near = near if re.match("[a-z]", near) else f"model_{near}".rstrip("_")
        rule = f"must be lower-case letters, digits and _, starting with a letter, at most 63, got {name!r}"
        raise SpecError("NAME", rule, f"Try {near[:63]!r}.")


def _check_text(text: str, path: Path) -> None:
    """Make sure that what is written can be read back: a column name may hold anything."""
    try:
        problems = Spec.model_validate(parse(text)).problems()
    except ValidationError as error:
        first = error.errors()[0]
        problems = [(".".join(str(part) for part in first["loc"]), str(first["msg"]))]
    if problems:
        key, rule = problems[0]
        raise SpecError(
            f"{display_path(path)}: {key}",
            f"the spec for this file would not be valid: {rule}",
            "Nothing was written; write the spec by hand.",
        )


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=".tmp", dir=path.parent
        )
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(temporary).chmod(0o644)
            if force:
                Path(temporary).replace(path)
            else:
                path.hardlink_to(temporary)  # fails where somebody else was faster
        finally:
            Path(temporary).unlink(missing_ok=True)
    except FileExistsError:
        raise SpecError(
            display_path(path), "must not exist yet, got a file", "Use --force to overwrite it."
        ) from None
    except OSError as error:
        raise SpecError(
            display_path(path), f"must be writable, got {error}", "Check the folder's rights."
        ) from error
