import hashlib
import importlib
import zipfile

import numpy as np
import pytest
import skops.io
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier, TweedieRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    QuantileTransformer,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from include.errors import ModelError
from include.registry.trust import TRUSTED_TYPES, dump_model, load_model, read_types, untrusted

X, Y = make_classification(120, 5, random_state=0)
OPTIONAL = ("xgboost.", "lightgbm.")
FEW = {"n_estimators": 4}

ORDINARY = [
    LogisticRegression(),
    Ridge(),
    SGDClassifier(),
    TweedieRegressor(power=0),
    DecisionTreeClassifier(),
    RandomForestClassifier(**FEW),
    RandomForestRegressor(**FEW),
    ExtraTreesClassifier(**FEW),
    GradientBoostingClassifier(**FEW),
    HistGradientBoostingClassifier(max_iter=4),
    HistGradientBoostingRegressor(max_iter=4, loss="quantile", quantile=0.5),
    AdaBoostClassifier(**FEW),
    BaggingClassifier(**FEW),
    KNeighborsClassifier(),
    KNeighborsClassifier(metric="manhattan", algorithm="ball_tree"),
    MLPClassifier((3,), max_iter=300, tol=0.1),
    GaussianNB(),
    SVC(),
    GaussianProcessClassifier(),
    CalibratedClassifierCV(LogisticRegression(), cv=2),
    CalibratedClassifierCV(RandomForestClassifier(**FEW), cv=2, method="isotonic"),
    CalibratedClassifierCV(LogisticRegression(), cv=2, method="temperature"),
    GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2),
    VotingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier())]),
    StackingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier())], cv=2),
    make_pipeline(SelectKBest(f_classif, k=2), GaussianNB()),
    make_pipeline(KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"), Ridge()),
    make_pipeline(SplineTransformer(), Ridge()),
    make_pipeline(PowerTransformer(), QuantileTransformer(n_quantiles=10), Ridge()),
    make_pipeline(FunctionTransformer(np.abs), Ridge()),
    make_pipeline(KNNImputer(add_indicator=True), Ridge()),
    make_pipeline(TargetEncoder(cv=2), LogisticRegression()),
    make_pipeline(
        ColumnTransformer(
            [
                ("n", make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), [0, 1]),
                ("c", make_pipeline(SimpleImputer(), OneHotEncoder(max_categories=4)), [2]),
                ("o", OrdinalEncoder(), [3]),
            ],
            remainder="drop",
        ),
        HistGradientBoostingClassifier(max_iter=4),
    ),
]


class Homemade(ClassifierMixin, BaseEstimator):
    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self


@pytest.fixture(autouse=True)
def no_prefixes(monkeypatch):
    monkeypatch.delenv("EVERGREEN_CODE_PREFIXES", raising=False)


@pytest.mark.parametrize(
    "model", ORDINARY, ids=[f"{type(m).__name__}-{i}" for i, m in enumerate(ORDINARY)]
)
def test_ordinary_models_come_back_with_the_same_predictions(model, tmp_path):
    model.fit(X, Y)
    path = tmp_path / "new" / "model.skops"
    digest = dump_model(model, path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [p.name for p in path.parent.iterdir()] == ["model.skops"]
    np.testing.assert_array_equal(load_model(path, digest).predict(X), model.predict(X))


def test_foreign_types_are_refused_and_nothing_is_left(tmp_path):
    model = make_pipeline(StandardScaler(), Homemade()).fit(X, Y)
    with pytest.raises(ModelError, match=r"types the platform trusts, got .*Homemade") as caught:
        dump_model(model, tmp_path / "model.skops")
    assert "EVERGREEN_CODE_PREFIXES" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_dump_leaves_the_older_file_alone(tmp_path):
    digest = dump_model(Ridge().fit(X, Y), tmp_path / "model.skops")
    with pytest.raises(ModelError, match="skops can write"):
        dump_model(make_pipeline(FunctionTransformer(n for n in "ab")), tmp_path / "model.skops")
    load_model(tmp_path / "model.skops", digest)
    assert len(list(tmp_path.iterdir())) == 1


def test_an_operator_can_vouch_for_a_package(monkeypatch):
    names = ["acme.models.Net", "acmex.Net", "include.train.Thing", "numpy.dtype"]
    assert untrusted(names) == ["acme.models.Net", "acmex.Net", "include.train.Thing"]
    monkeypatch.setenv("EVERGREEN_CODE_PREFIXES", "acme, include.train.")
    assert untrusted(names) == ["acmex.Net"]


def test_a_file_of_foreign_types_is_refused_on_load(tmp_path):
    path = tmp_path / "model.skops"
    skops.io.dump(Homemade().fit(X, Y), path)
    with pytest.raises(ModelError, match="Homemade"):
        load_model(path)
    with pytest.raises(ModelError, match="Homemade"):
        read_types(path, hashlib.sha256(path.read_bytes()).hexdigest())


def test_functions_that_do_things_are_not_trusted(tmp_path):
    path = tmp_path / "model.skops"
    skops.io.dump(FunctionTransformer(zipfile.ZipFile), path)
    with pytest.raises(ModelError, match="zipfile"):
        load_model(path)
    harmful = ("os.", "subprocess.", "builtins.", "posix.", "shutil.", "importlib.", "pickle.")
    assert not [name for name in TRUSTED_TYPES if name.startswith(harmful)]


@pytest.mark.parametrize("name", sorted(n for n in TRUSTED_TYPES if not n.startswith(OPTIONAL)))
def test_every_trusted_name_exists(name):
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


def test_the_digest_is_looked_at_first(tmp_path):
    path = tmp_path / "model.skops"
    digest = dump_model(Ridge().fit(X, Y), path)
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(ModelError, match=f"must have sha256 {digest}"):
        load_model(path, digest)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + b"\0" * 18, b"no model"])
def test_a_damaged_file_is_one_error(tmp_path, content):
    path = tmp_path / "model.skops"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="must be a skops file"):
        load_model(path)


def test_a_missing_file_is_one_error(tmp_path):
    with pytest.raises(ModelError, match="must be a readable model file"):
        load_model(tmp_path / "model.skops")


def test_one_thread_everywhere_after_loading(tmp_path):
    forest = RandomForestClassifier(n_jobs=-1, **FEW)
    model = make_pipeline(
        ColumnTransformer([("a", make_pipeline(StandardScaler()), [0, 1])], n_jobs=2),
        VotingClassifier(
            [("f", forest), ("c", CalibratedClassifierCV(forest, n_jobs=2, cv=2))], n_jobs=2
        ),
    )
    dump_model(model.fit(X, Y), tmp_path / "model.skops")
    found = load_model(tmp_path / "model.skops")
    voting = found[-1]
    calibrated = voting.estimators_[1]
    inner = calibrated.calibrated_classifiers_[0].estimator
    parts = [found[0], voting, voting.estimators_[0], calibrated, calibrated.estimator, inner]
    assert [part.n_jobs for part in parts] == [1] * len(parts)
    assert model[-1].estimators_[0].n_jobs == -1
