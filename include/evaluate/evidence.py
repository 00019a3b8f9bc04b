"""What the gate looks at: scores, intervals, slices, the old holdout. Plain values, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from include.scoring.bootstrap import Interval

Scores = Mapping[str, float]


@dataclass(frozen=True)
class SliceScore:
    """The primary metric on the rows where a column has one value; `champion` is None without one."""

    column: str
    value: str
    rows: int
    challenger: float
    champion: float | None


@dataclass(frozen=True)
class Legacy:
    """Both models on the champion's old holdout.

    Attributes:
        rows: Rows of the old holdout.
        seen: Rows of it the challenger may have trained on; they flatter it, so this part can stop a challenger
            and never speaks for one.
        challenger: Scores; empty when `failure` is set.
        champion: Scores; empty when `failure` is set.
        failure: Why there are no scores; None when there are.
    """

    rows: int
    seen: int
    challenger: Scores
    champion: Scores
    failure: str | None = None


@dataclass(frozen=True)
class Evidence:
    """Everything the gate looks at.

    Attributes:
        rows: Holdout rows every score is computed on.
        challenger: Scores of the challenger; NaN where undefined.
        baseline: Scores of the trivial baseline.
        against_baseline: Interval of the challenger's improvement over it in the primary metric.
        champion_version: Version that serves; None when there is none, and then this is a first model.
        champion: Its scores; None when it could not be scored.
        against_champion: Interval of the challenger's improvement over it.
        champion_failure: Why the champion could not be scored.
        challenger_problem: What is wrong with the challenger's predictions; None when nothing is.
        slices: Scores per slice; a column of the spec without any counts as missing.
        legacy: Scores on the champion's old holdout; None when it was not looked at.
    """

    rows: int
    challenger: Scores
    baseline: Scores
    against_baseline: Interval | None
    champion_version: str | None = None
    champion: Scores | None = None
    against_champion: Interval | None = None
    champion_failure: str | None = None
    challenger_problem: str | None = None
    slices: tuple[SliceScore, ...] = ()
    legacy: Legacy | None = None
