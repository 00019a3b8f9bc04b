"""The servers side by side: how each is started, asked and understood.

Owns one class a server. Every server has a process of its own per model, one worker, and gets the same rows in the
form it documents.
"""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.serving_peers.environments import HERE, ensure
from benchmarks.serving_peers.models import CANARY, CATEGORICAL, NUMERIC
from tests.servers import free_port

ROOT = HERE.parent.parent
Columns = Mapping[str, list[Any]]


@dataclass(frozen=True)
class Model:
    """A registered model, and where the servers find it.

    Attributes:
        family: Its registered name.
        folder: Of its files: `model.joblib`, and `version`, the registered version's folder.
        mlflow_url: The registry.
        scratch: Folder for what a server writes.
        sizes: Bytes of Evergreen's answer by number of rows.
    """

    family: str
    folder: Path
    mlflow_url: str
    scratch: Path
    sizes: Mapping[int, int]

    @property
    def joblib(self) -> Path:
        """The fitted pipeline."""
        return self.folder / "model.joblib"


@dataclass(frozen=True)
class Answer:
    """What a server said of some rows.

    Attributes:
        codes: 0 or 1 a row.
        chance: Probability of class 1 a row; None where the server answers none.
    """

    codes: list[int]
    chance: list[float] | None


class Side(ABC):
    """A server. `name` is its column in the tables, `legend` says what it is."""

    name: ClassVar[str]
    legend: ClassVar[str]
    peer: ClassVar[bool] = True
    #: Seconds after which it has finished what it put off.
    quiet: ClassVar[float] = 0.06

    @property
    def app_name(self) -> str:
        """Name for files."""
        return type(self).__name__.lower()

    def prepare(self) -> None:  # noqa: B027  # most need nothing
        """Install what it needs.

        Raises:
            InstallError: That fails here.
        """

    @abstractmethod
    def command(self, model: Model, port: int) -> list[str]:
        """Return how to start it."""

    def environment(self, model: Model, port: int) -> dict[str, str]:  # noqa: ARG002
        """Return what its environment needs besides this process's."""
        return {}

    @abstractmethod
    def path(self, model: Model, rows: int) -> str:
        """Return where to POST."""

    @abstractmethod
    def body(self, columns: Columns) -> Any:
        """Return the request for these rows."""

    @abstractmethod
    def read(self, answer: Any) -> Answer | None:
        """Return what the answer says; None when it says nothing."""


class Evergreen(Side):
    """The real process: checks, routing, both logs and metrics."""

    name = "evergreen"
    legend = (
        "`python -m include.serving`, everything on; its prediction log written every half second instead of every "
        "five, so that a round pays for its own"
    )
    peer = False
    quiet = 0.7  # longer than the prediction log waits, see below

    def command(self, model: Model, port: int) -> list[str]:  # noqa: ARG002
        return [sys.executable, "-m", "include.serving"]

    def environment(self, model: Model, port: int) -> dict[str, str]:
        return {
            "EVERGREEN_HOME": str(model.scratch),
            "EVERGREEN_MLFLOW_URL": model.mlflow_url,
            "EVERGREEN_SERVING_PORT": str(port),
            "EVERGREEN_SERVING_WORKERS": "1",
            "EVERGREEN_ACCESS_LOG": "true",
            # Rather than 5: a round's predictions are written in that round, at its own expense.
            "EVERGREEN_LOG_SECONDS": "0.5",
        }

    def path(self, model: Model, rows: int) -> str:  # noqa: ARG002
        return f"/v2/models/{model.family}/infer"

    def body(self, columns: Columns) -> Any:
        return tensors(columns)

    def read(self, answer: Any) -> Answer:
        found = {output["name"]: output["data"] for output in answer["outputs"]}
        return Answer(
            [int(label == "yes") for label in found["predict"]], found["probability"][1::2]
        )


class Canary(Evergreen):
    """The same with a rollout under way."""

    name, legend = "+ canary", "the same, a second version taking a tenth of the requests"

    def path(self, model: Model, rows: int) -> str:  # noqa: ARG002
        return f"/v2/models/{CANARY}/infer"


class MlflowServe(Side):
    """`mlflow models serve` of the registered version, in Evergreen's environment."""

    name, legend = "mlflow", "`mlflow models serve`, local environment"

    def command(self, model: Model, port: int) -> list[str]:
        command = [sys.executable, "-m", "mlflow", "models", "serve", "--workers", "1"]
        command += ["--model-uri", f"models:/{model.family}@champion", "--env-manager", "local"]
        return [*command, "--host", "127.0.0.1", "--port", str(port)]

    def environment(self, model: Model, port: int) -> dict[str, str]:  # noqa: ARG002
        return {"MLFLOW_TRACKING_URI": model.mlflow_url, "MLFLOW_DISABLE_TELEMETRY": "true"}

    def path(self, model: Model, rows: int) -> str:  # noqa: ARG002
        return "/invocations"

    def body(self, columns: Columns) -> Any:
        split = {"columns": list(columns), "data": list(zip(*columns.values(), strict=True))}
        return {"dataframe_split": split}

    def read(self, answer: Any) -> Answer:
        return Answer(answer["predictions"], None)


class MlServer(Side):
    """MLServer with its scikit-learn runtime."""

    name, legend = "mlserver", "MLServer 1.7 with its scikit-learn runtime"

    def prepare(self) -> None:
        self._bin = ensure("mlserver").parent

    def command(self, model: Model, port: int) -> list[str]:
        settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port()}
        settings |= {"metrics_port": free_port(), "parallel_workers": 0, "debug": False}
        parameters = {"uri": str(model.joblib), "content_type": "pd"}
        runtime = {"name": "bench", "implementation": "mlserver_sklearn.SKLearnModel"}
        (model.scratch / "settings.json").write_text(json.dumps(settings))
        told = json.dumps(runtime | {"parameters": parameters})
        (model.scratch / "model-settings.json").write_text(told)
        return [str(self._bin / "mlserver"), "start", str(model.scratch)]

    def path(self, model: Model, rows: int) -> str:  # noqa: ARG002
        return "/v2/models/bench/infer"

    def body(self, columns: Columns) -> Any:
        return tensors(columns)

    def read(self, answer: Any) -> Answer:
        return Answer(answer["outputs"][0]["data"], None)


class BentoMl(Side):
    """BentoML; the service is `bento_service.py`."""

    name, legend = "bentoml", "BentoML 1.4"

    def prepare(self) -> None:
        self._bin = ensure("bentoml").parent

    def command(self, model: Model, port: int) -> list[str]:  # noqa: ARG002
        command = [str(self._bin / "bentoml"), "serve", "bento_service:Model"]
        command += ["--working-dir", str(HERE)]
        return [*command, "--host", "127.0.0.1", "--port", str(port)]

    def environment(self, model: Model, port: int) -> dict[str, str]:  # noqa: ARG002
        home = {"BENTOML_HOME": str(model.scratch), "BENTOML_DO_NOT_TRACK": "True"}
        return columns_environment() | home | {"BENCH_MODEL": str(model.joblib)}

    def path(self, model: Model, rows: int) -> str:  # noqa: ARG002
        return "/predict"

    def body(self, columns: Columns) -> Any:
        rows = zip(*columns.values(), strict=True)
        return {"rows": [dict(zip(columns, row, strict=True)) for row in rows]}

    def read(self, answer: Any) -> Answer:
        return Answer(answer["predict"], [row[1] for row in answer["probability"]])


class Uvicorn(Side):
    """An app of this folder under uvicorn, in Evergreen's environment."""

    app: ClassVar[str]

    def command(self, model: Model, port: int) -> list[str]:  # noqa: ARG002
        command = [sys.executable, "-m", "uvicorn", f"benchmarks.serving_peers.{self.app}:app"]
        command += ["--no-access-log", "--log-level", "warning", "--loop", "uvloop"]
        command += ["--http", "httptools", "--lifespan", "off"]
        return [*command, "--host", "127.0.0.1", "--port", str(port)]

    def environment(self, model: Model, port: int) -> dict[str, str]:  # noqa: ARG002
        places = {"BENCH_MODEL": str(model.joblib), "BENCH_FOLDER": str(model.folder / "version")}
        return columns_environment() | places

    def path(self, model: Model, rows: int) -> str:  # noqa: ARG002
        return "/predict"

    def body(self, columns: Columns) -> Any:
        return columns

    def read(self, answer: Any) -> Answer | None:
        return Answer(answer["predict"], [row[1] for row in answer["probability"]])


class FastApi(Uvicorn):
    """FastAPI and the fitted pipeline."""

    name, legend, app = "fastapi", "bare FastAPI + scikit-learn", "fastapi_sklearn"


class StarletteOnnx(Uvicorn):
    """Starlette and Evergreen's graph."""

    name, legend = "bare onnx", "bare Starlette + Evergreen's own ONNX engine, checks nothing"
    app = "starlette_onnx"
    peer = False


class Constant(Uvicorn):
    """uvicorn and nothing else."""

    name, legend = "uvicorn", "bare uvicorn, a constant of the same size"
    app = "constant"
    peer = False

    def environment(self, model: Model, port: int) -> dict[str, str]:  # noqa: ARG002
        return {"BENCH_SIZES": " ".join(str(size) for size in model.sizes.values())}

    def path(self, model: Model, rows: int) -> str:
        return f"/{model.sizes[rows]}"

    def body(self, columns: Columns) -> Any:
        return tensors(columns)

    def read(self, answer: Any) -> None:  # noqa: ARG002
        return None


def tensors(columns: Columns) -> Any:
    """Return rows in the Open Inference Protocol, a tensor a column."""
    inputs = []
    for name, values in columns.items():
        kind = "FP64" if name in NUMERIC else "BYTES"
        inputs.append({"name": name, "shape": [len(values)], "datatype": kind, "data": values})
    return {"inputs": inputs}


def columns_environment() -> dict[str, str]:
    """Return the columns' names for the apps of this folder."""
    return {"BENCH_NUMERIC": " ".join(NUMERIC), "BENCH_CATEGORICAL": " ".join(CATEGORICAL)}


#: In the order of the tables.
SIDES: tuple[type[Side], ...] = (
    Evergreen,
    MlflowServe,
    MlServer,
    BentoMl,
    FastApi,
    StarletteOnnx,
    Constant,
    Canary,
)
