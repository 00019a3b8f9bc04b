"""Every family the documentation names, on the three tasks: the same answers, or a reason why not."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import ElasticNet, LogisticRegression, Ridge, RidgeClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from include.engines import convert as module
from include.engines import size
from include.engines.compose import compose
from include.engines.convert import convert
from include.engines.export import feeds
from include.engines.parity import columns_of, compare, derived
from include.engines.pipeline import PipelinePredictor
from include.engines.predictor import Answer
from include.engines.session import ONNX_FILE, open_onnx, start_session
from include.spec.schema import _default_candidates
from include.train.pipeline import assemble
from tests.unit.engines.world import FEATURES, TASKS, fit, opened, plain, rows

BUDGET = 1e-5


def calibrated(estimator: Any) -> Any:
    return CalibratedClassifierCV(estimator, cv=3, ensemble=False)


CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "LogisticRegression": lambda: LogisticRegression(max_iter=500),
    "HistGradientBoosting": lambda: HistGradientBoostingClassifier(max_iter=40),
    "RandomForest": lambda: RandomForestClassifier(15, random_state=0),
    "ExtraTrees": lambda: ExtraTreesClassifier(15, random_state=0),
    "GradientBoosting": lambda: GradientBoostingClassifier(n_estimators=20, random_state=0),
    "DecisionTree": lambda: DecisionTreeClassifier(max_depth=5, random_state=0),
    "stump": lambda: DecisionTreeClassifier(min_samples_leaf=1000),
    "MLP": lambda: MLPClassifier((8,), max_iter=20, random_state=0),
    "calibrated LinearSVC": lambda: calibrated(LinearSVC()),
    "calibrated RidgeClassifier": lambda: calibrated(RidgeClassifier()),
}
REGRESSORS: dict[str, Callable[[], Any]] = {
    "Ridge": Ridge,
    "ElasticNet": ElasticNet,
    "HistGradientBoosting": lambda: HistGradientBoostingRegressor(max_iter=40),
    "RandomForest": lambda: RandomForestRegressor(15, random_state=0),
    "ExtraTrees": lambda: ExtraTreesRegressor(15, random_state=0),
    "GradientBoosting": lambda: GradientBoostingRegressor(n_estimators=20, random_state=0),
    "DecisionTree": lambda: DecisionTreeRegressor(max_depth=6, random_state=0),
}
CASES = [(task, name, make) for task in TASKS[:2] for name, make in CLASSIFIERS.items()]
CASES += [("regression", name, make) for name, make in REGRESSORS.items()]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("task", "name", "make"), CASES, ids=[f"{t}-{n}" for t, n, _ in CASES])
def test_a_family_answers_as_scikit_learn(task: str, name: str, make: Callable[[], Any]) -> None:
    pipeline = fit(make(), task)
    frame = rows(300, seed=1)
    conversion = convert(pipeline, FEATURES, task, frame, budget=BUDGET)
    engine, trusted = opened(conversion), PipelinePredictor(pipeline, FEATURES, task)
    assert conversion.engine["max_difference"] < 1e-12
    assert conversion.engine["rows"] > 900
    # Rows nobody converted on, as requests bring them.
    fresh = derived(rows(100, seed=2), FEATURES)
    asked = plain(fresh)
    found, expected = engine.answer(asked), trusted.answer(asked)
    assert found.predict.tolist() == pytest.approx(expected.predict.tolist(), rel=1e-9)
    if expected.probability is not None:
        np.testing.assert_allclose(found.probability, expected.probability, rtol=0, atol=1e-12)
    alone = {feature: values[:1] for feature, values in asked.items()}
    print(
        f"| {task} | {name} | {conversion.engine['max_difference']:.1e} "
        f"| {_microseconds(engine, alone, 300):.0f} | {_microseconds(trusted, alone, 10):.0f} |"
    )


def _microseconds(engine: Any, columns: Any, times: int) -> float:
    """Return the processor's time of one call: the clock's also counts who else is on the machine."""
    engine.answer(columns)
    started = time.thread_time()
    for _ in range(times):
        engine.answer(columns)
    return (time.thread_time() - started) / times * 1e6


def test_every_default_candidate_is_a_family_tested_here() -> None:
    for task in TASKS:
        for candidate in _default_candidates(task):
            name = candidate.estimator.rpartition(".")[2]
            known = CLASSIFIERS if task != "regression" else REGRESSORS
            assert any(type(make()).__name__ == name for make in known.values()), name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("estimator", "task", "reason"),
    [
        (SVR(), "regression", "cannot convert to a graph ONNX Runtime opens"),
        # skl2onnx 1.20 converts it to another model: exactly what the comparison is for.
        (LinearDiscriminantAnalysis(), "binary", r"ONNX answers otherwise: a difference of 0\.\d+"),
        (RidgeClassifier(), "binary", "cannot convert a classifier without probabilities"),
        # Its label is that of its scores, its probabilities are fitted beside: they may disagree on any row.
        (SVC(probability=True), "binary", "a classifier whose label need not be its most probable"),
    ],
)
def test_what_cannot_be_converted_stays_with_a_reason(
    estimator: Any, task: str, reason: str
) -> None:
    conversion = convert(fit(estimator, task), FEATURES, task, rows(100, seed=1), budget=BUDGET)
    assert conversion.engine["kind"] == "sklearn"
    assert conversion.files == {}
    assert re.search(reason, conversion.engine["reason"]), conversion.engine["reason"]
    assert conversion.tags() == {
        "evergreen.engine": "sklearn",
        "evergreen.parity": conversion.engine["reason"],
    }


@pytest.mark.parametrize("share", [2e-5, 0.1, 4.0])
def test_a_value_is_wrong_however_far_out_the_derived_rows_lie(share: float) -> None:
    pipeline = fit(Ridge(), "regression")
    trusted, frame = PipelinePredictor(pipeline, FEATURES, "regression"), rows(200, seed=1)
    spread = trusted.predict(columns_of(frame)).std()

    class Off(PipelinePredictor):
        def answer(self, columns: Any) -> Answer:
            return Answer(super().answer(columns).predict + share * spread, None)

    found = compare(trusted, Off(pipeline, FEATURES, "regression"), frame, BUDGET)
    assert found.difference == pytest.approx(share, rel=1e-3)
    assert found.problem(BUDGET)
    assert compare(trusted, trusted, frame, BUDGET).problem(BUDGET) is None


def balanced() -> tuple[Any, Any]:
    """Return a pipeline that finds two classes equally probable, and the rows it does that for."""
    frame = rows(80, seed=0)
    estimator = GradientBoostingClassifier(n_estimators=1, min_samples_leaf=80)
    return assemble(FEATURES, estimator, frame).fit(frame, [0, 1] * 40), frame


def test_a_tie_goes_to_the_class_scikit_learn_names(tmp_path: Path) -> None:
    pipeline, frame = balanced()
    conversion = convert(pipeline, FEATURES, "binary", frame, budget=BUDGET)
    engine, asked = opened(conversion), columns_of(frame)
    assert conversion.engine["ties"] == "last"
    assert set(pipeline.predict(frame)) == {1}
    for predictor in (engine, PipelinePredictor(pipeline, FEATURES, "binary")):
        found = predictor.answer(asked)
        assert found.probability is not None
        assert set(found.probability.ravel()) == {0.5}
        assert set(found.predict) == {1}
    for name, content in conversion.files.items():
        (tmp_path / name).write_bytes(content)
    assert set(open_onnx(tmp_path, conversion.engine).answer(asked).predict) == {1}
    model = compose(engine.preparation, conversion.files[ONNX_FILE], ["no", "yes"], engine.ties)
    session = start_session(model.SerializeToString())
    assert set(session.run(["predict"], feeds(asked, engine))[0]) == {"yes"}


def test_a_tie_decided_otherwise_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ties_of", lambda _: "first")
    monkeypatch.setattr("include.engines.pipeline.ties_of", lambda _: "first")
    pipeline, frame = balanced()
    found = convert(pipeline, FEATURES, "binary", frame, budget=BUDGET)
    assert "other labels" in found.engine["reason"]


def nested(forest: Any) -> Any:
    return CalibratedClassifierCV(forest, cv=2)


@pytest.mark.parametrize(
    ("make", "task"),
    [
        (lambda: RandomForestClassifier(4, random_state=0), "multiclass"),
        (lambda: HistGradientBoostingClassifier(max_iter=4), "multiclass"),
        (lambda: GradientBoostingClassifier(n_estimators=4), "multiclass"),
        (lambda: nested(RandomForestClassifier(4, random_state=0)), "binary"),
        (lambda: RandomForestRegressor(4, random_state=0), "regression"),
    ],
)
def test_trees_beyond_the_limit_are_counted_and_not_built(
    make: Callable[[], Any], task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, frame = fit(make(), task), rows(50, seed=1)
    conversion = convert(pipeline, FEATURES, task, frame, budget=BUDGET)
    graph = onnx.load_model_from_string(conversion.files[ONNX_FILE])
    built = sum(
        len(attribute.ints)
        for node in graph.graph.node
        for attribute in node.attribute
        if attribute.name in ("nodes_featureids", "leaf_targetids")
    )
    monkeypatch.setattr(size, "MOST_NODES", built // 2)
    monkeypatch.setattr(module, "estimator_graph", lambda *_: pytest.fail("it was built"))
    found = convert(pipeline, FEATURES, task, frame, budget=BUDGET)
    counted = re.search(r"would be ([\d,]+) nodes, at most", found.engine["reason"])
    assert counted, found.engine["reason"]
    assert int(counted[1].replace(",", "")) == pytest.approx(built, rel=0.05)


def test_a_failure_inside_is_a_reason_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("out of\nluck")

    monkeypatch.setattr(module, "estimator_graph", broken)
    found = convert(fit(Ridge(), "regression"), FEATURES, "regression", rows(50, 1), budget=BUDGET)
    assert found.engine["reason"] == "conversion failed with RuntimeError: out of luck"


def test_without_held_out_rows_nothing_is_proven() -> None:
    found = convert(fit(Ridge(), "regression"), FEATURES, "regression", rows(0, 1), budget=BUDGET)
    assert found.engine["reason"] == "cannot convert without held-out rows to compare on"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: p + 2e-5, "a difference of 2e-05"),
        (lambda p: p * np.nan, "a difference of inf"),
        (lambda p: p[:, ::-1], "a difference of"),
    ],
)
def test_a_difference_beyond_the_budget_is_seen(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any], reason: str
) -> None:
    real = module.OnnxPredictor.answer

    def other(self: Any, columns: Any) -> Answer:
        answer = real(self, columns)
        assert answer.probability is not None
        return Answer(answer.predict, change(answer.probability))

    monkeypatch.setattr(module.OnnxPredictor, "answer", other)
    pipeline = fit(LogisticRegression(max_iter=500), "binary")
    found = convert(pipeline, FEATURES, "binary", rows(100, seed=1), budget=BUDGET)
    assert found.engine["kind"] == "sklearn"
    assert reason in found.engine["reason"]


def test_another_label_is_seen_unless_two_classes_are_as_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = module.OnnxPredictor.answer

    def other(self: Any, columns: Any) -> Answer:
        answer = real(self, columns)
        return Answer(1 - answer.predict, answer.probability)

    monkeypatch.setattr(module.OnnxPredictor, "answer", other)
    pipeline = fit(LogisticRegression(max_iter=500), "binary")
    found = convert(pipeline, FEATURES, "binary", rows(100, seed=1), budget=BUDGET)
    assert "other labels" in found.engine["reason"]


def test_the_same_model_gives_the_same_files() -> None:
    pipeline, frame = fit(HistGradientBoostingClassifier(max_iter=5), "binary"), rows(50, seed=1)
    first, second = (convert(pipeline, FEATURES, "binary", frame, budget=BUDGET) for _ in "ab")
    assert first == second
