"""The stage of a play on a running stack: files for upstream, HTTP for everything else.

Owns how simulated rows become requests, labels and runs, and that each of them may be sent twice.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import count
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx
import orjson
import pandas as pd

from include.deploy.client import key_header
from include.errors import ConflictError, ServiceError, SpecError
from include.settings import Settings
from include.simulator.batches import write_batch
from include.simulator.play import Asked
from include.simulator.scenarios import KEY, TARGET, TIME
from include.spec.schema import Spec
from include.spec.sources import FileSource
from include.stack.airflow_client import FINISHED_RUN, AirflowClient, RunResult
from include.store.files import Store
from include.store.predictions import copy_window

_ROWS = 200  # a request
_LABELS = 2000  # a post
_TRIES, _PAUSE = 6, 0.5
_DATATYPES = {"b": "BOOL", "i": "INT64", "u": "INT64", "f": "FP64"}


def source_folder(spec: Spec, settings: Settings) -> Path:
    """Return where the model's upstream puts its files.

    Raises:
        SpecError: The model does not learn from the simulated customers' files.
    """
    source, ingest = spec.ingest.source, spec.ingest
    if not isinstance(source, FileSource) or not isinstance(source.path, str):
        raise SpecError(
            f"{spec.model}.yaml: ingest.source",
            "must be one glob of files for the simulator, got another",
            "Restore it.",
        )
    if (ingest.key, ingest.time, ingest.target) != (KEY, TIME, TARGET):
        raise SpecError(
            f"{spec.model}.yaml: ingest",
            f"must have key {KEY}, time {TIME} and target {TARGET} for the simulator, got "
            f"{ingest.key}, {ingest.time} and {ingest.target}",
            "Play on the example model or a copy of it.",
        )
    return settings.resolve(source.path).parent


@dataclass
class LiveStage:
    """A running stack.

    Attributes:
        spec: The model.
        folder: Where upstream's files go.
        store: Where the prediction log is.
        serving: Base URL of the serving process.
        airflow: Airflow.
        follow: Called with the Dag and run id to wait for a training run; returns its result.
        warn: Called with what went wrong without ending the play.
        patience: Seconds to wait for the log.
        key: Gives the API key of serving, empty for none; asked at each request, for a first one may come meanwhile.
    """

    spec: Spec
    folder: Path
    store: Store
    serving: str
    airflow: AirflowClient
    follow: Callable[[str, str], RunResult] | None = None
    warn: Callable[[str], None] = lambda _: None
    patience: float = 30.0
    key: Callable[[], str] = field(default=lambda: "", repr=False)
    _http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self._http = httpx.Client(
            base_url=self.serving.rstrip("/"),
            auth=self._with_key,
            timeout=30,
            trust_env=False,
        )

    def _with_key(self, request: httpx.Request) -> httpx.Request:
        request.headers.update(key_header(self.key()))
        return request

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    # --- upstream and live traffic ----------------------------------------------------------------

    def deliver(self, day: date, batch: pd.DataFrame) -> None:
        """Write the day's Parquet file."""
        write_batch(self.folder, day, batch)

    def ask(self, day: date, rows: pd.DataFrame) -> Asked:
        """Send the rows in order, some hundred a request; count those the endpoint refuses."""
        refused = 0
        for number, start in enumerate(range(0, len(rows), _ROWS)):
            part = rows.iloc[start : start + _ROWS]
            body = {"id": f"sim-{self.spec.model}-{day}-{number}", "inputs": list(_tensors(part))}
            answer = self._post("infer", body)
            if answer.status_code == 400:
                refused += len(part)
            elif not answer.is_success:
                raise self._unhappy("must answer live requests", answer)
        return Asked(len(rows), refused)

    def tell(self, labels: pd.DataFrame) -> None:
        """Post labels by key and time."""
        rows = [
            {"key": key, "time": at.isoformat(), "label": label}
            for key, at, label in labels[[KEY, TIME, TARGET]].itertuples(index=False)
        ]
        for start in range(0, len(rows), _LABELS):
            answer = self._post("labels", {"labels": rows[start : start + _LABELS]})
            if not answer.is_success:
                raise self._unhappy("must take labels", answer)

    def settle(self, start: datetime, end: datetime, rows: int) -> None:
        """Wait until the log holds the window's rows; serving writes them a little later than it answers."""
        until = time.monotonic() + self.patience
        while (found := self._logged(start, end)) < rows:
            if time.monotonic() > until:
                self.warn(f"{found:,} of {rows:,} predictions of {start:%Y-%m-%d} are in the log")
                return
            time.sleep(_PAUSE)

    def _logged(self, start: datetime, end: datetime) -> int:
        with tempfile.TemporaryDirectory(prefix="evergreen-simulator-") as folder:
            return copy_window(self.store, self.spec.model, start, end, Path(folder) / "rows")

    def _post(self, what: str, body: dict[str, Any]) -> httpx.Response:
        path = f"/v2/models/{quote(self.spec.model)}/{what}"
        content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        headers = {"Content-Type": "application/json"}
        for attempt in range(_TRIES):
            with suppress(httpx.TransportError):
                answer = self._http.post(path, content=content, headers=headers)
                if answer.status_code != 503:
                    return answer
            if attempt < _TRIES - 1:
                time.sleep(_PAUSE * 2**attempt)
        raise ServiceError(
            f"serving at {self.serving}",
            f"must answer {path}, got nothing in {_TRIES} attempts",
            "See `./evergreen status`; then play again, it goes on where it stopped.",
        )

    def _unhappy(self, rule: str, answer: httpx.Response) -> ServiceError:
        return ServiceError(
            f"serving at {self.serving}",
            f"{rule}, got status {answer.status_code}: {answer.text[:300]}",
            "See `./evergreen logs serving`; then play again, it goes on where it stopped.",
        )

    # --- runs -------------------------------------------------------------------------------------

    def train(self, run_id: str, as_of: datetime) -> None:
        """Have Airflow train, and wait; a run that failed before is followed by another one.

        Raises:
            ServiceError: The run failed.
        """
        conf = {"reason": "simulator: first training", "trigger": "api", "as_of": _text(as_of)}
        dag_id, name = f"{self.spec.model}__train", run_id
        for attempt in count(2):
            new = self._start(dag_id, name, conf)
            result = self._wait(dag_id, name)
            if result.state == "success":
                return
            if new:
                raise ServiceError(
                    f"Run {name} of {dag_id}",
                    f"must succeed, got {self._words(result)}",
                    "See the run in Airflow; then play again.",
                )
            name = f"{run_id}__{attempt}"

    def monitor(self, run_id: str, as_of: datetime) -> None:
        """Have the monitor look, and wait for it and for the training it started."""
        dag_id = f"{self.spec.model}__monitor"
        self._start(dag_id, run_id, {"as_of": _text(as_of)})
        result = self._wait(dag_id, run_id)
        if result.state != "success":
            self.warn(f"{run_id} failed: {self._words(result)}")
        train = f"{self.spec.model}__train"
        for run in self.airflow.runs(train, limit=5):
            if run["state"] not in FINISHED_RUN and run["dag_run_id"].startswith("retrain__"):
                trained = self._wait(train, run["dag_run_id"])
                if trained.state != "success":
                    self.warn(f"{trained.run_id} failed: {self._words(trained)}")

    def _start(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> bool:
        """Start a run; return whether it is new, and was not started before a kill."""
        if self.airflow.wait_for_dag(dag_id, timeout=60)["is_paused"]:
            raise SpecError(
                f"Dag {dag_id}",
                "must not be paused, got a paused one whose runs would only wait",
                "Unpause it in Airflow's UI, then play again.",
            )
        try:
            self.airflow.trigger(dag_id, conf, run_id)
        except ConflictError:
            return False
        return True

    def _wait(self, dag_id: str, run_id: str) -> RunResult:
        if self.follow is not None and dag_id.endswith("__train"):
            return self.follow(dag_id, run_id)
        return self.airflow.wait(dag_id, run_id, poll=0.3)

    def _words(self, result: RunResult) -> str:
        said = [
            f"{task.name}: {self.airflow.last_words(result.dag_id, result.run_id, task)}"
            for task in result.failed_tasks
        ]
        return "; ".join(said) or result.state


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _tensors(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield each column as the Open Inference Protocol has it; missing is null, times are ISO texts."""
    for name, column in rows.items():
        values: list[Any]
        if isinstance(column.dtype, pd.DatetimeTZDtype):
            values = [at.isoformat() for at in column]
        else:
            values = [None if value != value else value for value in column.tolist()]  # NaN
        yield {
            "name": name,
            "datatype": _DATATYPES.get(column.dtype.kind, "BYTES"),
            "shape": [len(values)],
            "data": values,
        }
