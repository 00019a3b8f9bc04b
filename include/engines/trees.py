"""Trees of scikit-learn as one ONNX node that computes in float64 throughout.

skl2onnx writes trees as operators whose thresholds are float32, which carries rows across them, and its converter of
HistGradientBoosting fails under numpy 2. The TreeEnsemble operator (ai.onnx.ml 5) has float64 thresholds, leaves and
sums in ONNX Runtime, so these converters take the place of skl2onnx's.

Source: https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from include.engines.unsupported import Unsupported

ML_OPSET = 5
_LESS_OR_EQUAL = 0
_SUM = 1


@dataclass
class Forest:
    """Nodes and leaves of many trees, as the operator lists them."""

    targets: int
    roots: list[int] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    splits: list[float] = field(default_factory=list)
    missing_true: list[int] = field(default_factory=list)
    true_ids: list[int] = field(default_factory=list)
    true_leafs: list[int] = field(default_factory=list)
    false_ids: list[int] = field(default_factory=list)
    false_leafs: list[int] = field(default_factory=list)
    leaf_targets: list[int] = field(default_factory=list)
    leaf_weights: list[float] = field(default_factory=list)

    def add(self, tree: Tree, target: int | None = None) -> None:
        """Add a tree whose leaves count towards one target, or each of its values towards its own.

        The operator gives a leaf one weight, so a tree with several values a leaf becomes several trees.
        """
        for column in range(tree.values.shape[1]):
            self._add(tree, tree.values[:, column], column if target is None else target)

    def _add(self, tree: Tree, values: npt.NDArray[np.float64], target: int) -> None:
        inner = np.flatnonzero(~tree.leaf)
        place = np.zeros(len(tree.leaf), dtype=np.int64)
        place[inner] = len(self.features) + np.arange(len(inner))
        ends = np.flatnonzero(tree.leaf)
        place[ends] = len(self.leaf_targets) + np.arange(len(ends))
        self.leaf_targets += [target] * len(ends)
        self.leaf_weights += values[ends].tolist()
        self.roots.append(len(self.features))
        if not len(inner):  # a tree that never split: both ways lead to its leaf
            self._node(0, 0.0, 0, (int(place[0]), 1), (int(place[0]), 1))
        for node in inner.tolist():
            left, right = int(tree.left[node]), int(tree.right[node])
            self._node(
                int(tree.feature[node]),
                float(tree.split[node]),
                int(tree.missing_left[node]),
                (int(place[left]), int(tree.leaf[left])),
                (int(place[right]), int(tree.leaf[right])),
            )

    def _node(
        self,
        feature: int,
        split: float,
        missing_true: int,
        true: tuple[int, int],
        false: tuple[int, int],
    ) -> None:
        self.features.append(feature)
        self.splits.append(split)
        self.missing_true.append(missing_true)
        self.true_ids.append(true[0])
        self.true_leafs.append(true[1])
        self.false_ids.append(false[0])
        self.false_leafs.append(false[1])

    @classmethod
    def from_base(cls, base: npt.NDArray[np.float64]) -> Forest:
        """Begin with a number per target, shape (targets,), as trees of one leaf: boosting adds its trees to it."""
        forest = cls(len(base))
        for target, value in enumerate(base.tolist()):
            forest.add(_stump(value), target)
        return forest

    def attributes(self, dtype: type = np.float64) -> dict[str, Any]:
        """Return the operator's attributes, for input, thresholds and sums of one type."""
        from onnx import numpy_helper

        modes = np.full(len(self.features), _LESS_OR_EQUAL, dtype=np.uint8)
        return {
            "n_targets": self.targets,
            "aggregate_function": _SUM,
            "post_transform": 0,
            "tree_roots": self.roots,
            "nodes_modes": numpy_helper.from_array(modes, "modes"),
            "nodes_featureids": self.features,
            "nodes_splits": numpy_helper.from_array(np.array(self.splits, dtype), "splits"),
            "nodes_missing_value_tracks_true": self.missing_true,
            "nodes_truenodeids": self.true_ids,
            "nodes_trueleafs": self.true_leafs,
            "nodes_falsenodeids": self.false_ids,
            "nodes_falseleafs": self.false_leafs,
            "leaf_targetids": self.leaf_targets,
            "leaf_weights": numpy_helper.from_array(np.array(self.leaf_weights, dtype), "weights"),
        }


@dataclass(frozen=True)
class Tree:
    """One tree: an array per fact, one entry per node; `values` has one column per target."""

    leaf: npt.NDArray[np.bool_]
    feature: npt.NDArray[Any]
    split: npt.NDArray[np.float64]
    missing_left: npt.NDArray[Any]
    left: npt.NDArray[Any]
    right: npt.NDArray[Any]
    values: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Raw:
    """What an estimator of trees computes: link(scale * sum of the forest).

    Args:
        forest: The trees.
        single: Whether input is rounded to float32 first.
        sums_single: Whether it also adds in float32: every sum is rounded, in the order of the trees.
        link: identity, exp, sigmoid (of two classes, the second) or softmax.
        scale: See above.
    """

    forest: Forest
    single: bool
    sums_single: bool = False
    link: str = "identity"
    scale: float = 1.0


_LINKS = {"IdentityLink": "identity", "LogLink": "exp"}


def raw_of(estimator: Any) -> Raw:
    """Return what one of scikit-learn's fitted tree estimators computes.

    Raises:
        Unsupported: It holds something that is no plain tree, or has a link that is not known here.
    """
    kind = type(estimator).__name__
    boosted = kind.partition("GradientBoosting")
    if boosted[1]:
        hist = boosted[0] == "Hist"
        forest = _histogram(estimator) if hist else _boosted(estimator)
        loss, link = estimator._loss, "sigmoid" if forest.targets == 1 else "softmax"
        if boosted[2] == "Regressor":
            name = type(loss.link).__name__
            if name not in _LINKS:
                raise Unsupported(f"the link {name}")
            link = _LINKS[name]
        scale = 2.0 if type(loss).__name__ == "ExponentialLoss" else 1.0
        return Raw(forest, not hist, link=link, scale=scale)
    trees = getattr(estimator, "estimators_", None) or [estimator]
    values = [_tree(tree.tree_, _leaves(tree) / len(trees)) for tree in trees]
    forest = Forest(values[0].values.shape[1])
    for tree in values:
        forest.add(tree)
    return Raw(forest, single=True)


def _stump(value: float) -> Tree:
    none = np.zeros(1, dtype=np.int64)
    leaf = np.ones(1, dtype=np.bool_)
    return Tree(leaf, none, np.zeros(1), none, none, none, np.array([[value]]))


def _histogram(estimator: Any) -> Forest:
    forest = Forest.from_base(np.ravel(estimator._baseline_prediction).astype(np.float64))
    for group in estimator._predictors:
        for target, predictor in enumerate(group):
            nodes = predictor.nodes
            if nodes["is_categorical"].any():
                raise Unsupported("trees that split on sets of categories")
            forest.add(
                Tree(
                    leaf=nodes["is_leaf"].astype(bool),
                    feature=nodes["feature_idx"],
                    split=nodes["num_threshold"],
                    missing_left=nodes["missing_go_to_left"],
                    left=nodes["left"],
                    right=nodes["right"],
                    values=nodes["value"].astype(np.float64)[:, np.newaxis],
                ),
                target,
            )
    return forest


def _boosted(estimator: Any) -> Forest:
    if estimator.init_ != "zero" and not type(estimator.init_).__name__.startswith("Dummy"):
        raise Unsupported("gradient boosting that starts from another estimator")
    base = np.ravel(estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_))))
    forest = Forest.from_base(base.astype(np.float64))
    for group in estimator.estimators_:
        for target, tree in enumerate(group):
            values = tree.tree_.value[:, 0, :] * estimator.learning_rate
            forest.add(_tree(tree.tree_, values), target)
    return forest


def _leaves(tree: Any) -> npt.NDArray[np.float64]:
    if tree.n_outputs_ != 1:
        raise Unsupported("several targets")
    values: npt.NDArray[np.float64] = tree.tree_.value[:, 0, :]
    return values


def _tree(tree: Any, values: npt.NDArray[np.float64]) -> Tree:
    missing: Sequence[int] | None = getattr(tree, "missing_go_to_left", None)
    absent = np.zeros(tree.node_count, dtype=np.uint8)
    return Tree(
        leaf=tree.children_left == -1,
        feature=tree.feature,
        split=tree.threshold,
        missing_left=absent if missing is None else np.asarray(missing),
        left=tree.children_left,
        right=tree.children_right,
        values=np.asarray(values, dtype=np.float64),
    )
