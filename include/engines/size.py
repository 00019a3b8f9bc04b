"""How large the graph of an estimator's trees would be, counted before any of it is built.

The operator gives a leaf one weight, so a forest of k classes is written k times, from lists of Python numbers: what
is a small model in scikit-learn can take more memory than the machine has, and a killed task is tried again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from include.engines.unsupported import Unsupported

# Conversion takes about 350 bytes and 10 microseconds a node, measured: here 0.7 GB and half a minute.
MOST_NODES = 2_000_000
_LEAVES = "num_leaves="  # a line of lightgbm's text, one a tree


def check_size(estimator: Any) -> None:
    """Refuse more trees than conversion has memory for.

    Args:
        estimator: A fitted one, which may hold others.

    Raises:
        Unsupported: There are too many nodes.
    """
    count = sum(map(_nodes, _parts(estimator, set())))
    if count > MOST_NODES:
        raise Unsupported(
            f"{type(estimator).__name__}: its trees would be {count:,} nodes, at most {MOST_NODES:,} are converted"
        )


def _parts(value: Any, seen: set[int]) -> Iterator[Any]:
    """Yield what computes something inside an estimator: estimators, also in lists, and single trees."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        value = value.ravel().tolist() if value.dtype.hasobject else ()
    if isinstance(value, list | tuple):
        for item in value:
            yield from _parts(item, seen)
    elif hasattr(value, "predict") or hasattr(value, "predict_proba"):
        yield value
        for held in getattr(value, "__dict__", {}).values():
            yield from _parts(held, seen)


def _nodes(estimator: Any) -> int:
    library = type(estimator).__module__.partition(".")[0]
    if library == "xgboost" and hasattr(estimator, "get_booster"):
        return sum(text.count("\n") for text in estimator.get_booster().get_dump())
    if library == "lightgbm" and hasattr(estimator, "booster_"):
        lines = estimator.booster_.model_to_string().splitlines()
        leaves = [int(line[len(_LEAVES) :]) for line in lines if line.startswith(_LEAVES)]
        return 2 * sum(leaves) - len(leaves)
    tree = getattr(estimator, "tree_", None)
    if tree is not None:
        return int(tree.node_count * tree.value.shape[2])
    groups = getattr(estimator, "_predictors", None) or ()
    return sum(len(each.nodes) for group in groups for each in group)
