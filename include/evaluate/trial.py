"""Predictions and scores of all contestants on one holdout.

Owns the rule that no version is judged on rows it trained on, and what happens when the champion cannot answer:
that is evidence against promoting, not an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from include.errors import DataError, ModelError
from include.evaluate.evidence import Evidence, Legacy, SliceScore
from include.evaluate.holdout import Holdout, baseline_prediction, load_holdout, with_new_classes
from include.scoring.bootstrap import Interval, improvement, interval, resample
from include.scoring.metrics import Floats, score, statistic
from include.scoring.model import LoadedModel, predict, shared_classes
from include.spec.schema import Spec
from include.store.features import (
    Features,
    category_texts,
    model_frame,
    no_column,
    target_array,
)
from include.store.files import Store
from include.store.snapshots import Manifest
from include.store.split import Split, holdout_mask

_SMALL_SLICES = 50  # reported per column, of those too small to be judged
_LONGEST_VALUE = 80


@dataclass(frozen=True)
class Trial:
    """Predictions on one holdout. `champion` is None without one, or when `failure` says why."""

    rows: int
    y: NDArray[Any]
    classes: list[Any]
    challenger: Floats
    champion: Floats | None
    failure: str | None


# --- who may be judged on which rows --------------------------------------------------------------------


def check_cutoff(spec: Spec, split: Split, model: LoadedModel | None) -> None:
    """Refuse to judge a version on rows up to its own training cutoff.

    Args:
        spec: Names the model.
        split: The holdout.
        model: The version; None passes.

    Raises:
        ModelError: The version's cutoff lies after the holdout's beginning.
    """
    if model is None or model.cutoff is None or split.kind != "time":
        return
    if _moment(model.cutoff) > _moment(str(split.cutoff)):
        raise ModelError(
            f"model {spec.model}, version {model.version}",
            f"must not be judged on rows it trained on: it learned from rows up to {model.cutoff}, "
            f"the holdout begins after {split.cutoff}",
            "Plan the split with the version's cutoff as `not_before`.",
        )


def _check_comparable(split: Split, champion: LoadedModel) -> None:
    """Refuse a champion whose training rows were chosen in another way than this holdout's."""
    if (champion.cutoff is None) == (split.kind == "time"):
        was = "an unknown cutoff" if champion.cutoff is None else f"the cutoff {champion.cutoff}"
        raise ModelError(
            f"version {champion.version}",
            f"may have trained on rows of this holdout: it has {was}, the holdout is by {split.kind}",
            "Promote a version by hand once, after ingest.time changed.",
        )
    was_held = champion.split
    if was_held is not None and not _holds_as_much(was_held, split):
        raise ModelError(
            f"version {champion.version}",
            "may have trained on rows of this holdout: its own was drawn by other columns or was smaller",
            "Promote a version by hand once, after ingest.time, ingest.key, the features or "
            "evaluate.holdout changed.",
        )


def _holds_as_much(was: Split, now: Split) -> bool:
    """Tell whether every row held out now was held out then: hashed shares are nested, cutoffs are checked."""
    same_rows = (was.kind, was.column, was.columns) == (now.kind, now.column, now.columns)
    return same_rows and (now.kind == "time" or was.share >= now.share)


def _moment(text: str) -> pd.Timestamp:
    moment = pd.Timestamp(text)
    return moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")


# --- predictions and evidence ---------------------------------------------------------------------------


def columns(spec: Spec, challenger: LoadedModel, champion: LoadedModel | None) -> Iterable[str]:
    """Yield the columns a trial reads, some of them twice: features and slices."""
    yield from challenger.features.names
    yield from champion.features.names if champion else ()
    yield from (part.column for part in spec.evaluate.slices)


def run_trial(
    spec: Spec,
    holdout: Holdout,
    split: Split,
    challenger: LoadedModel,
    champion: LoadedModel | None,
) -> Trial:
    """Ask both versions once about every held-out row; equal inputs are prepared once.

    Args:
        spec: Gives the task.
        holdout: The rows, with both versions' features.
        split: How they were chosen.
        challenger: The version on trial.
        champion: The version that serves; None for a first model.

    Raises:
        ModelError: The challenger cannot predict.
        DataError: A feature of the challenger is missing, or a target is missing or unknown.
    """
    known = [m.classes for m in (challenger, champion) if m is not None]
    classes = shared_classes(spec.task, *known)
    classes = with_new_classes(classes, spec, holdout.frame, holdout.training)
    theirs: Floats | None = None
    if not holdout.rows:
        nothing = np.empty((0, len(classes)) if spec.task == "multiclass" else 0)
        theirs = None if champion is None else nothing
        return Trial(0, np.empty(0, dtype=np.int64), classes, nothing, theirs, None)
    y, _ = target_array(holdout.frame, spec, classes)
    inputs: dict[Features, pd.DataFrame] = {}

    def ask(model: LoadedModel) -> Floats:
        for name in model.features.names:
            if name not in holdout.frame:
                raise no_column(f"version {model.version}", "feature", name, holdout.known)
        if model.features not in inputs:
            inputs[model.features] = model_frame(holdout.frame, model.features)
        return predict(model, inputs[model.features], spec.task, classes)

    mine, failure = ask(challenger), None
    if champion is not None:
        try:
            _check_comparable(split, champion)
            theirs = ask(champion)
            failure = _problem(theirs)
        except (DataError, ModelError) as error:  # a service that is away is worth a retry instead
            failure = str(error)
    return Trial(holdout.rows, y, classes, mine, None if failure else theirs, failure)


def _problem(prediction: Floats) -> str | None:
    """Say what is wrong with predictions; None when they are all finite."""
    broken = ~np.isfinite(prediction)
    rows = int((broken.any(axis=1) if broken.ndim == 2 else broken).sum())
    return f"predicts NaN or infinity for {rows:,} of {len(prediction):,} rows" if rows else None


def evidence_of(
    spec: Spec, holdout: Holdout, trial: Trial, champion: LoadedModel | None
) -> tuple[Evidence, Floats | None]:
    """Score everything; also return the resampled improvements over the champion (or the baseline)."""
    primary, task, y = spec.primary, spec.task, trial.y
    trivial = baseline_prediction(spec, holdout.training, trial.classes, trial.rows)
    models = [trial.challenger, trivial, *([] if trial.champion is None else [trial.champion])]
    scores = [score(task, y, prediction) for prediction in models]
    drawn = resample(task, primary.metric, y, models, seed=spec.train.seed)

    def against(other: int) -> Interval:
        points = scores[0][primary.metric], scores[other][primary.metric]
        return interval(
            primary.metric, drawn[:, 0], drawn[:, other], points,
            confidence=primary.confidence, rows=trial.rows,
        )  # fmt: skip

    last = len(models) - 1
    evidence = Evidence(
        rows=trial.rows,
        challenger=scores[0],
        baseline=scores[1],
        against_baseline=against(1),
        champion_version=None if champion is None else champion.version,
        champion=None if trial.champion is None else scores[last],
        against_champion=None if trial.champion is None else against(last),
        champion_failure=trial.failure,
        challenger_problem=_problem(trial.challenger),
        slices=tuple(_slices(spec, holdout.frame, trial)),
    )
    return evidence, improvement(primary.metric, drawn[:, 0], drawn[:, last])


def _slices(spec: Spec, frame: pd.DataFrame, trial: Trial) -> Iterable[SliceScore]:
    least: dict[str, int] = {}
    for rule in spec.evaluate.slices:
        least[rule.column] = min(rule.min_rows, least.get(rule.column, rule.min_rows))
    for column, min_rows in least.items():
        if column not in frame or not trial.rows:
            continue
        codes, values = pd.factorize(category_texts(frame[column]), use_na_sentinel=False)
        sizes = np.bincount(codes, minlength=len(values))
        groups = np.split(np.argsort(codes, kind="stable"), np.cumsum(sizes)[:-1])
        small = 0
        for place in np.argsort(-sizes, kind="stable"):
            small += sizes[place] < min_rows
            if small <= _SMALL_SLICES:
                yield _slice(spec, trial, column, values[place], groups[place])


def _slice(spec: Spec, trial: Trial, column: str, value: Any, rows: NDArray[np.intp]) -> SliceScore:
    def of(prediction: Floats) -> float:
        once = np.ones(len(rows), dtype=np.int64)
        return statistic(spec.task, spec.primary.metric, trial.y[rows], prediction[rows])(once)

    return SliceScore(
        column=column,
        value="(missing)" if pd.isna(value) else str(value)[:_LONGEST_VALUE],
        rows=len(rows),
        challenger=of(trial.challenger),
        champion=None if trial.champion is None else of(trial.champion),
    )


def legacy_of(
    spec: Spec,
    store: Store,
    old: tuple[Manifest, Split],
    split: Split,
    challenger: LoadedModel,
    champion: LoadedModel,
) -> Legacy:
    """Score both versions on the champion's old holdout; a failure is part of the result.

    Args:
        spec: Gives the task.
        store: Where the old snapshot is.
        old: Snapshot and split the champion was judged on.
        split: The current split: tells which old rows the challenger may have trained on.
        challenger: The version on trial.
        champion: The version that serves.
    """
    manifest, old_split = old
    wanted = [*columns(spec, challenger, champion), *split.needs]
    try:
        check_cutoff(spec, old_split, champion)
        holdout = load_holdout(spec, store, manifest, old_split, wanted)
        trial = run_trial(spec, holdout, old_split, challenger, champion)
        seen = int((~holdout_mask(holdout.frame, split)).sum())
    except (DataError, ModelError) as error:
        return Legacy(0, 0, {}, {}, str(error))
    if trial.champion is None:
        return Legacy(trial.rows, seen, {}, {}, trial.failure or "the champion gave no answer")
    mine, theirs = (score(spec.task, trial.y, p) for p in (trial.challenger, trial.champion))
    return Legacy(trial.rows, seen, mine, theirs)
