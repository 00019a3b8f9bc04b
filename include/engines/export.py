"""A version as files for devices without Python's ML libraries: the ONNX model, a README and an example.

Nothing is written before the composed model has answered as the engine does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from include.engines.compose import PREDICT, compose, missing_text
from include.engines.opening import open_version
from include.engines.parity import columns_of, derived
from include.engines.predictor import Columns
from include.engines.preparation import Category, Numbers
from include.engines.session import ONNX_FILE, PROBABILITY, OnnxPredictor, start_session
from include.errors import ModelError
from include.store.features import model_frame
from include.store.inputs import Features

_TOLERANCE = 1e-9


def export_onnx(
    folder: Path,
    meta: Mapping[str, Any],
    example: Mapping[str, Sequence[Any]],
    name: str,
    to: Path,
) -> list[Path]:
    """Write a version as one ONNX model, with a README and an example program.

    Args:
        folder: The version's verified folder.
        meta: Its metadata.
        example: Its stored input example, by column.
        name: File name without ending, such as `churn-7`.
        to: Folder of the files; made when missing.

    Returns:
        The files written.

    Raises:
        ModelError: The version has no ONNX engine, or the composed model answers otherwise than it.
    """
    where = f"export of {name}"
    engine = open_version(folder, meta)
    if not isinstance(engine, OnnxPredictor):
        reason = (meta.get("engine") or {}).get("reason", "it was registered before engines were")
        raise ModelError(
            where,
            f"must be a version that was converted to ONNX, got one on scikit-learn: {reason}",
            "Choose another version, or train one with an estimator that converts.",
        )
    labels = [meta["classes"][code] for code in engine.codes.tolist()]
    graph = (folder / ONNX_FILE).read_bytes()
    model = compose(engine.preparation, graph, labels, engine.ties).SerializeToString()
    rows = model_frame(example, Features.from_dict(meta["features"]))
    _check(where, model, engine, labels, rows)
    to.mkdir(parents=True, exist_ok=True)
    first = _row(rows, engine)
    files = {
        f"{name}.onnx": model,
        "example.py": _EXAMPLE.format(name=name, row=_python(first)).encode(),
        "README.md": _readme(name, meta, engine, labels).encode(),
    }
    for file, content in files.items():
        (to / file).write_bytes(content)
    return [to / file for file in files]


def feeds(columns: Columns, engine: OnnxPredictor) -> dict[str, np.ndarray[Any, Any]]:
    """Return columns as the composed model's inputs."""
    empty, made = missing_text(engine.preparation), dict[str, Any]()
    for block in engine.preparation.blocks:
        if isinstance(block, Category):
            texts = [empty if text is None else text for text in columns[block.name]]
            made[block.name] = np.array(texts, dtype=object)
        else:
            made |= {name: np.array(columns[name], dtype=np.float64) for name in block.names}
    return made


def _check(
    where: str, model: bytes, engine: OnnxPredictor, labels: list[Any], rows: pd.DataFrame
) -> None:
    features = Features(
        tuple(str(n) for n in rows if rows[n].dtype != object),
        tuple(str(n) for n in rows if rows[n].dtype == object),
    )
    all_rows = pd.concat([rows, derived(rows, features)], ignore_index=True)
    empty = missing_text(engine.preparation)
    if empty == "":  # in the exported model the empty text is how a missing category is written
        for text in features.categorical:
            all_rows[text] = all_rows[text].where(all_rows[text] != "", None)
    asked = columns_of(all_rows)
    expected = engine.answer(asked)
    names = [PREDICT, PROBABILITY] if labels else [PREDICT]
    found = dict(zip(names, start_session(model).run(names, feeds(asked, engine)), strict=True))
    if labels:
        close = np.abs(found[PROBABILITY] - expected.probability).max() <= _TOLERANCE
        codes = engine.codes.tolist()
        wanted = [labels[codes.index(code)] for code in expected.predict.tolist()]
        texts = all(isinstance(label, str) for label in found[PREDICT].tolist())
        wanted = [str(label) for label in wanted] if texts else wanted
        same = bool(close) and found[PREDICT].tolist() == wanted
    else:
        same = bool(np.allclose(found[PREDICT], expected.predict, rtol=_TOLERANCE, atol=0))
    if not same:
        raise ModelError(
            where,
            f"the composed model must answer {len(all_rows)} rows as the engine does, got other answers",
            "Nothing was written. Report it with the version's estimator.",
        )


def _row(rows: pd.DataFrame, engine: OnnxPredictor) -> dict[str, Any]:
    """Return the first row as the exported model takes it."""
    given = feeds(columns_of(rows.iloc[:1]), engine)
    return {name: values.tolist()[0] for name, values in given.items()}


def _python(row: Mapping[str, Any]) -> str:
    return repr(dict(row)).replace(": nan", ': float("nan")')


def _readme(name: str, meta: Mapping[str, Any], engine: OnnxPredictor, labels: list[Any]) -> str:
    known = [
        block.names if isinstance(block, Numbers) else (block.name,)
        for block in engine.preparation.blocks
    ]
    numeric = set(meta["features"]["numeric"])
    lines = [
        f"| `{feature}` | {'number (double), NaN' if feature in numeric else 'text'} |"
        for names in known
        for feature in names
    ]
    empty = missing_text(engine.preparation)
    answers = "`predict`: the value."
    if labels:
        answers = (
            "`predict`: the label. `probability`: one column per class, in the order "
            f"{json.dumps(labels, ensure_ascii=False)}."
        )
    return _README.format(
        name=name,
        target=meta.get("target", "the target"),
        inputs="\n".join(lines),
        empty=json.dumps(empty),
        answers=answers,
        snapshot=meta.get("snapshot_id", "unknown"),
        difference=meta["engine"]["max_difference"],
        rows=meta["engine"]["rows"],
    )


_EXAMPLE = '''"""Ask {name}.onnx; needs onnxruntime and numpy, nothing else."""
from pathlib import Path
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(Path(__file__).with_name("{name}.onnx"))
row = {row}
kinds = {{"tensor(double)": np.float64, "tensor(string)": object}}
feeds = {{i.name: np.array([row[i.name]], dtype=kinds[i.type]) for i in session.get_inputs()}}
for output, values in zip(session.get_outputs(), session.run(None, feeds)):
    print(output.name, values.tolist())
'''

_README = """# {name}

Predicts `{target}`. One file, `{name}.onnx`, holds preparation, estimator and labels; `example.py` asks it for one
row with ONNX Runtime and NumPy alone. Made by `evergreen export`.

| input, shape (rows,) | type |
|---|---|
{inputs}

A missing number is NaN, a missing text is {empty}. Categories are texts as in the training data: whole numbers without
a fraction (`"3"`), truth values `"true"` and `"false"`. A text training never saw is treated as in serving.

{answers}

Trained on snapshot `{snapshot}`. Against scikit-learn, the largest difference was {difference} in {rows} rows.
"""
