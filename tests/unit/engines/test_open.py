"""A version folder is opened by the engine its metadata names, and exported as one file."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import SVR

from include.engines import export
from include.engines.convert import convert
from include.engines.export import export_onnx, feeds
from include.engines.opening import open_version
from include.engines.session import OnnxPredictor
from include.errors import ModelError
from include.registry.trust import dump_model
from include.serving.cache import Cache
from include.serving.engine import LoadedModel, build_engine
from tests.unit.engines.world import FEATURES, fit, plain, rows

LABELS = {"binary": ["no", "yes"], "multiclass": [1, 2, 7], "regression": []}
EXAMPLE = plain(rows(3, seed=4))


@dataclasses.dataclass(frozen=True)
class Stored:
    """What registration leaves of a version."""

    folder: Path
    meta: dict[str, Any]
    pipeline: Any


def store(estimator: Any, task: str, folder: Path) -> Stored:
    pipeline = fit(estimator, task)
    conversion = convert(pipeline, FEATURES, task, rows(100, seed=1), budget=1e-5)
    digest = dump_model(pipeline, folder / "model.skops")
    for name, content in conversion.files.items():
        (folder / name).write_bytes(content)
    meta = {
        "task": task,
        "target": "y",
        "features": FEATURES.to_dict(),
        "types": {},
        "classes": LABELS[task],
        "model_sha256": digest,
        "engine": dict(conversion.engine),
    }
    return Stored(folder, meta, pipeline)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Stored]:
    made = {
        task: store(estimator, task, tmp_path_factory.mktemp(task))
        for task, estimator in (
            ("binary", LogisticRegression(max_iter=500)),
            ("multiclass", HistGradientBoostingClassifier(max_iter=5)),
            ("regression", Ridge()),
        )
    }
    return made.__getitem__


def test_a_converted_version_is_served_by_onnx(
    stored: Callable[[str], Stored], tmp_path: Path
) -> None:
    version = stored("binary")
    predictor = open_version(version.folder, version.meta)
    model = LoadedModel("m", "1", predictor, version.meta, EXAMPLE, version.folder)
    engine = build_engine(model)
    assert (engine.kind, engine.platform) == ("onnx", "onnxruntime_onnx")
    assert engine.outputs == ("predict", "probability")
    assert 0 < engine.warm_ms < 1000
    assert engine.size_bytes > 100_000
    asked = plain(rows(20, seed=5))
    answer = engine.predict(asked)
    expected = version.pipeline.predict_proba(rows(20, seed=5))
    np.testing.assert_allclose(answer.probability, expected, rtol=0, atol=1e-12)
    assert answer.predict == [LABELS["binary"][code] for code in expected.argmax(axis=1)]


@pytest.mark.parametrize("task", LABELS)
def test_threads_that_ask_for_one_row_each_get_their_own(
    stored: Callable[[str], Stored], task: str
) -> None:
    version = stored(task)
    predictor = open_version(version.folder, version.meta)
    asked = plain(rows(40, seed=8))
    ones = [{name: values[n : n + 1] for name, values in asked.items()} for n in range(40)]
    together = predictor.answer(asked)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(predictor.answer, ones * 25))
    for number, answer in enumerate(answers):
        row = slice(number % 40, number % 40 + 1)
        assert answer.predict.shape == (1,)
        np.testing.assert_allclose(answer.predict, together.predict[row], rtol=1e-12)
        if together.probability is not None:
            assert answer.probability is not None
            np.testing.assert_allclose(answer.probability, together.probability[row], rtol=1e-12)


def test_scikit_learn_takes_over_where_the_metadata_or_the_file_says_so(
    stored: Callable[[str], Stored], tmp_path: Path
) -> None:
    version = stored("regression")
    without = {**version.meta, "engine": {"kind": "sklearn", "reason": "x"}}
    assert open_version(version.folder, without).kind == "sklearn"
    older = {name: value for name, value in version.meta.items() if name != "engine"}
    assert open_version(version.folder, older).kind == "sklearn"
    (tmp_path / "model.skops").write_bytes((version.folder / "model.skops").read_bytes())
    assert open_version(tmp_path, version.meta).kind == "sklearn"


@pytest.mark.parametrize("file", ["estimator.onnx", "preparation.json"])
def test_a_changed_file_is_refused(
    stored: Callable[[str], Stored], tmp_path: Path, file: str
) -> None:
    version = stored("regression")
    for path in version.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes() + b" ")
    with pytest.raises(ModelError, match="must have sha256"):
        open_version(tmp_path, version.meta)


FRESH = """
import sys
from pathlib import Path
import include.serving.app
from include.serving.cache import Cache
from include.serving.engine import build_engine
engine = build_engine(Cache(Path(sys.argv[1])).restore("m", "1"))
assert engine.kind == "onnx"
columns = {name: list(values)[:1] for name, values in engine.model.example.items()}
assert len(engine.predict(columns).predict) == 1
heavy = [n for n in ("sklearn", "pandas", "skops", "scipy", "mlflow", "onnx") if n in sys.modules]
assert not heavy, heavy
"""


def test_onnx_is_restored_and_answers_without_scikit_learn_or_pandas(
    stored: Callable[[str], Stored], tmp_path: Path
) -> None:
    version = stored("binary")
    folder = tmp_path / "m" / "1-abc"
    folder.mkdir(parents=True)
    for path in version.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    predictor = open_version(folder, version.meta)
    model = LoadedModel("m", "1", predictor, version.meta, EXAMPLE, folder)
    Cache(tmp_path).remember(model)
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


BLOCKED = """
import runpy, sys
for name in ("sklearn", "pandas", "skops", "scipy", "include"):
    sys.modules[name] = None
runpy.run_path(sys.argv[1])
"""


@pytest.mark.parametrize("task", LABELS)
def test_an_export_answers_as_the_engine_and_alone(
    stored: Callable[[str], Stored], tmp_path: Path, task: str
) -> None:
    version = stored(task)
    files = export_onnx(version.folder, version.meta, EXAMPLE, "m-1", tmp_path)
    assert [file.name for file in files] == ["m-1.onnx", "example.py", "README.md"]
    engine = open_version(version.folder, version.meta)
    assert isinstance(engine, OnnxPredictor)
    asked = plain(rows(50, seed=6))
    session = onnxruntime.InferenceSession(tmp_path / "m-1.onnx")
    found = session.run(None, feeds(asked, engine))
    expected = engine.answer(asked)
    if task == "regression":
        np.testing.assert_allclose(found[0], expected.predict, rtol=1e-12)
    else:
        assert found[0].tolist() == [LABELS[task][code] for code in expected.predict]
        np.testing.assert_allclose(found[1], expected.probability, rtol=0, atol=1e-12)
    program = tmp_path / "example.py"
    assert len(program.read_text().splitlines()) <= 10
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(program)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("predict [")
    assert "m-1.onnx" in (tmp_path / "README.md").read_text()


def test_a_version_on_scikit_learn_is_not_exported(tmp_path: Path) -> None:
    version = store(SVR(), "regression", tmp_path / "version")
    with pytest.raises(ModelError, match="got one on scikit-learn: cannot convert to a graph"):
        export_onnx(version.folder, version.meta, EXAMPLE, "m-1", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_that_answers_otherwise_is_not_written(
    stored: Callable[[str], Stored], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export.compose

    def other(preparation: Any, graph: bytes, labels: Any, ties: Any) -> Any:
        blocks = list(preparation.blocks)
        blocks[-1] = dataclasses.replace(blocks[-1], unknown=blocks[-1].missing, missing=0.0)
        return real(
            dataclasses.replace(preparation, blocks=tuple(blocks)), graph, labels[::-1], ties
        )

    monkeypatch.setattr(export, "compose", other)
    version = stored("binary")
    with pytest.raises(ModelError, match=r"must answer .* rows as the engine does"):
        export_onnx(version.folder, version.meta, EXAMPLE, "m-1", tmp_path / "out")
    assert not (tmp_path / "out").exists()
