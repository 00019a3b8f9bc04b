"""One row's input without NumPy: what `Preparation.matrix` computes, in plain arithmetic on a row made at load.

In the middle of a request every NumPy call costs a few microseconds, mostly to bring its code back into the caches;
Python's own float64 operations are the same to the last bit and cost a tenth. Only ordinary values are dealt with:
whatever is not, a number that is infinite, too large or text, is left to `matrix`, which also says what is wrong.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from include.engines.predictor import Columns
from include.engines.preparation import Category, Numbers, Preparation

_KNOWN = ((), ("impute",), ("standard",), ("standard", "impute"))


class _Number(NamedTuple):
    """A numeric column: where it goes, what is taken off and divided by, where missing is flagged (-1: nowhere)."""

    name: str
    place: int
    mean: float
    scale: float
    flag: int


class _Coded(NamedTuple):
    """A categorical column: where it begins, its block's codes, and the block for other values than text."""

    name: str
    place: int
    found: Mapping[str | None, float]
    unknown: float
    hot: bool
    block: Category


@dataclass(frozen=True)
class RowPlan:
    """Fills one row; `row_plan` makes it.

    Args:
        empty: The row where every number is missing, without any category.
        numbers: Its numeric columns.
        coded: Its categorical columns.
        largest: Largest number, either sign, it deals with.
    """

    empty: array[float]
    numbers: Sequence[_Number]
    coded: Sequence[_Coded]
    largest: float

    def fill(self, columns: Columns, row: array[float]) -> bool:
        """Write the first row of the columns; False where it holds something `matrix` must deal with.

        Args:
            columns: Every feature.
            row: As long as `empty`; of no use when False is returned.
        """
        row[:] = self.empty
        low, high = -self.largest, self.largest
        try:
            for name, place, mean, scale, flag in self.numbers:
                value = columns[name][0]
                if value is None:
                    if flag >= 0:
                        row[flag] = 1.0
                    continue
                value = (value - mean) / scale
                if not low <= value <= high:  # also NaN
                    return False
                row[place] = value
        except (TypeError, OverflowError):  # text, a whole number beyond float64
            return False
        for name, place, found, unknown, hot, block in self.coded:
            value = columns[name][0]
            plain = value is None or type(value) is str
            code = found.get(value, unknown) if plain else block.find(value)
            if not hot:
                row[place] = code
            elif code >= 0:
                row[place + int(code)] = 1.0
        return True


def row_plan(preparation: Preparation) -> RowPlan | None:
    """Return the plan of a preparation; None where it does something that is not done here."""
    empty, begin = array("d", bytes(8 * preparation.width)), 0
    numbers: list[_Number] = []
    coded: list[_Coded] = []
    for block in preparation.blocks:
        if isinstance(block, Category):
            hot = block.hot is not None
            coded.append(_Coded(block.name, begin, block.found, block.unknown, hot, block))
        else:
            if tuple(step.kind for step in block.steps) not in _KNOWN:
                return None
            numbers += _numbers(block, begin, empty)
        begin += block.width
    codes = [code for c in coded if not c.hot for code in (*c.found.values(), c.unknown)]
    constant = np.array([*empty, *codes])
    too_large = (np.abs(constant) > preparation.largest).any()
    if too_large or (not preparation.missing and np.isnan(constant).any()):
        return None
    if not all(number.scale for number in numbers):
        return None
    largest = min(preparation.largest, float(np.finfo(np.float64).max))
    return RowPlan(empty, numbers, coded, largest)


def _numbers(block: Numbers, begin: int, empty: array[float]) -> list[_Number]:
    """Return a block's columns, and write into `empty` what stands for their missing values."""
    width = len(block.names)
    mean, scale, fill = np.zeros(width), np.ones(width), np.full(width, np.nan)
    flags: dict[int, int] = {}
    for step in block.steps:
        if step.kind == "standard":
            mean, scale = step.first, step.second
        else:
            fill = step.first
            flags = {column: begin + width + n for n, column in enumerate(step.flagged)}
    empty[begin : begin + width] = array("d", fill.tolist())
    return [
        _Number(name, begin + n, float(mean[n]), float(scale[n]), flags.get(n, -1))
        for n, name in enumerate(block.names)
    ]
