"""A fitted estimator as an ONNX graph: one float64 matrix in, probabilities or values in float64 out.

Owns skl2onnx: which of its converters are replaced (trees, see `include.engines.trees`) and the shape of what it
gives. Everything else is skl2onnx's own, asked for float64.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from include.engines.boosters import booster_of, loaded_estimators
from include.engines.session import INPUT, PROBABILITY, VALUE
from include.engines.trees import ML_OPSET, raw_of
from include.engines.unsupported import Unsupported

OPSET, ML = 18, "ai.onnx.ml"
_TREES = (
    "DecisionTree",
    "ExtraTree",
    "ExtraTrees",
    "GradientBoosting",
    "HistGradientBoosting",
    "RandomForest",
)
_CLASSIFIER_OPTIONS = {"zipmap": [False], "nocl": [True, False], "output_class_labels": [False]}


def estimator_graph(estimator: Any, width: int) -> Any:
    """Return the graph of a fitted estimator.

    Args:
        estimator: The last step of a pipeline; a classifier must give probabilities.
        width: Columns of its input.

    Returns:
        ModelProto with input `X`, double, shape (rows, width), and one double output: `probability`, shape
        (rows, classes), or `value`, shape (rows, 1).

    Raises:
        Unsupported: skl2onnx has no converter, or gave up.
    """
    from onnx import TensorProto, helper
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType

    _replace_converters()
    classifier = hasattr(estimator, "classes_")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = to_onnx(
                estimator,
                name="estimator",
                initial_types=[(INPUT, DoubleTensorType([None, width]))],
                options={"zipmap": False} if classifier else None,
                target_opset=OPSET,
            )
    except Unsupported:
        raise
    except Exception as error:  # converters fail in any way they like
        text = " ".join(str(error).split())[:200]
        raise Unsupported(
            f"{type(estimator).__name__} (skl2onnx: {type(error).__name__}: {text})"
        ) from error
    graph = model.graph
    if any(node.op_type in ("Loop", "Scan") for node in graph.node):
        raise Unsupported(f"{type(estimator).__name__} (its graph loops: slower than scikit-learn)")
    last, name = graph.output[-1], PROBABILITY if classifier else VALUE
    graph.node.append(helper.make_node("Cast", [last.name], [name], to=TensorProto.DOUBLE))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, None]))
    # skl2onnx itself knows no TreeEnsemble and stops at an older version; its other operators are the same in ours.
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", OPSET), helper.make_opsetid(ML, ML_OPSET)])
    return pruned(model)


def pruned(model: Any) -> Any:
    """Drop the nodes no output needs (skl2onnx also computes labels)."""
    needed = {output.name for output in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    used = [value for value in model.graph.initializer if value.name in needed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(used)
    return model


def _replace_converters() -> None:
    """Put our tree converters in the place of skl2onnx's, for nested estimators too; again is harmless."""
    import sklearn.ensemble
    import sklearn.tree
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    kinds = [
        getattr(home, family + ending)
        for family in _TREES
        for home in [sklearn.tree if family in ("DecisionTree", "ExtraTree") else sklearn.ensemble]
        for ending in ("Classifier", "Regressor")
    ]
    for kind in (*kinds, *loaded_estimators()):
        alias = f"Evergreen{kind.__name__}"
        if kind.__name__.endswith("Classifier"):
            shapes, options = calculate_linear_classifier_output_shapes, _CLASSIFIER_OPTIONS
            update_registered_converter(kind, alias, shapes, _classifier, options=options)
        else:
            shapes = calculate_linear_regressor_output_shapes
            update_registered_converter(kind, alias, shapes, _regressor)


def _raw(operator: Any, write: _Writer) -> tuple[str, str]:
    """Write what the trees say before the link; return its name and the link."""
    raw = booster_of(operator.raw_operator) or raw_of(operator.raw_operator)
    given = operator.inputs[0].full_name
    if raw.single:
        given = write("Cast", [given], to=1)
    if not raw.sums_single:
        given = write("Cast", [given], to=11)
    trees = raw.forest.attributes(np.float32 if raw.sums_single else np.float64)
    total = write("TreeEnsemble", [given], domain=ML, **trees)
    if raw.sums_single:
        total = write("Cast", [total], to=11)
    if raw.scale != 1.0:
        total = write("Mul", [total, write.constant(np.array([raw.scale]))])
    return total, raw.link


def _regressor(scope: Any, operator: Any, container: Any) -> None:
    raw, link = _raw(operator, _Writer(scope, container))
    kind = "Exp" if link == "exp" else "Identity"
    container.add_node(kind, [raw], [operator.outputs[0].full_name])


def _classifier(scope: Any, operator: Any, container: Any) -> None:
    estimator, write = operator.raw_operator, _Writer(scope, container)
    raw, link = _raw(operator, write)
    probability = raw  # identity: leaves hold shares of classes
    if link == "softmax":
        probability = write("Softmax", [raw], axis=1)
    elif link == "sigmoid":
        positive = write("Sigmoid", [raw])
        negative = write("Sub", [write.constant(np.array([1.0])), positive])
        probability = write("Concat", [negative, positive], axis=1)
    labels, shares = (output.full_name for output in operator.outputs)
    container.add_node("Identity", [probability], [shares])
    place = write("ArgMax", [probability], axis=1, keepdims=0)
    known = write.constant(np.asarray(estimator.classes_, dtype=np.int64))
    container.add_node("Gather", [known, place], [labels])


class _Writer:
    """Adds nodes to a container of skl2onnx and names what they give."""

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope, self._container = scope, container

    def __call__(self, kind: str, inputs: list[str], *, domain: str = "", **attrs: Any) -> str:
        name: str = self._scope.get_unique_variable_name(kind.lower())
        version = 1 if domain else OPSET
        self._container.add_node(
            kind, inputs, [name], op_domain=domain, op_version=version, **attrs
        )
        return name

    def constant(self, values: Any) -> str:
        from onnx import numpy_helper

        name: str = self._scope.get_unique_variable_name("constant")
        tensor = numpy_helper.from_array(values, name)
        self._container.add_initializer(
            name, tensor.data_type, tensor.dims, values.ravel().tolist()
        )
        return name
