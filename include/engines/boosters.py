"""Trees of xgboost and lightgbm, read from what the libraries themselves write of a model, as one ONNX node.

Neither library is imported here: whoever holds a fitted estimator has it. What is not understood stays on
scikit-learn with the reason, and the comparison of `include.engines.parity` judges the rest.

Source: https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html (the schema of the JSON model);
lightgbm's text model and `NumericalDecision` in its include/LightGBM/tree.h.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from include.engines.trees import Forest, Raw, Tree
from include.engines.unsupported import Unsupported

_XGBOOST = ("XGBClassifier", "XGBRFClassifier", "XGBRegressor", "XGBRFRegressor")
_LIGHTGBM = ("LGBMClassifier", "LGBMRegressor")
# What makes a prediction of the sum of the trees, by the library's name of the objective.
_XGBOOST_LINKS = {
    "binary:logistic": "sigmoid",
    "multi:softprob": "softmax",
    "reg:squarederror": "identity",
    "reg:absoluteerror": "identity",
    "reg:pseudohubererror": "identity",
}
_LIGHTGBM_LINKS = {
    "binary": "sigmoid",
    "multiclass": "softmax",
    "regression": "identity",
    "regression_l1": "identity",
    "huber": "identity",
    "fair": "identity",
    "quantile": "identity",
    "mape": "identity",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
}
# Bits of lightgbm's decision_type.
_CATEGORICAL, _MISSING_LEFT, _MISSING_SHIFT = 1, 2, 2
_MISSING_NONE, _MISSING_ZERO = 0, 1


def loaded_estimators() -> Iterator[type]:
    """Yield the estimator classes of those of the two libraries that this process has imported."""
    for library, names in (("xgboost", _XGBOOST), ("lightgbm", _LIGHTGBM)):
        if library in sys.modules:
            yield from (getattr(sys.modules[library], name) for name in names)


def booster_of(estimator: Any) -> Raw | None:
    """Return what a fitted estimator of xgboost or lightgbm computes; None for any other's.

    Raises:
        Unsupported: It holds something that is no plain tree, or an objective that is not known here.
    """
    library = type(estimator).__module__.partition(".")[0]
    if library == "xgboost":
        return _xgboost(estimator)
    return _lightgbm(estimator) if library == "lightgbm" else None


def _xgboost(estimator: Any) -> Raw:
    booster = estimator.get_booster()
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    gradient, objective = learner["gradient_booster"], learner["objective"]["name"]
    if gradient["name"] != "gbtree":
        raise Unsupported(f"xgboost's booster {gradient['name']}")
    if objective not in _XGBOOST_LINKS:
        raise Unsupported(f"xgboost's objective {objective}")
    if not np.isnan(estimator.missing):
        raise Unsupported("xgboost with another missing value than NaN")
    link, shape = _XGBOOST_LINKS[objective], learner["learner_model_param"]
    if shape.get("num_target", "1") != "1":
        raise Unsupported("several targets")
    # One number until xgboost 3.0, a list in brackets since.
    start = np.array(json.loads(f"[{shape['base_score'].strip('[]')}]"), dtype=np.float64)
    if link == "sigmoid":
        start = np.log(start / (1 - start))  # stored as a probability
    targets = max(1, int(shape["num_class"]))
    forest, model = Forest.from_base(np.broadcast_to(start, (targets,))), gradient["model"]
    best = getattr(estimator, "best_iteration", None) if estimator.early_stopping_rounds else None
    used = len(model["trees"]) if best is None else model["iteration_indptr"][best + 1]
    for tree, target in zip(model["trees"][:used], model["tree_info"][:used], strict=True):
        forest.add(_xgboost_tree(tree), target)
    return Raw(forest, single=True, sums_single=True, link=link)


def _xgboost_tree(tree: Mapping[str, Any]) -> Tree:
    left = np.array(tree["left_children"])
    if tree["tree_param"]["size_leaf_vector"] not in ("0", "1"):
        raise Unsupported("trees with several values a leaf")
    if any(tree["split_type"]):
        raise Unsupported("trees that split on sets of categories")
    conditions = np.array(tree["split_conditions"], dtype=np.float32)
    # It goes left where x < split and both are float32: where x <= the float32 before it.
    before = np.nextafter(conditions, np.float32(-np.inf))
    return Tree(
        leaf=left == -1,
        feature=np.array(tree["split_indices"]),
        split=before.astype(np.float64),
        missing_left=np.array(tree["default_left"]),
        left=left,
        right=np.array(tree["right_children"]),
        values=conditions.astype(np.float64)[:, np.newaxis],
    )


def _lightgbm(estimator: Any) -> Raw:
    head, *texts = (
        estimator.booster_.model_to_string().partition("\nend of trees")[0].split("\nTree=")
    )
    facts = _facts(head)
    objective, *parameters = facts.get("objective", "of your own").split(" ")
    options = dict(item.partition(":")[::2] for item in parameters)
    if objective not in _LIGHTGBM_LINKS or "sqrt" in options:
        raise Unsupported(f"lightgbm's objective {facts.get('objective', 'of your own')}")
    if "average_output" in facts:
        raise Unsupported("lightgbm's random forests")
    targets = int(facts["num_tree_per_iteration"])
    forest = Forest(targets)
    for number, text in enumerate(texts):
        forest.add(_lightgbm_tree(_facts(text)), number % targets)
    scale = float(options.get("sigmoid", 1.0)) if objective == "binary" else 1.0
    return Raw(forest, single=False, link=_LIGHTGBM_LINKS[objective], scale=scale)


def _facts(text: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in text.splitlines())


def _lightgbm_tree(facts: Mapping[str, str]) -> Tree:
    if facts["num_cat"] != "0":
        raise Unsupported("trees that split on sets of categories")
    if facts.get("is_linear", "0") != "0":
        raise Unsupported("trees with a linear model in their leaves")
    leaves = _numbers(facts, "leaf_value")
    inner = len(leaves) - 1
    kinds = _numbers(facts, "decision_type").astype(np.int64)[:inner]
    splits, missing = _numbers(facts, "threshold")[:inner], kinds >> _MISSING_SHIFT
    if (missing == _MISSING_ZERO).any() or (kinds & _CATEGORICAL).any():
        raise Unsupported("trees that take zero for missing")
    # Where training saw no missing value, it takes one for zero.
    goes_left = np.where(missing == _MISSING_NONE, splits >= 0, kinds & _MISSING_LEFT != 0)

    def all_nodes(of_inner: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.concatenate((of_inner, np.zeros(len(leaves), dtype=of_inner.dtype)))

    def children(side: str) -> npt.NDArray[np.int64]:
        found = _numbers(facts, side).astype(np.int64)[:inner]
        return all_nodes(np.where(found < 0, inner + ~found, found))  # leaves count -1, -2, ...

    return Tree(
        leaf=np.arange(inner + len(leaves)) >= inner,
        feature=all_nodes(_numbers(facts, "split_feature").astype(np.int64)[:inner]),
        split=all_nodes(splits),
        missing_left=all_nodes(goes_left),
        left=children("left_child"),
        right=children("right_child"),
        values=np.concatenate((np.zeros(inner), leaves))[:, np.newaxis],
    )


def _numbers(facts: Mapping[str, str], name: str) -> npt.NDArray[np.float64]:
    return np.array(facts.get(name, "").split(), dtype=np.float64)
