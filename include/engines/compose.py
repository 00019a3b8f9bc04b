"""One ONNX file of a whole version: named inputs, preparation, estimator, labels; all numbers in float64.

For devices that have ONNX Runtime and nothing of ours. Serving does not use it: making arrays of single values is
what one row would spend its time on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from include.engines.predictor import Ties
from include.engines.preparation import Category, Numbers, Preparation, Step
from include.engines.session import INPUT, PROBABILITY, VALUE

PREDICT = "predict"
_INNER = "estimator/"


def missing_text(preparation: Preparation) -> str:
    """Return the text that stands for a missing category: ONNX has no null. Empty unless data has the empty text."""
    known = {
        text for block in preparation.blocks if isinstance(block, Category) for text in block.values
    }
    text = ""
    while text in known:
        text = f"<missing{text}>"
    return text


def compose(preparation: Preparation, estimator: bytes, labels: Sequence[Any], ties: Ties) -> Any:
    """Return the graph of a whole version.

    Args:
        preparation: Becomes nodes.
        estimator: The serialized graph after it.
        labels: Label of each column of its probabilities; empty for regression.
        ties: Which of the most probable classes is named.

    Returns:
        ModelProto. Inputs: one per feature, shape (rows,), double or string. Outputs: `predict`, shape (rows,), and
        for classifiers `probability`, shape (rows, classes).
    """
    import onnx.compose
    from onnx import TensorProto, helper

    # A feature may have any name, also one that skl2onnx gave to a node.
    model = onnx.compose.add_prefix(onnx.load_model_from_string(estimator), _INNER)
    graph, nodes = model.graph, _Nodes()
    inputs, parts = [], []
    for block in preparation.blocks:
        if isinstance(block, Numbers):
            inputs += [(name, TensorProto.DOUBLE) for name in block.names]
            parts.append(_numbers(nodes, block))
        else:
            inputs.append((block.name, TensorProto.STRING))
            parts.append(_category(nodes, block, missing_text(preparation)))
    nodes.add("Concat", parts, _INNER + INPUT, axis=1)
    rest = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes.made, *rest])
    graph.input.extend(helper.make_tensor_value_info(name, kind, ["rows"]) for name, kind in inputs)
    tail = _Nodes("labels/")
    outputs = [_labels(tail, labels, ties)] if labels else [_values(tail)]
    if labels:
        tail.add("Identity", [_INNER + PROBABILITY], PROBABILITY)
        shape = ["rows", len(labels)]
        outputs.append(helper.make_tensor_value_info(PROBABILITY, TensorProto.DOUBLE, shape))
    graph.node.extend(tail.made)
    graph.initializer.extend([*nodes.constants, *tail.constants])
    del graph.output[:]
    graph.output.extend(outputs)
    onnx.checker.check_model(model)
    return model


def _numbers(nodes: _Nodes, block: Numbers) -> str:
    axis = nodes.constant(np.array([1]))
    columns = [nodes.add("Unsqueeze", [name, axis]) for name in block.names]
    values = nodes.add("Concat", columns, axis=1)
    for step in block.steps:
        values = _step(nodes, step, values)
    return values


def _step(nodes: _Nodes, step: Step, values: str) -> str:
    if step.kind == "standard":
        centred = nodes.add("Sub", [values, nodes.constant(step.first)])
        return nodes.add("Div", [centred, nodes.constant(step.second)])
    if step.kind == "minmax":
        wide = nodes.add("Mul", [values, nodes.constant(step.first)])
        moved = nodes.add("Add", [wide, nodes.constant(step.second)])
        if step.bounds is None:
            return moved
        return nodes.add("Clip", [moved, *(nodes.constant(np.array(b)) for b in step.bounds)])
    missing = nodes.add("IsNaN", [values])
    filled = nodes.add("Where", [missing, nodes.constant(step.first), values])
    if not step.flagged:
        return filled
    chosen = nodes.add("Gather", [missing, nodes.constant(np.array(step.flagged))], axis=1)
    return nodes.add("Concat", [filled, nodes.add("Cast", [chosen], to=11)], axis=1)


def _category(nodes: _Nodes, block: Category, missing: str) -> str:
    found = [*block.values.values(), block.missing, block.unknown]
    if block.hot is None:
        table = np.array(found, dtype=np.float64)[:, np.newaxis]
    else:
        table = np.zeros((len(found), block.hot))
        for row, place in enumerate(found):
            if place >= 0:
                table[row, int(place)] = 1.0
    keys = [*block.values, missing]
    places = nodes.add(
        "LabelEncoder",
        [block.name],
        domain="ai.onnx.ml",
        keys_strings=keys,
        values_int64s=list(range(len(keys))),
        default_int64=len(keys),
    )
    return nodes.add("Gather", [nodes.constant(table), places], axis=0)


def _labels(nodes: _Nodes, labels: Sequence[Any], ties: Ties) -> Any:
    from onnx import helper

    kinds = {type(label) for label in labels}
    if kinds <= {bool} or kinds <= {int}:
        known = np.array(labels)
    elif kinds <= {int, float}:
        known = np.array(labels, dtype=np.float64)
    else:
        known = np.array([str(label) for label in labels], dtype=object)
    place = nodes.add(
        "ArgMax", [_INNER + PROBABILITY], axis=1, keepdims=0, select_last_index=int(ties == "last")
    )
    nodes.add("Gather", [nodes.constant(known), place], PREDICT)
    kind = nodes.constants[0].data_type
    return helper.make_tensor_value_info(PREDICT, kind, ["rows"])


def _values(nodes: _Nodes) -> Any:
    from onnx import TensorProto, helper

    nodes.add("Reshape", [_INNER + VALUE, nodes.constant(np.array([-1]))], PREDICT)
    return helper.make_tensor_value_info(PREDICT, TensorProto.DOUBLE, ["rows"])


class _Nodes:
    """Nodes and constants under names that neither features nor skl2onnx use."""

    def __init__(self, prefix: str = "prepare/") -> None:
        self.made: list[Any] = []
        self.constants: list[Any] = []
        self._prefix = prefix

    def add(self, kind: str, inputs: Sequence[str], name: str = "", **attributes: Any) -> str:
        from onnx import helper

        name = name or f"{self._prefix}{len(self.made)}"
        self.made.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, values: Any) -> str:
        from onnx import numpy_helper

        name = f"{self._prefix}constant/{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name
