"""A small client for Airflow's REST API v2: trigger a Dag, follow its tasks, read its results.

It works against the embedded Airflow and any other: only URL and login differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx

from include.errors import EvergreenError, ServiceError, SpecError
from include.settings import Settings
from include.stack.airflow_replies import database_was_busy, failure, last_error
from include.stack.credentials import read_credentials
from include.stack.layout import get_layout
from include.stack.status import running_settings

_PAGE = 100
_BUSY_TRIES = 3  # each has waited five seconds for the lock already
#: States in which nothing more happens to a run.
FINISHED_RUN = ("success", "failed")
_FAILED_TASK = ("failed", "upstream_failed")


@dataclass(frozen=True)
class TaskState:
    """One task instance of a run.

    Args:
        task_id: The task.
        map_index: Index of a mapped task; -1 when it is not mapped.
        state: Airflow's word for it; None before it is scheduled.
        try_number: Attempt, from 1; 0 before the first.
        seconds: Duration so far or in total; None before the start.
        label: What the UI calls a mapped instance; None without such a name.
    """

    task_id: str
    map_index: int
    state: str | None
    try_number: int
    seconds: float | None
    label: str | None

    @property
    def name(self) -> str:
        """Task id, with the index or label of a mapped instance in brackets."""
        if self.map_index < 0:
            return self.task_id
        return f"{self.task_id} [{self.label or self.map_index}]"


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Args:
        dag_id: The Dag.
        run_id: The run.
        state: `success` or `failed`.
        tasks: Its task instances.
    """

    dag_id: str
    run_id: str
    state: str
    tasks: tuple[TaskState, ...]

    @property
    def failed_tasks(self) -> tuple[TaskState, ...]:
        """The tasks that failed themselves, not those that were skipped over because of them."""
        return tuple(task for task in self.tasks if task.state == "failed")


class AirflowClient:
    """Talks to one Airflow as one user.

    Args:
        url: Base URL.
        user: User name.
        password: Password.
        timeout: Seconds to wait for one answer.
    """

    def __init__(self, url: str, user: str, password: str, *, timeout: float = 30.0) -> None:
        self.url = url.rstrip("/")
        self._login = {"username": user, "password": password}
        local = urlsplit(self.url).hostname in {"127.0.0.1", "localhost", "::1"}
        self._http = httpx.Client(base_url=self.url, timeout=timeout, trust_env=not local)
        self._token: str | None = None

    def __enter__(self) -> AirflowClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ServiceError(
                f"Airflow ({self.url})",
                f"must answer, got {type(error).__name__}: {error}",
                "Start it with `./evergreen up`, or see `./evergreen status`.",
            ) from error

    def _authorize(self) -> str:
        answer = self._send("POST", "/auth/token", json=self._login)
        if answer.status_code != 201:
            raise ServiceError(
                f"Airflow ({self.url})",
                f"must accept the login of {self._login['username']!r}, got status {answer.status_code}",
                "Check EVERGREEN_AIRFLOW_URL and the login in it.",
            )
        token: str = answer.json()["access_token"]
        return token

    def request(self, method: str, path: str, what: str, **options: Any) -> Any:
        """Send one authorised request and return the JSON of its answer.

        Args:
            method: HTTP method.
            path: Path below `/api/v2`.
            what: What is asked for, to begin an error with.
            options: For httpx: `json`, `params`.

        Raises:
            SpecError: What was asked for is not there or its parameters are wrong (400, 404, 422).
            ConflictError: It exists already (409).
            ServiceError: Airflow is away, refuses the user or is broken.
        """
        answer = self._authorized(method, path, options)
        if answer.status_code == 401:  # the token ran out, or the keys changed with a restart
            self._token = None
            answer = self._authorized(method, path, options)
        for _ in range(_BUSY_TRIES):
            if not database_was_busy(answer):
                break
            answer = self._authorized(method, path, options)
        if answer.is_success:
            return answer.json() if answer.content else None
        raise failure(answer, what, self.url)

    def _authorized(self, method: str, path: str, options: Mapping[str, Any]) -> httpx.Response:
        self._token = self._token or self._authorize()
        headers = {"Authorization": f"Bearer {self._token}"}
        return self._send(method, f"/api/v2{path}", headers=headers, **options)

    def dag(self, dag_id: str) -> dict[str, Any]:
        """Return a Dag's details, with the schema of its parameters under `params`."""
        details: dict[str, Any] = self.request(
            "GET", f"/dags/{quote(dag_id)}/details", f"Dag {dag_id}"
        )
        return details

    def wait_for_dag(self, dag_id: str, timeout: float = 30.0) -> dict[str, Any]:
        """Return a Dag's details as soon as Airflow has parsed it.

        Args:
            dag_id: The Dag.
            timeout: Seconds; right after a start or a new spec, parsing may not be done.

        Raises:
            SpecError: It is not there in time; names the import error if there is one.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self.dag(dag_id)
            except SpecError as error:
                if time.monotonic() > deadline:
                    raise self._not_parsed(dag_id) or error from None
            time.sleep(0.5)

    def _not_parsed(self, dag_id: str) -> SpecError | None:
        errors = self.request("GET", "/importErrors", "import errors")["import_errors"]
        if not errors:
            return None
        last = errors[-1]["stack_trace"].strip().splitlines()[-1]
        return SpecError(
            f"Dag {dag_id}", f"must be parsed, got {last}", "See the import error in Airflow's UI."
        )

    def set_paused(self, dag_id: str, paused: bool) -> None:
        """Pause or unpause a Dag."""
        self.request("PATCH", f"/dags/{quote(dag_id)}", f"Dag {dag_id}", json={"is_paused": paused})

    def trigger(
        self, dag_id: str, conf: Mapping[str, Any] | None = None, dag_run_id: str | None = None
    ) -> dict[str, Any]:
        """Start a run and return it as Airflow describes it.

        Args:
            dag_id: The Dag.
            conf: Its parameters; Airflow checks them against the Dag's schema.
            dag_run_id: Id of the run, so that a repeated request does not start a second; None has
                Airflow make one.

        Raises:
            SpecError: No such Dag, or a parameter is wrong.
            ConflictError: There is a run of that id.
        """
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf or {})}
        if dag_run_id is not None:
            body["dag_run_id"] = dag_run_id
        run: dict[str, Any] = self.request(
            "POST", f"/dags/{quote(dag_id)}/dagRuns", f"Run of {dag_id}", json=body
        )
        return run

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return one run."""
        path = f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}"
        result: dict[str, Any] = self.request("GET", path, f"Run {run_id} of {dag_id}")
        return result

    def runs(self, dag_id: str, limit: int = 25) -> list[dict[str, Any]]:
        """Return the latest runs, newest first."""
        found: list[dict[str, Any]] = self.request(
            "GET",
            f"/dags/{quote(dag_id)}/dagRuns",
            f"Runs of {dag_id}",
            params={"limit": limit, "order_by": "-run_after"},
        )["dag_runs"]
        return found

    def task_instances(self, dag_id: str, run_id: str) -> tuple[TaskState, ...]:
        """Return all task instances of a run, in the order Airflow lists them."""
        path = f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}/taskInstances"
        found: list[dict[str, Any]] = []
        while True:
            page = self.request(
                "GET", path, f"Tasks of {run_id}", params={"limit": _PAGE, "offset": len(found)}
            )
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                break
        return tuple(
            TaskState(
                item["task_id"],
                item["map_index"],
                item["state"],
                item["try_number"],
                item["duration"],
                item.get("rendered_map_index"),
            )
            for item in found
        )

    def xcom(
        self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1
    ) -> Any:
        """Return what a task handed on.

        Raises:
            SpecError: It handed on nothing under that key.
        """
        path = (
            f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}/taskInstances/{quote(task_id)}"
            f"/xcomEntries/{quote(key)}"
        )
        params = {"map_index": map_index, "stringify": False, "deserialize": False}
        return self.request("GET", path, f"Result of {task_id}", params=params)["value"]

    def last_words(self, dag_id: str, run_id: str, task: TaskState) -> str:
        """Return the last error line in a task's log; empty when there is none."""
        path = (
            f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}/taskInstances/{quote(task.task_id)}"
            f"/logs/{max(task.try_number, 1)}"
        )
        try:
            log = self.request(
                "GET", path, "Log", params={"map_index": task.map_index, "full_content": True}
            )
        except EvergreenError:
            return ""
        return last_error(log.get("content") or [])

    def wait(
        self,
        dag_id: str,
        run_id: str,
        progress: Callable[[str, Sequence[TaskState]], None] | None = None,
        *,
        timeout: float | None = None,
        poll: float = 0.5,
        patience: float = 60.0,
    ) -> RunResult:
        """Follow a run to its end.

        Args:
            dag_id: The Dag.
            run_id: The run.
            progress: Called with the run's state and its tasks at every look.
            timeout: Seconds to wait in total; None waits for as long as it takes.
            poll: Seconds between two looks.
            patience: Seconds Airflow may be away meanwhile, for example while it is restarted.

        Raises:
            ServiceError: The time is over, or Airflow stayed away.
        """
        began = seen = time.monotonic()
        while True:
            try:
                state = self.run(dag_id, run_id)["state"]
                tasks = self.task_instances(dag_id, run_id)
                seen = time.monotonic()
                if progress:
                    progress(state, tasks)
                if state in FINISHED_RUN:
                    return RunResult(dag_id, run_id, state, tasks)
            except ServiceError:
                if time.monotonic() - seen > patience:
                    raise
            if timeout is not None and time.monotonic() - began > timeout:
                raise ServiceError(
                    f"Run {run_id} of {dag_id}",
                    f"must end within {timeout:.0f} s, got no end",
                    "It goes on; look at it in Airflow's UI.",
                )
            time.sleep(poll)


def open_client(settings: Settings) -> AirflowClient:
    """Return a client for the configured Airflow.

    The login is that in EVERGREEN_AIRFLOW_URL (`https://user:password@host`), else that of the embedded
    stack's service user.

    Raises:
        ServiceError: There is no login: the stack was never started.
    """
    settings = running_settings(settings)
    parts = urlsplit(settings.airflow)
    if parts.username:
        host = parts.netloc.rpartition("@")[2]
        url = parts._replace(netloc=host).geturl()
        return AirflowClient(url, unquote(parts.username), unquote(parts.password or ""))
    credentials = read_credentials(get_layout(settings.home))
    if credentials is None:
        raise ServiceError(
            "Airflow",
            "must have been started once, got no passwords",
            "Run `./evergreen up` first.",
        )
    return AirflowClient(settings.airflow, "service", credentials.service)
