"""The ONNX engine: preparation in float64 NumPy, the estimator in ONNX Runtime.

The graph takes one float64 matrix `X` and answers `probability` or `value` in float64. One thread per session:
requests run side by side, and a pool per model would only fight.
"""

from __future__ import annotations

import hashlib
import json
import threading
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from include.engines.predictor import ONNX, Answer, Columns, Kind, Ties, most_probable
from include.engines.preparation import Preparation
from include.engines.row import RowPlan, row_plan
from include.errors import ModelError

INPUT, PROBABILITY, VALUE = "X", "probability", "value"
ONNX_FILE, PREPARATION_FILE = "estimator.onnx", "preparation.json"
# What a session keeps of its graph, against the file: measured, see docs/engines.md.
_SESSION_FACTOR, _SESSION_BYTES = 5, 300_000


class OnnxPredictor:
    """A preparation and a graph.

    Args:
        preparation: Makes the matrix.
        graph: Serialized ONNX model.
        codes: Code of the class of each column of its probabilities; empty for regression.
        ties: Which class it names where several are the most probable.
    """

    kind: Kind = ONNX

    def __init__(
        self,
        preparation: Preparation,
        graph: bytes,
        codes: npt.NDArray[np.int64],
        ties: Ties = "first",
    ) -> None:
        self.preparation, self.codes, self.ties = preparation, codes, ties
        self.has_probability = bool(len(codes))
        self._each = [codes[n : n + 1] for n in range(len(codes))]
        self.size_bytes = len(graph) * _SESSION_FACTOR + _SESSION_BYTES
        self._session = start_session(graph)
        self._wanted = [PROBABILITY if self.has_probability else VALUE]

        self._plan = row_plan(preparation)
        self._one = _OneRow(self._session, self._wanted[0], self._plan) if self._plan else None

    def answer(self, columns: Columns) -> Answer:
        """Predict; see `include.engines.predictor.Predictor`."""
        if self._one is not None and len(next(iter(columns.values()))) == 1:
            found = self._one.run(columns)
            if found is not None:
                return self._answer_of_one(found)
        found = self._session.run(self._wanted, {INPUT: self.preparation.matrix(columns)})[0]
        if not self.has_probability:
            return Answer(found.reshape(-1), None)
        return Answer(self.codes[most_probable(found, self.ties)], found)

    def _answer_of_one(self, found: npt.NDArray[np.float64]) -> Answer:
        """Return the same of one row; in plain Python, where NumPy's calls would cost 15 us."""
        if not self.has_probability:
            return Answer(found.reshape(-1), None)
        row = found[0].tolist()
        if self.ties == "last":
            row.reverse()
            return Answer(self._each[-1 - row.index(max(row))], found)
        return Answer(self._each[row.index(max(row))], found)


class _OneRow(threading.local):
    """Input and output of one row, bound to the session for good; each thread makes its own.

    Of one row, handing arrays over takes as long as computing.
    """

    def __init__(self, session: Any, output: str, plan: RowPlan) -> None:
        self._session, self._plan = session, plan
        self._row = array("d", plan.empty)
        given = np.frombuffer(self._row).reshape(1, -1)
        self._found = np.ascontiguousarray(session.run([output], {INPUT: given})[0])
        self._binding = session.io_binding()
        for bind, name, memory in (
            (self._binding.bind_input, INPUT, given),
            (self._binding.bind_output, output, self._found),
        ):
            bind(name, "cpu", 0, np.float64, memory.shape, memory.ctypes.data)

    def run(self, columns: Columns) -> npt.NDArray[np.float64] | None:
        """Return the session's output for one row; None where the plan leaves it to others."""
        if not self._plan.fill(columns, self._row):
            return None
        self._session.run_with_iobinding(self._binding)
        return self._found.copy()


def start_session(graph: bytes) -> Any:
    """Return an ONNX Runtime session on one thread of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # warnings would go to standard error, one a version
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def open_onnx(folder: Path, engine: Mapping[str, Any]) -> OnnxPredictor:
    """Open the ONNX files of a version.

    Args:
        folder: The version's folder.
        engine: What its metadata says of its engine: the files' digests, the classes' codes and how ties are decided.

    Raises:
        ModelError: A file is missing, damaged, or not the one that was registered.
    """
    graph = _verified(folder / ONNX_FILE, str(engine["onnx_sha256"]))
    stored = _verified(folder / PREPARATION_FILE, str(engine["preparation_sha256"]))
    try:
        preparation = Preparation.from_dict(json.loads(stored))
        codes = np.array(engine["codes"], dtype=np.int64)
        return OnnxPredictor(preparation, graph, codes, engine.get("ties", "first"))
    except Exception as error:  # ONNX Runtime has a dozen kinds, none with a base of its own
        raise ModelError(
            str(folder / ONNX_FILE),
            f"must be a model ONNX Runtime can open, got {type(error).__name__}: {error}",
            "Check that onnxruntime has the version the model was registered with.",
        ) from error


def _verified(path: Path, sha256: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(
            str(path), f"must be a readable file, got {error}", "Train the model again."
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise ModelError(
            str(path),
            f"must have sha256 {sha256}, got {digest}",
            "The file was changed after registration: do not use it, train the model again.",
        )
    return data
