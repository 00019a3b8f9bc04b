"""From columns to the one float64 matrix an ONNX estimator takes: what scikit-learn's preprocessing does, in NumPy.

Owns the arithmetic and its stored form. The operations are scikit-learn's own, in its order and in float64, so that
not one bit differs: rounding to float32 here would carry rows across a tree's threshold. `include.engines.row` does
the same for one row, where making arrays is what it would spend its time on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from include.engines.predictor import Columns
from include.store.inputs import category_text

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """One operation on a block of numbers.

    Args:
        kind: `standard` (minus first, by second), `minmax` (times first, plus second, cut to `bounds`) or `impute`
            (first where missing; `flagged` columns get a further one that says 1 where it was).
        first: Shape (width,).
        second: Shape (width,); empty for impute.
        bounds: Lowest and highest value; None for no cut.
        flagged: Positions of columns with an indicator.
    """

    kind: str
    first: Floats
    second: Floats
    bounds: tuple[float, float] | None = None
    flagged: tuple[int, ...] = ()

    def apply(self, values: Floats) -> Floats:
        """Return the block after this step, shape (rows, width or wider); `values` may be overwritten."""
        if self.kind == "standard":
            values -= self.first
            values /= self.second
        elif self.kind == "minmax":
            values *= self.first
            values += self.second
            if self.bounds is not None:
                np.clip(values, *self.bounds, out=values)
        else:
            missing = np.isnan(values)
            if missing.any():
                values = np.where(missing, self.first, values)
            if self.flagged:
                flags = missing[:, self.flagged].astype(np.float64)
                values = np.concatenate((values, flags), axis=1)
        return values

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "kind": self.kind,
            "first": self.first.tolist(),
            "second": self.second.tolist(),
            "bounds": list(self.bounds) if self.bounds else None,
            "flagged": list(self.flagged),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Step:
        """Read what `to_dict` returned."""
        bounds = data["bounds"]
        return cls(
            str(data["kind"]),
            np.array(data["first"], dtype=np.float64),
            np.array(data["second"], dtype=np.float64),
            (float(bounds[0]), float(bounds[1])) if bounds else None,
            tuple(data["flagged"]),
        )


@dataclass(frozen=True)
class Numbers:
    """Numeric columns that stand side by side, and what is done to them."""

    names: tuple[str, ...]
    steps: tuple[Step, ...]

    @cached_property
    def width(self) -> int:
        """Columns of the matrix it fills."""
        return len(self.names) + sum(len(step.flagged) for step in self.steps)


@dataclass(frozen=True)
class Category:
    """A categorical column and what each of its texts becomes.

    Args:
        name: The feature.
        values: By text: the value itself, or with `hot` the position of the 1; -1 for none.
        missing: The same for a missing value.
        unknown: The same for a text training never saw.
        hot: Number of 0/1 columns; None for one column that holds the value.
    """

    name: str
    values: Mapping[str, float]
    missing: float
    unknown: float
    hot: int | None = None

    @cached_property
    def width(self) -> int:
        """Columns of the matrix it fills."""
        return 1 if self.hot is None else self.hot

    @cached_property
    def found(self) -> Mapping[str | None, float]:
        """What each known text and a missing value become."""
        found: dict[str | None, float] = {None: self.missing}
        found.update(self.values)
        return found

    def find(self, value: Any) -> float:
        """Return what one value becomes."""
        return self.found.get(value if type(value) is str else category_text(value), self.unknown)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; NaN, which JSON does not have, is null."""
        return {
            "name": self.name,
            "values": {text: _none(value) for text, value in self.values.items()},
            "missing": _none(self.missing),
            "unknown": _none(self.unknown),
            "hot": self.hot,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Category:
        """Read what `to_dict` returned."""
        values = {str(text): _nan(value) for text, value in data["values"].items()}
        hot = data["hot"]
        return cls(
            str(data["name"]),
            values,
            _nan(data["missing"]),
            _nan(data["unknown"]),
            hot and int(hot),
        )


@dataclass(frozen=True)
class Preparation:
    """The whole preprocessing: blocks in the order of the matrix's columns.

    Args:
        blocks: What fills the matrix, from the left.
        largest: Largest number, either sign, the estimator takes; infinite where it takes all.
        missing: Whether it takes NaN.
    """

    blocks: tuple[Numbers | Category, ...]
    largest: float = np.inf
    missing: bool = True

    @cached_property
    def width(self) -> int:
        """Columns of the matrix."""
        return sum(block.width for block in self.blocks)

    def matrix(self, columns: Columns) -> Floats:
        """Return the estimator's input, shape (rows, width).

        Args:
            columns: Every feature, all of one length, at least one row.

        Raises:
            ValueError: A number is none, or the estimator would refuse the values.
        """
        rows = len(next(iter(columns.values())))
        parts = [self._part(block, columns, rows) for block in self.blocks]
        made = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        if not self._takes_all:
            self._check(made)
        return made

    @cached_property
    def _takes_all(self) -> bool:
        return self.missing and self.largest == np.inf

    @staticmethod
    def _part(block: Numbers | Category, columns: Columns, rows: int) -> Floats:
        if isinstance(block, Numbers):
            given = np.array([columns[name] for name in block.names], dtype=np.float64)
            values = np.ascontiguousarray(given.T)
            if (
                block.steps and np.isinf(values).any()
            ):  # scikit-learn's scalers and imputers refuse it
                raise ValueError("an infinite number")
            for step in block.steps:
                values = step.apply(values)
            return values
        found = [block.find(value) for value in columns[block.name]]
        if block.hot is None:
            return np.array(found, dtype=np.float64)[:, np.newaxis]
        made = np.zeros((rows, block.hot))
        for row, place in enumerate(found):
            if place >= 0:
                made[row, int(place)] = 1.0
        return made

    def _check(self, values: Floats) -> None:
        wrong = np.abs(values) > self.largest
        if not self.missing:
            wrong |= np.isnan(values)
        if wrong.any():
            row = int(wrong.any(axis=1).argmax())
            raise ValueError(f"a number in row {row} that is missing or too large for the model")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "format": 1,
            "largest": None if self.largest == np.inf else self.largest,
            "missing": self.missing,
            "blocks": [_block(block) for block in self.blocks],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preparation:
        """Read what `to_dict` returned.

        Raises:
            KeyError: Something is missing.
        """
        return cls(
            tuple(_read_block(block) for block in data["blocks"]),
            np.inf if data["largest"] is None else float(data["largest"]),
            bool(data["missing"]),
        )


def _block(block: Numbers | Category) -> dict[str, Any]:
    if isinstance(block, Category):
        return {"category": block.to_dict()}
    return {"numbers": list(block.names), "steps": [step.to_dict() for step in block.steps]}


def _read_block(data: Mapping[str, Any]) -> Numbers | Category:
    if "category" in data:
        return Category.from_dict(data["category"])
    steps: Sequence[Mapping[str, Any]] = data["steps"]
    return Numbers(tuple(data["numbers"]), tuple(Step.from_dict(step) for step in steps))


def _none(value: float) -> float | None:
    return None if np.isnan(value) else value


def _nan(value: float | None) -> float:
    return np.nan if value is None else float(value)
