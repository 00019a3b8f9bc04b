"""xgboost and lightgbm, where they are installed: the same answers from ONNX, or a reason why not.

How to run these without installing the two for good stands in `docs/engines.md`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from include.engines.convert import convert
from include.engines.parity import derived
from include.engines.pipeline import PipelinePredictor
from include.registry.trust import dump_model, load_model
from tests.unit.engines.world import FEATURES, TASKS, fit, opened, plain, rows, target

SMALL = {"n_estimators": 40, "random_state": 0, "n_jobs": 1}
QUIET = {**SMALL, "verbose": -1}

pytestmark = pytest.mark.filterwarnings("ignore")


def made(library: str, task: str, **params: Any) -> Any:
    """Return an unfitted estimator of a library, or skip where there is none."""
    module = pytest.importorskip(library, reason=f"{library} is not installed: see docs/engines.md")
    kind = "Regressor" if task == "regression" else "Classifier"
    if library == "xgboost":
        return getattr(module, f"XGB{kind}")(**{**SMALL, **params})
    return getattr(module, f"LGBM{kind}")(**{**QUIET, **params})


def converted(pipeline: Any, task: str) -> Any:
    return convert(pipeline, FEATURES, task, rows(300, seed=1), budget=1e-5)


def _microseconds(ask: Callable[[], Any], times: int) -> float:
    ask()
    started = time.thread_time()
    for _ in range(times):
        ask()
    return (time.thread_time() - started) / times * 1e6


@pytest.mark.parametrize("task", TASKS)
# xgboost adds in float32 and ONNX in float64; lightgbm adds in float64 itself.
@pytest.mark.parametrize(("library", "close"), [("xgboost", 2e-6), ("lightgbm", 1e-12)])
def test_it_answers_as_the_library(library: str, close: float, task: str) -> None:
    pipeline = fit(made(library, task), task)
    conversion = converted(pipeline, task)
    engine, trusted = opened(conversion), PipelinePredictor(pipeline, FEATURES, task)
    assert conversion.engine["max_difference"] < close
    asked = plain(derived(rows(100, seed=2), FEATURES))
    found, expected = engine.answer(asked), trusted.answer(asked)
    assert found.predict.tolist() == pytest.approx(expected.predict.tolist(), rel=1e-6)
    if expected.probability is not None:
        np.testing.assert_allclose(found.probability, expected.probability, rtol=0, atol=close)
    alone = {feature: values[:1] for feature, values in asked.items()}
    print(
        f"| {task} | {library} | {conversion.engine['max_difference']:.1e} "
        f"| {_microseconds(lambda: engine.answer(alone), 300):.0f} "
        f"| {_microseconds(lambda: trusted.answer(alone), 10):.0f} |"
    )


@pytest.mark.parametrize(
    ("library", "task", "params"),
    [
        ("xgboost", "regression", {"objective": "reg:absoluteerror"}),
        ("xgboost", "binary", {"num_parallel_tree": 3, "n_estimators": 5, "subsample": 0.5}),
        ("xgboost", "multiclass", {"base_score": 0.3, "grow_policy": "lossguide", "max_leaves": 9}),
        ("xgboost", "binary", {"n_estimators": 3, "gamma": 1e9}),  # never splits
        ("lightgbm", "regression", {"objective": "regression_l1"}),
        ("lightgbm", "binary", {"sigmoid": 2.0}),
        ("lightgbm", "multiclass", {"use_missing": False}),
        ("lightgbm", "binary", {"min_child_samples": 10_000}),  # never splits
    ],
)
def test_what_changes_how_trees_are_read(library: str, task: str, params: Any) -> None:
    conversion = converted(fit(made(library, task, **params), task), task)
    assert conversion.engine["kind"] == "onnx", conversion.engine
    assert conversion.engine["max_difference"] < 2e-6


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_only_the_trees_up_to_the_best_one_count(library: str) -> None:
    estimator = made(library, "binary", learning_rate=0.9, n_estimators=60)
    if library == "xgboost":
        estimator.set_params(early_stopping_rounds=3)
    else:
        estimator.set_params(early_stopping_round=3)
    pipeline = fit(made(library, "binary"), "binary")
    prepare = pipeline.steps[0][1]
    train, held = (rows(count, seed) for count, seed in ((400, 3), (200, 4)))
    estimator.fit(
        prepare.transform(train),
        target(train, "binary"),
        eval_set=[(prepare.transform(held), target(held, "binary"))],
    )
    pipeline.steps[1] = ("estimator", estimator)
    assert converted(pipeline, "binary").engine["kind"] == "onnx"


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_a_stored_model_converts_to_the_same_graph(library: str, tmp_path: Path) -> None:
    pipeline = fit(made(library, "binary"), "binary")
    again = load_model(tmp_path / "m", dump_model(pipeline, tmp_path / "m"))
    assert converted(again, "binary") == converted(pipeline, "binary")


@pytest.mark.parametrize(
    ("library", "task", "params", "reason"),
    [
        ("xgboost", "binary", {"booster": "gblinear"}, "xgboost's booster gblinear"),
        ("xgboost", "binary", {"booster": "dart"}, "xgboost's booster dart"),
        ("xgboost", "regression", {"objective": "reg:gamma"}, "xgboost's objective reg:gamma"),
        ("xgboost", "binary", {"missing": 0.0}, "xgboost with another missing value than NaN"),
        ("lightgbm", "regression", {"reg_sqrt": True}, "lightgbm's objective regression sqrt"),
        ("lightgbm", "multiclass", {"objective": "ova"}, "lightgbm's objective multiclassova"),
        ("lightgbm", "regression", {"linear_tree": True}, "trees with a linear model"),
        ("lightgbm", "binary", {"zero_as_missing": True}, "trees that take zero for missing"),
        ("lightgbm", "binary", {"categorical_feature": [4, 5]}, "sets of categories"),
        (
            "lightgbm",
            "binary",
            {"boosting_type": "rf", "subsample": 0.5, "subsample_freq": 1},
            "lightgbm's random forests",
        ),
    ],
)
def test_what_is_not_understood_stays_with_a_reason(
    library: str, task: str, params: Any, reason: str
) -> None:
    conversion = converted(fit(made(library, task, **params), task), task)
    assert conversion.engine["kind"] == "sklearn"
    assert reason in conversion.engine["reason"]
