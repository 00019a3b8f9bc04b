"""The final fit: one pipeline on everything but the holdout, written to a file that is known to load.

Owns the model file's making and its self-check.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from include.errors import ModelError
from include.registry.trust import dump_model, load_model
from include.spec.schema import Spec
from include.store.features import Features
from include.store.files import Store
from include.store.snapshots import Manifest
from include.store.split import Split
from include.train.candidates import candidate_key, make_estimator, spec_file
from include.train.pipeline import assemble
from include.train.rows import TrainingRows, load_rows

MODEL_FILE = "model.skops"
_CHECKED_ROWS = 50
_UNSEEN = "\u2014 never seen \u2014"


@dataclass(frozen=True)
class FitResult:
    """A fitted model on disk.

    Attributes:
        model_path: The skops file.
        sha256: Its digest.
        features: Raw columns the pipeline takes.
        classes: Class of each code as JSON values; empty for regression.
        rows: Number of rows it was fitted on.
        cutoff: Newest time it may have seen, as ISO text; None without time.
        seconds: Time the fit took, without reading the data.
    """

    model_path: Path
    sha256: str
    features: Features
    classes: list[Any]
    rows: int
    cutoff: str | None
    seconds: float


def fit(
    spec: Spec,
    store: Store,
    manifest: Manifest,
    split: Split,
    candidate: int,
    params: Mapping[str, Any],
    out: Path,
) -> FitResult:
    """Fit a candidate on everything but the holdout and save it as `out/model.skops`.

    The file appears only after it was read back and gave the same predictions.

    Args:
        spec: The model's spec.
        store: Where the snapshot is.
        manifest: The snapshot.
        split: Which rows are the holdout.
        candidate: Position of the candidate in the spec.
        params: The searched arguments, on top of the candidate's fixed ones.
        out: Folder for the file; made when missing.

    Raises:
        ModelError: The candidate is wrong, cannot be fitted, or cannot be saved and read back unchanged.
        DataError: The training part cannot be learnt from.
    """
    where = f"{spec_file(spec)}: {candidate_key(candidate)}"
    estimator = make_estimator(spec, spec.candidates[candidate], params)
    with threadpool_limits(1):
        rows = load_rows(spec, store, manifest, split)
        pipeline = assemble(rows.features, estimator, rows.inputs)
        begun = time.perf_counter()
        try:
            with warnings.catch_warnings():
                # The search said so already; the rest of scikit-learn's remarks may be news.
                warnings.simplefilter("ignore", ConvergenceWarning)
                pipeline.fit(rows.inputs, rows.target)
        except Exception as error:  # an estimator may fail in any way
            text = " ".join(str(error).split())[:300].rstrip(".")
            raise ModelError(
                where,
                f"must be able to learn from the data, got {type(error).__name__}: {text}",
                "Correct the arguments or the data.",
            ) from error
        seconds = time.perf_counter() - begun
        path, sha256 = _save(pipeline, rows, out, where)
    return FitResult(
        model_path=path,
        sha256=sha256,
        features=rows.features,
        classes=rows.classes,
        rows=len(rows.target),
        cutoff=split.cutoff,
        seconds=seconds,
    )


def _save(pipeline: Any, rows: TrainingRows, out: Path, where: str) -> tuple[Path, str]:
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".fit-") as folder:
        draft = Path(folder) / MODEL_FILE
        sha256 = dump_model(pipeline, draft)
        examples = _examples(rows)
        before, after = _predict(pipeline, examples), _predict(load_model(draft, sha256), examples)
        if not np.array_equal(before, after, equal_nan=True):
            raise ModelError(
                where,
                f"must predict the same after saving, got {int((before != after).sum())} other numbers in "
                f"{before.size}",
                "Choose an estimator that skops saves completely.",
            )
        path = out / MODEL_FILE
        draft.replace(path)
    return path, sha256


def _examples(rows: TrainingRows) -> pd.DataFrame:
    """Return a few real rows, one without any value and one with categories never seen."""
    some = rows.inputs.iloc[:_CHECKED_ROWS]
    numbers = dict.fromkeys(rows.features.numeric, np.nan)
    strange = [
        {**numbers, **dict.fromkeys(rows.features.categorical, text)} for text in (None, _UNSEEN)
    ]
    odd = pd.DataFrame(strange, columns=some.columns)
    odd = odd.astype(dict.fromkeys(rows.features.categorical, object))
    return pd.concat([some, odd.astype(some.dtypes.to_dict())], ignore_index=True)


def _predict(pipeline: Any, inputs: pd.DataFrame) -> Any:
    act = pipeline.predict_proba if hasattr(pipeline, "predict_proba") else pipeline.predict
    return np.asarray(act(inputs), dtype=float)
