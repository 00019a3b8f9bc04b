from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import Pipeline

from include.errors import ModelError
from include.serving.engine import Engine, build_engine
from include.serving.rejection import RequestError
from include.store.features import model_frame
from tests.unit.serving.registry import CHURN, COLOUR, EXAMPLE, FEATURES, PRICE, fit, loaded, rows


def columns(count: int = 40) -> dict[str, Any]:
    return rows(count, seed=5)


def with_last(pipeline: Pipeline, last: Any) -> Pipeline:
    """The same preparation in front of another estimator, fitted on the same codes."""
    data = model_frame(rows(), FEATURES)
    return Pipeline([pipeline.steps[0], ("estimator", last)]).fit(data, pipeline.predict(data))


def test_labels_are_the_original_values_and_agree_with_the_pipeline(
    pipelines: dict[str, Any],
) -> None:
    for name, meta in (("churn", CHURN), ("colour", COLOUR)):
        engine = build_engine(loaded(pipelines[name], meta))
        frame = model_frame(columns(), FEATURES)
        answer = engine.predict(columns())
        expected = [meta["classes"][code] for code in pipelines[name].predict(frame)]
        assert answer.predict == expected
        assert len(set(expected)) == len(meta["classes"])
        np.testing.assert_array_equal(answer.probability, pipelines[name].predict_proba(frame))


def test_regression_answers_numbers(pipelines: dict[str, Any]) -> None:
    engine = build_engine(loaded(pipelines["price"], PRICE))
    answer = engine.predict(columns())
    expected = pipelines["price"].predict(model_frame(columns(), FEATURES))
    assert answer.predict == expected.tolist()
    assert answer.probability is None
    assert engine.outputs == ("predict",)


def test_an_estimator_that_disagrees_with_its_probabilities_is_asked_for_its_labels(
    pipelines: dict[str, Any],
) -> None:
    strict = FixedThresholdClassifier(LogisticRegression(max_iter=500), threshold=0.97)
    engine = build_engine(loaded(with_last(pipelines["churn"], strict)))
    answer = engine.predict(columns(200))
    assert answer.probability is not None
    by_share = ["yes" if share > 0.5 else "no" for share in answer.probability[:, 1]]
    assert answer.predict != by_share
    assert answer.predict == ["yes" if s >= 0.97 else "no" for s in answer.probability[:, 1]]


def test_an_estimator_without_probabilities_gives_labels_only(pipelines: dict[str, Any]) -> None:
    engine = build_engine(loaded(with_last(pipelines["churn"], RidgeClassifier())))
    assert engine.outputs == ("predict",)
    assert set(engine.predict(columns(100)).predict) == {"no", "yes"}


def test_a_class_the_estimator_never_saw_gets_probability_zero(pipelines: dict[str, Any]) -> None:
    meta = COLOUR | {"classes": ["never", "no", "yes"]}
    pipeline = pipelines["churn"]
    frame = model_frame(rows(), FEATURES)
    shifted = Pipeline([pipeline.steps[0], ("estimator", LogisticRegression(max_iter=500))])
    shifted.fit(frame, pipeline.predict(frame) + 1)
    answer = build_engine(loaded(shifted, meta)).predict(columns())
    assert answer.probability is not None
    assert answer.probability.shape == (40, 3)
    assert (answer.probability[:, 0] == 0).all()
    assert set(answer.predict) == {"no", "yes"}


@pytest.mark.parametrize(
    ("classes", "datatype"),
    [
        (["a", "b"], "BYTES"),
        ([0, 1], "INT64"),
        ([False, True], "BOOL"),
        ([0.5, 1.5], "FP64"),
        ([1, 2.5], "FP64"),
        ([0, "x"], "BYTES"),
    ],
)
def test_the_label_datatype_follows_the_classes(
    pipelines: dict[str, Any], classes: list[Any], datatype: str
) -> None:
    engine = build_engine(loaded(pipelines["churn"], CHURN | {"classes": classes}))
    tensor = engine.tensors(engine.predict(columns()))[0]
    assert tensor["datatype"] == engine.output_metadata()[0]["datatype"] == datatype
    wanted = {str(c) for c in classes} if datatype == "BYTES" else set(classes)
    assert set(tensor["data"]) == wanted


def test_valid_values_without_a_finite_answer_are_the_versions_fault() -> None:
    linear = with_last(fit(CHURN), LinearRegression())
    linear.steps[-1][1].coef_[:] = 1e300
    engine = Engine(
        loaded(linear, PRICE), build_engine(loaded(fit(PRICE), PRICE)).schema, (), "regression"
    )
    extreme = columns(3) | {"income": np.array([0.0, 1e300, 0.0])}
    extreme["age"][:] = 0.0
    with pytest.raises(RequestError, match=r"finite prediction, got none for row 1") as caught:
        engine.predict(extreme)
    assert caught.value.status == 422


@pytest.mark.parametrize(
    ("meta", "example", "message"),
    [
        ({"task": "binary"}, EXAMPLE, r"must carry features, classes and task, got KeyError"),
        (CHURN | {"classes": None}, EXAMPLE, r"must carry features, classes and task"),
        (CHURN, {}, r"an input example of every feature, got none of age, income"),
        (CHURN, {name: [] for name in EXAMPLE}, r"example of every feature, got none of its rows"),
        (CHURN, EXAMPLE | {"age": ["x"] * 3}, r"must answer its own input example, got .*'age'"),
        (CHURN | {"classes": ["one"]}, EXAMPLE, r"must answer its own input example, got"),
    ],
)
def test_a_model_that_cannot_answer_is_refused(
    pipelines: dict[str, Any], meta: Any, example: Any, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        build_engine(loaded(pipelines["churn"], meta, example))


def test_a_pipeline_that_fails_on_its_example_is_refused(pipelines: dict[str, Any]) -> None:
    unfitted = Pipeline([pipelines["churn"].steps[0], ("estimator", LogisticRegression())])
    with pytest.raises(ModelError, match=r"must answer its own input example, got .*not fitted"):
        build_engine(loaded(unfitted))


def test_metadata_describes_every_column(engine: Engine) -> None:
    inputs = {item["name"]: item["datatype"] for item in engine.input_metadata()}
    assert inputs == {
        "age": "FP64",
        "income": "FP64",
        "member": "BOOL",
        "region": "BYTES",
        "plan": "INT64",
    }
    assert engine.output_metadata()[1]["shape"] == [-1, 2]
    assert replace(engine, task="regression").output_metadata()[0]["datatype"] == "FP64"
