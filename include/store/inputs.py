"""What a model's input consists of, in plain Python: names of columns, and how a category is written.

Owns what serving needs of `include.store.features` without pandas: a process that only serves ONNX models never
imports it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Features:
    """The columns a model learns from, in the order of its input."""

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All names: the numeric ones, then the categorical ones."""
        return self.numeric + self.categorical

    def to_dict(self) -> dict[str, list[str]]:
        """Return plain JSON values."""
        return {"numeric": list(self.numeric), "categorical": list(self.categorical)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Sequence[str]]) -> Features:
        """Read what `to_dict` returned."""
        return cls(tuple(data["numeric"]), tuple(data["categorical"]))


def category_text(value: Any) -> str | None:
    """Return one value as a category is written; None where missing."""
    if isinstance(value, str):
        return str(value)
    if is_missing(value):
        return None
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        number = float(value)
        return str(int(number)) if number.is_integer() else repr(number)
    if isinstance(value, date):  # also datetime and Timestamp
        return value.isoformat()
    return str(value)


def is_missing(value: Any) -> bool:
    """Tell whether a value stands for none: None, NaN, NaT or pandas' NA."""
    if value is None:
        return True
    pandas = sys.modules.get("pandas")  # a value of pandas can only come from one that is loaded
    if pandas is not None and value is getattr(pandas, "NA", None):
        return True
    return bool(value != value)
