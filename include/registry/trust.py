"""Which types a stored model may consist of, and the only two functions that write and read one.

Owns the platform's list of trusted types. It is never read from a model: a file that names its own trusted
types trusts itself. A type on the list says "our training may produce it"; several of them (trees, neighbour
trees) index their arrays without bounds checks, so a crafted file can still crash a process. Hence the second
guard: a model that comes from the registry is only read when its digest is the recorded one.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from include.errors import ModelError
from include.settings import get_settings

with warnings.catch_warnings():
    # On import, skops asks every loaded module for hundreds of names; Airflow's warn of each, in every task's log.
    warnings.simplefilter("ignore")
    import skops.io


def _under(module: str, *names: str) -> Iterator[str]:
    return (f"{module}.{name}" for name in names)


# What skops 0.16 does not trust by itself, although ordinary scikit-learn models contain it. Only data holders
# and pure functions: nothing here opens files, starts processes or evaluates text.
_DATA = (
    "collections.OrderedDict",
    "collections.defaultdict",
    "numpy.dtype",
    "numpy.mean",
    "numpy.median",
    "scipy.interpolate._bsplines.BSpline",
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
    *_under("scipy.sparse._csr", "csr_matrix", "csr_array"),
    *_under("scipy.sparse._csc", "csc_matrix", "csc_array"),
    "sklearn.utils._bunch.Bunch",
    *_under("sklearn.utils._metadata_requests", "MetadataRequest", "MethodMetadataRequest"),
)
_FITTED = (
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn._loss.loss.HalfTweedieLoss",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    *_under(
        "sklearn.calibration",
        "_CalibratedClassifier",
        "_SigmoidCalibration",
        "_TemperatureScaling",
    ),
    "sklearn.frozen._frozen.FrozenEstimator",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.multiclass._ConstantPredictor",
    "sklearn.cluster._bisect_k_means._BisectingTree",
    *_under("sklearn.cluster._kmeans", "_kmeans_single_lloyd", "_kmeans_single_elkan"),
    *_under("sklearn.neural_network._stochastic_optimizers", "AdamOptimizer", "SGDOptimizer"),
    *_under(
        "sklearn.gaussian_process.kernels",
        "CompoundKernel",
        "ConstantKernel",
        "DotProduct",
        "ExpSineSquared",
        "Exponentiation",
        "Hyperparameter",
        "Matern",
        "PairwiseKernel",
        "Product",
        "RBF",
        "RationalQuadratic",
        "Sum",
        "WhiteKernel",
    ),
)
_NEIGHBOURS = (
    *_under("sklearn.neighbors._kd_tree", "KDTree", "KDTree64", "KDTree32"),
    *_under("sklearn.neighbors._ball_tree", "BallTree", "BallTree64", "BallTree32"),
    *(
        f"sklearn.metrics._dist_metrics.{name}Distance{suffix}"
        for name in (
            "BrayCurtis",
            "Canberra",
            "Chebyshev",
            "Euclidean",
            "Hamming",
            "Haversine",
            "Jaccard",
            "Manhattan",
            "Minkowski",
            "SEuclidean",
        )
        for suffix in ("32", "64")
    ),
)
_SELECTION = (
    *_under(
        "sklearn.feature_selection._univariate_selection",
        "chi2",
        "f_classif",
        "f_oneway",
        "f_regression",
        "r_regression",
    ),
    *_under(
        "sklearn.feature_selection._mutual_info", "mutual_info_classif", "mutual_info_regression"
    ),
    *_under("sklearn.metrics._scorer", "_CurveScorer", "_PassthroughScorer", "_Scorer"),
    *_under(
        "sklearn.metrics._classification",
        "accuracy_score",
        "balanced_accuracy_score",
        "brier_score_loss",
        "f1_score",
        "log_loss",
        "precision_score",
        "recall_score",
    ),
    *_under("sklearn.metrics._ranking", "average_precision_score", "roc_auc_score"),
    *_under(
        "sklearn.metrics._regression",
        "mean_absolute_error",
        "mean_squared_error",
        "median_absolute_error",
        "r2_score",
        "root_mean_squared_error",
    ),
    *_under(
        "sklearn.model_selection._search_successive_halving",
        "HalvingGridSearchCV",
        "HalvingRandomSearchCV",
    ),
    *_under(
        "sklearn.model_selection._split",
        "GroupKFold",
        "KFold",
        "RepeatedKFold",
        "RepeatedStratifiedKFold",
        "ShuffleSplit",
        "StratifiedKFold",
        "StratifiedShuffleSplit",
        "TimeSeriesSplit",
    ),
)
_BOOSTING_LIBRARIES = (
    "xgboost.core.Booster",
    *_under(
        "xgboost.sklearn", "XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor"
    ),
    "lightgbm.basic.Booster",
    *_under("lightgbm.sklearn", "LGBMClassifier", "LGBMRegressor"),
)
TRUSTED_TYPES: frozenset[str] = frozenset(
    (*_DATA, *_FITTED, *_NEIGHBOURS, *_SELECTION, *_BOOSTING_LIBRARIES)
)
"""Full names of the types a model may hold beyond what skops itself trusts (scikit-learn's estimators)."""


def untrusted(types: Iterable[str]) -> list[str]:
    """Return those of `types` that the platform does not vouch for, sorted.

    Trusted are `TRUSTED_TYPES` and whatever lies under a prefix of the `EVERGREEN_CODE_PREFIXES` setting:
    naming a package there is how an operator vouches for a team's own estimators.
    """
    prefixes = get_settings().own_prefixes
    return sorted(t for t in types if t not in TRUSTED_TYPES and not t.startswith(prefixes))


def dump_model(pipeline: Any, path: Path) -> str:
    """Write a fitted pipeline as a skops file; the file is complete or absent.

    Args:
        pipeline: The fitted estimator.
        path: Where the file goes; its folder is made when missing.

    Returns:
        The file's sha256, 64 hex digits. It differs between two dumps of the same model.

    Raises:
        ModelError: The pipeline holds something skops cannot write, or types the platform does not trust.
    """
    where = type(pipeline).__name__
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    part = Path(name)
    try:
        try:
            skops.io.dump(pipeline, part)
        except Exception as error:  # skops raises whatever the estimator's own code raises
            raise ModelError(
                where,
                f"must be something skops can write, got {type(error).__name__}: {error}",
                "Choose an estimator that skops supports.",
            ) from error
        data = part.read_bytes()
        _refuse(where, _types_in(data, where))
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return hashlib.sha256(data).hexdigest()


def load_model(path: Path, sha256: str | None = None) -> Any:
    """Read a model: digest first, then types, then the objects; `n_jobs` is forced to 1 throughout.

    Args:
        path: The skops file.
        sha256: The digest the file must have; None only for a file this very process (or run) wrote.

    Raises:
        ModelError: The file is missing, damaged, has another digest, or holds untrusted types.
    """
    where = str(path)
    data, found = _read(path, sha256)
    try:
        pipeline = skops.io.loads(data, trusted=found)
    except Exception as error:  # a damaged file fails anywhere inside
        raise ModelError(
            where,
            f"must be a loadable model, got {type(error).__name__}: {error}",
            "Check that scikit-learn has the version the model was trained with.",
        ) from error
    _single_thread(pipeline)
    return pipeline


def read_types(path: Path, sha256: str) -> list[str]:
    """Return the types a model file holds beyond scikit-learn's estimators, verified but not loaded.

    Raises:
        ModelError: As `load_model`.
    """
    return _read(path, sha256)[1]


def _read(path: Path, sha256: str | None) -> tuple[bytes, list[str]]:
    where = str(path)
    try:
        data = path.read_bytes()  # once: what was hashed is what is loaded
    except OSError as error:
        raise ModelError(
            where, f"must be a readable model file, got {error}", "Train the model again."
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256:
        raise ModelError(
            where,
            f"must have sha256 {sha256}, got {digest}",
            "The file was changed after training: do not use it, train the model again.",
        )
    found = _types_in(data, where)
    _refuse(where, found)
    return data, found


def _types_in(data: bytes, where: str) -> list[str]:
    try:
        return list(skops.io.get_untrusted_types(data=data))
    except Exception as error:  # zipfile, json and skops errors alike mean: not a model file
        raise ModelError(
            where,
            f"must be a skops file, got {type(error).__name__}: {error}",
            "Train the model again.",
        ) from error


def _refuse(where: str, types: Iterable[str]) -> None:
    foreign = untrusted(types)
    if foreign:
        shown = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if foreign[5:] else "")
        raise ModelError(
            where,
            f"must consist of types the platform trusts, got {shown}",
            "Use scikit-learn's own estimators, or name the package that holds them in "
            "EVERGREEN_CODE_PREFIXES.",
        )


def _single_thread(root: Any) -> None:
    """Set `n_jobs` to 1 wherever it is set: 200 trees on 2 cores answer one row 3 times slower with -1.

    Fitted copies live outside `get_params` (`estimators_`, `transformers_`), so the objects are walked.
    """
    seen: set[int] = set()
    queue = [root]
    while queue:
        item = queue.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            queue.extend(item.values())
        elif isinstance(item, (list, tuple)):
            queue.extend(item)
        elif isinstance(item, np.ndarray):
            if item.dtype == object:  # GradientBoosting keeps its trees in one
                queue.extend(item.ravel().tolist())
        elif hasattr(item, "__dict__") and not isinstance(item, type):
            if getattr(item, "n_jobs", None) not in (None, 1):
                item.n_jobs = 1
            queue.extend(vars(item).values())
