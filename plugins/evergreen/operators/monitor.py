"""What the tasks of a monitor Dag share: the window, the champion's reference, the work files.

Work files lie in the store as `monitor/<model>/work/<run>-<content>`: whoever reads one reads all of it, whatever
another attempt writes meanwhile. They are copies of the log and go when the pass ends.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.operators.stage import StageOperator, as_of, run_key
from include.errors import ConflictError, DataError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.ledger.chain import Event
    from include.monitor.findings import Finding
    from include.monitor.reference import Reference
    from include.monitor.windows import Window
    from include.registry.package import Version

_HISTORY = 1000  # passes looked back at


class MonitorOperator(StageOperator):
    """Base of the operators of a monitor Dag.

    Args:
        collected: What `collect` returned; None where it was skipped.
    """

    template_fields: Sequence[str] = (*StageOperator.template_fields, "collected")
    ui_color = "#eee6f7"

    def __init__(self, *, collected: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.collected = collected

    @cached_property
    def reference(self) -> Reference:
        """What the judged version learned from."""
        from include.monitor.opening import open_reference

        version = self.bench.registry.get_version(self.model, self.collected["version"])
        if version is None:
            raise ConflictError(
                f"model {self.model}",
                f"must still have version {self.collected['version']}, got none",
                "Start a new pass.",
            )
        bench = self.bench
        return open_reference(bench.spec, bench.store, bench.registry, version, bench.settings.home)

    @property
    def window(self) -> Window:
        """The window this pass judges."""
        return to_window(self.collected["window"])

    @contextmanager
    def window_file(self) -> Iterator[Path]:
        """Yield the Parquet file that `collect` wrote; a copy of it goes at the end, and never into the cache."""
        from include.store.parts import PartGoneError, local_part, scratch

        key = self.collected["file"]
        with scratch() as folder:
            try:
                path = local_part(self.bench.store, key, folder)
            except PartGoneError:
                raise self._gone(key) from None
            yield path

    def keep_findings(self, context: Context, findings: Sequence[Finding]) -> dict[str, Any]:
        """Put findings where later tasks find them; return what goes to XCom."""
        for finding in findings:
            if finding.status in ("warn", "alert"):
                self.log.warning("%s: %s", finding.status, finding.message)
        data = json.dumps([asdict(finding) for finding in findings]).encode()
        key = f"{work_prefix(self.model, context)}{hashlib.sha256(data).hexdigest()}.json"
        self.bench.store.write_bytes(key, data)
        return {"file": key, "findings": count_by_status(findings)}

    def read_findings(self, *results: Any) -> tuple[Finding, ...]:
        """Return the findings of tasks, by what they returned; one that was skipped found nothing."""
        from include.monitor.findings import Finding

        found: list[Finding] = []
        for result in results:
            if result:
                try:
                    data = self.bench.store.read_bytes(result["file"])
                except DataError:
                    raise self._gone(result["file"]) from None
                found += (Finding(**row) for row in json.loads(data))
        return tuple(found)

    def passes(self, version: str) -> dict[str, Event]:
        """Return the ledger's row of each window of a version, by the window's key, oldest first."""
        events = self.rows_of(version)
        mine = {event.payload["window"]: event for event in events}
        return {window: mine[window] for window in sorted(mine)}

    def rows_of(self, version: str, window: str | None = None) -> list[Event]:
        """Return the ledger's rows of a version, or of one of its windows, in the order they were written."""
        prefix = f"monitor/{version}/{window or ''}"
        return self.bench.ledger.events(self.model, "monitor", _HISTORY, prefix=prefix)

    def champion(self) -> Version | None:
        """Return the version that is champion now."""
        return self.bench.registry.get_version(self.model, "champion")

    def _gone(self, key: str) -> ConflictError:
        return ConflictError(
            self.bench.store.uri(key),
            "must be there while a pass goes on, got nothing",
            "The pass has ended: clear its run from `collect` on.",
        )


def pass_time(context: Context) -> datetime:
    """Return the time a pass judges by: `as_of` where given, else when its run was due, the same on every try."""
    due: datetime = context["dag_run"].run_after
    return as_of(context) or due


def work_prefix(model: str, context: Context) -> str:
    """Return what the keys of a pass's work files begin with."""
    return f"monitor/{model}/work/{hashlib.sha256(run_key(context).encode()).hexdigest()[:16]}-"


def to_window(given: Mapping[str, str]) -> Window:
    """Return the window that `from_window` wrote down."""
    from include.monitor.windows import Window

    return Window(*(datetime.fromisoformat(given[name]) for name in ("start", "end")))


def from_window(window: Window) -> dict[str, str]:
    """Return a window as plain values."""
    return {
        "key": window.key,
        "start": window.start.isoformat(),
        "end": window.end.isoformat(),
    }


def count_by_status(findings: Sequence[Finding]) -> dict[str, int]:
    """Return how many findings there are of each status that occurs."""
    names = sorted({finding.status for finding in findings})
    return {name: sum(finding.status == name for finding in findings) for name in names}


def is_backfill(context: Context) -> bool:
    """Tell whether the run makes up for the past: then it records, and asks for nothing."""
    return bool(context["dag_run"].run_type.value == "backfill")
