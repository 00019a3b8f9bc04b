from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy import sparse
from sklearn.pipeline import Pipeline

from include.registry.trust import dump_model, load_model
from include.store.features import Features, model_frame
from include.train.pipeline import PREPARE, build_pipeline, needs_of
from tests.unit.train.conftest import make_spec

FEATURES = Features(("a", "b", "empty"), ("region", "rare"))
CLASSIFIERS = [
    "sklearn.linear_model.LogisticRegression",
    "sklearn.linear_model.SGDClassifier",
    "sklearn.linear_model.RidgeClassifier",
    "sklearn.svm.SVC",
    "sklearn.svm.LinearSVC",
    "sklearn.neighbors.KNeighborsClassifier",
    "sklearn.neural_network.MLPClassifier",
    "sklearn.naive_bayes.GaussianNB",
    "sklearn.naive_bayes.MultinomialNB",
    "sklearn.discriminant_analysis.LinearDiscriminantAnalysis",
    "sklearn.tree.DecisionTreeClassifier",
    "sklearn.ensemble.RandomForestClassifier",
    "sklearn.ensemble.ExtraTreesClassifier",
    "sklearn.ensemble.GradientBoostingClassifier",
    "sklearn.ensemble.HistGradientBoostingClassifier",
    "sklearn.ensemble.AdaBoostClassifier",
    "sklearn.ensemble.BaggingClassifier",
    "sklearn.calibration.CalibratedClassifierCV",
]
REGRESSORS = [
    "sklearn.linear_model.LinearRegression",
    "sklearn.linear_model.Ridge",
    "sklearn.linear_model.Lasso",
    "sklearn.linear_model.ElasticNet",
    "sklearn.linear_model.HuberRegressor",
    "sklearn.svm.SVR",
    "sklearn.neighbors.KNeighborsRegressor",
    "sklearn.neural_network.MLPRegressor",
    "sklearn.ensemble.RandomForestRegressor",
    "sklearn.ensemble.GradientBoostingRegressor",
    "sklearn.ensemble.HistGradientBoostingRegressor",
]
SMALLER: dict[str, dict[str, Any]] = {
    "MLPClassifier": {"max_iter": 20, "hidden_layer_sizes": [8]},
    "MLPRegressor": {"max_iter": 20, "hidden_layer_sizes": [8]},
    "RandomForestClassifier": {"n_estimators": 10},
    "ExtraTreesClassifier": {"n_estimators": 10},
    "GradientBoostingClassifier": {"n_estimators": 10},
    "GradientBoostingRegressor": {"n_estimators": 10},
    "RandomForestRegressor": {"n_estimators": 10},
    "AdaBoostClassifier": {"n_estimators": 10},
    "HistGradientBoostingClassifier": {"max_iter": 10},
    "HistGradientBoostingRegressor": {"max_iter": 10},
}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def build(path: str, frame: pd.DataFrame, task: str) -> Pipeline:
    inputs = model_frame(frame, FEATURES)
    params = SMALLER.get(path.rpartition(".")[2], {})
    return build_pipeline(make_spec({"task": task}), FEATURES, path, params, inputs=inputs)


def strange(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows as serving may get them: nothing known, categories never seen, the empty column filled."""
    rows = [
        dict.fromkeys(FEATURES.names),
        {"a": 1e6, "b": -1e6, "empty": 5.0, "region": "moon", "rare": ""},
        {"a": 0.0, "b": None, "empty": None, "region": "north", "rare": None},
    ]
    return model_frame({n: [r[n] for r in rows] for n in FEATURES.names}, FEATURES)


@pytest.mark.parametrize("path", [*CLASSIFIERS, *REGRESSORS])
def test_every_common_estimator_learns_predicts_and_survives_saving(
    path: str, frame: pd.DataFrame, tmp_path: Path
) -> None:
    task = "binary" if path in CLASSIFIERS else "regression"
    pipeline = build(path, frame, task)
    inputs = model_frame(frame, FEATURES)
    pipeline.fit(inputs, frame["y"].to_numpy())
    digest = dump_model(pipeline, tmp_path / "model.skops")
    loaded = load_model(tmp_path / "model.skops", digest)
    method = "predict_proba" if task == "binary" else "predict"
    for rows in (inputs, strange(frame), inputs.iloc[:1]):
        predicted = getattr(pipeline, method)(rows)
        assert np.isfinite(predicted).all()
        np.testing.assert_array_equal(predicted, getattr(loaded, method)(rows))


def prepared(path: str, frame: pd.DataFrame, task: str = "binary") -> tuple[Any, Any]:
    prepare = build(path, frame, task).named_steps[PREPARE]
    return prepare.fit_transform(model_frame(frame, FEATURES)), prepare


def test_gradient_boosting_gets_raw_numbers_and_codes(frame: pd.DataFrame) -> None:
    found, prepare = prepared("sklearn.ensemble.HistGradientBoostingClassifier", frame)
    assert found.shape == (len(frame), 4)  # the column without any value is left out
    np.testing.assert_array_equal(found[:, 0], frame["a"])
    assert set(found[frame["region"].isna(), 2]) == {3.0}  # missing is a category after the three
    assert np.isnan(prepare.transform(strange(frame))[1, 2])  # never seen is unknown


def test_trees_without_missing_values_get_a_code_for_them(frame: pd.DataFrame) -> None:
    found, prepare = prepared("sklearn.ensemble.GradientBoostingClassifier", frame)
    assert np.isfinite(found).all()
    assert set(found[frame["region"].isna(), 3]) == {3.0}  # a, b, whether a is missing, region
    np.testing.assert_array_equal(found[:, 2], frame["a"].isna())
    assert prepare.transform(strange(frame))[1, 3] == -1.0


def test_linear_models_get_scaled_numbers_and_bounded_columns(frame: pd.DataFrame) -> None:
    frame["rare"] = [f"c{n % 120}" if n < 360 else f"once{n}" for n in range(len(frame))]
    frame["region"] = frame["region"].fillna("north")
    found, prepare = prepared("sklearn.discriminant_analysis.LinearDiscriminantAnalysis", frame)
    assert isinstance(found, np.ndarray)
    assert abs(found[:, 1].mean()) < 1e-9
    assert found[:, 1].std() == pytest.approx(1)
    assert set(found[:, 2]) == {0.0, 1.0}  # whether `a` was missing
    assert found.shape[1] <= 3 + 3 + 50
    unseen = prepare.transform(strange(frame))[1, 3:]
    assert unseen.sum() == 1  # region has no rare category to share with, `rare` has


def test_wide_categories_stay_sparse_where_the_estimator_allows(frame: pd.DataFrame) -> None:
    frame["rare"] = [f"c{n % 40}" for n in range(len(frame))]
    found, _ = prepared("sklearn.linear_model.LogisticRegression", frame)
    assert sparse.issparse(found)
    dense, _ = prepared("sklearn.naive_bayes.GaussianNB", frame)
    np.testing.assert_array_equal(found.toarray(), dense)


def test_positive_only_estimators_get_no_negative_number(frame: pd.DataFrame) -> None:
    found, prepare = prepared("sklearn.naive_bayes.MultinomialNB", frame)
    for matrix in (found, prepare.transform(strange(frame))):
        values = matrix.toarray() if sparse.issparse(matrix) else matrix
        assert (values >= 0).all()


@pytest.mark.parametrize("path", ["HistGradientBoostingClassifier", "GradientBoostingClassifier"])
def test_only_crowded_columns_pay_for_a_bound_on_codes(path: str, frame: pd.DataFrame) -> None:
    frame = pd.concat([frame] * -(-600 // len(frame)), ignore_index=True)
    frame["rare"] = [f"c{n % 300}" for n in range(len(frame))]
    found, prepare = prepared(f"sklearn.ensemble.{path}", frame)
    bounds = {
        name: step.max_categories for name, step, _ in prepare.transformers_ if "c" in name[:2]
    }
    assert bounds == {"categorical": None, "crowded": 254}
    assert len(np.unique(found[:, -1])) == 254
    free = build_pipeline(
        make_spec({"task": "binary"}), FEATURES, f"sklearn.ensemble.{path}", {}
    ).named_steps[PREPARE]  # nothing known of the rows: every column is bounded
    bounded = free.fit_transform(model_frame(frame.assign(empty=1.0), FEATURES))
    np.testing.assert_array_equal(found[:, -2:], bounded[:, -2:])


def test_needs_follow_the_arguments_and_not_the_name() -> None:
    from sklearn.ensemble import BaggingClassifier, HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    assert needs_of(HistGradientBoostingClassifier()).native_missing
    assert needs_of(BaggingClassifier()).native_missing
    assert not needs_of(BaggingClassifier(LogisticRegression())).trees


def test_global_output_setting_changes_nothing(frame: pd.DataFrame) -> None:
    with sklearn.config_context(transform_output="pandas"):
        found, _ = prepared("sklearn.ensemble.HistGradientBoostingClassifier", frame)
    assert isinstance(found, np.ndarray)


def test_columns_are_found_by_name(frame: pd.DataFrame) -> None:
    pipeline = build("sklearn.ensemble.HistGradientBoostingClassifier", frame, "binary")
    inputs = model_frame(frame, FEATURES)
    pipeline.fit(inputs, frame["y"])
    np.testing.assert_array_equal(
        pipeline.predict_proba(inputs), pipeline.predict_proba(inputs[inputs.columns[::-1]])
    )
