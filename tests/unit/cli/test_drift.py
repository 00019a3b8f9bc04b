from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from include.cli.backtest import bench as benches
from include.cli.backtest.bench import Bench
from include.cli.group import evergreen
from include.ledger.ledger import Ledger
from include.monitor.reference import Reference
from include.registry.package import Version
from include.settings import Settings
from include.spec.schema import Spec
from include.store.folder import FolderStore
from tests.unit.monitor.logged import (
    BEGAN,
    DAYS,
    END,
    ROWS,
    START,
    log_day,
    make_reference,
    toy_spec,
)

VERSION = Version("toy", "3", "run", {}, ("champion",), "2026-03-01T00:00:00+00:00")


class Stand(Bench):
    """A bench whose version has its reference at hand, so that no MLflow is needed."""

    held: Reference

    def reference(self, version: str) -> Reference:
        assert version == "3"
        return self.held


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reference]:
    folder = tmp_path_factory.mktemp("world")
    store = FolderStore(folder / "store")
    for number in range(DAYS):
        day = START + timedelta(days=number)
        changed = day >= BEGAN
        broken = {"b": [None] * ROWS} if number == 5 else {}
        log_day(store, day, shift=0.8 if changed else 0.0, concept=changed, **broken)
    return folder / "store", make_reference(folder)


@pytest.fixture
def bench(
    world: tuple[Path, Reference], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Stand:
    folder, reference = world
    monkeypatch.setenv("EVERGREEN_STORE", str(folder))
    spec = toy_spec().model_dump(mode="json", by_alias=True) | {
        "retrain": {"on": ["drift", "decay"], "cooldown": "24h"}
    }
    made = Stand(Spec.model_validate(spec), Settings(), None, VERSION)  # type: ignore[arg-type]
    made.held = reference
    asked: list[str] = []

    def open_bench(name: str) -> Stand:
        asked.append(name)
        return made

    monkeypatch.setattr(benches, "open_bench", open_bench)
    yield made
    assert set(asked) <= {"toy"}


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(evergreen, ["drift", "toy", *map(str, arguments)])


def record_pass(ledger: Ledger, number: int, **payload: Any) -> None:
    start = START + timedelta(days=number)
    said = {"window": f"{start:%Y%m%dT%H%M%SZ}", "version": "3", "rows": ROWS} | payload
    ledger.record("toy", "monitor", f"monitor/3/{said['window']}", said, "monitor", END)


class TestOnePass:
    def test_a_calm_day(self, bench: Stand) -> None:
        result = run("--as-of", "2026-03-05")
        assert result.exit_code == 0, result.output
        assert (
            "toy version 3, 2026-03-04 00:00 to 2026-03-05 00:00 UTC, 200 predictions"
            in result.stdout
        )
        assert "labels judged of 2026-03-02 00:00 to 2026-03-03 00:00 UTC" in result.stdout
        assert "\nOK: nothing found in " in result.stdout
        assert "arbiter" not in result.stdout

    def test_a_drift_the_second_time(self, bench: Stand) -> None:
        record_pass(bench.ledger, 8, drifts=False, broken=False)
        record_pass(bench.ledger, 11, drifts=True, broken=False)
        before = bench.ledger.events()
        result = run("--as-of", END.isoformat())
        assert result.exit_code == 0, result.output
        assert "\nALERT: 2 of 3 features drifted" in result.stdout
        assert "in 2 of the last 3 windows (2 are enough)" in result.stdout
        assert "The monitor would ask for a retrain (drift)." in result.stdout
        assert (
            "The arbiter would answer RETRAIN: triggered by drift; drift: 2 of 3" in result.stdout
        )
        # looking leaves no trace
        assert bench.ledger.events() == before
        assert bench.ledger.requests("toy") == []

    def test_for_programs(self, bench: Stand) -> None:
        bench.ledger.freeze("toy", "audit", key="f", actor="ann", now=END)
        record_pass(bench.ledger, 10, drifts=False, broken=False)
        result = run("--json", "--as-of", END.isoformat())
        facts = json.loads(result.stdout)
        assert (facts["verdict"], facts["drifts"], facts["decays"]) == ("ALERT", True, True)
        assert [wish["source"] for wish in facts["wishes"]] == ["decay"]
        assert facts["arbiter"] == {"verdict": "SKIP", "reason": "the model is frozen: audit"}
        assert facts["window"]["key"] == "20260314T000000Z"
        assert facts["matured"] == "20260312T000000Z"
        drifted = [f["column"] for f in facts["findings"] if f["status"] == "alert"]
        assert {"a", "b"} <= set(drifted)

    def test_decay_of_a_window_that_no_pass_judged(self, bench: Stand) -> None:
        facts = json.loads(run("--json", "--as-of", END.isoformat()).stdout)
        assert (facts["verdict"], facts["decays"], facts["wishes"]) == ("ALERT", True, [])
        assert "its window was never judged for quality" in facts["reason"]

    def test_broken_data(self, bench: Stand) -> None:
        result = run("--json", "--as-of", "2026-03-08")
        facts = json.loads(result.stdout)
        assert (facts["broken"], facts["drifts"], facts["wishes"]) == (True, False, [])
        assert facts["reason"].startswith("broken data, so drift is not judged")

    def test_a_page(self, bench: Stand, tmp_path: Path) -> None:
        page = tmp_path / "deep" / "page.html"
        result = run("--as-of", END.isoformat(), "--html", page)
        assert result.stdout.splitlines()[-1] == f"Report: {page}"
        assert "<html" in page.read_text()[:1000]

    def test_no_predictions_at_all(self, bench: Stand) -> None:
        result = run("--as-of", "2025-03-08")
        assert result.exit_code == 0
        assert "0 predictions" in result.stdout
        assert "\nINSUFFICIENT DATA: " in result.stdout


class TestBacktest:
    def test_a_table_and_a_picture(self, bench: Stand, tmp_path: Path) -> None:
        plot = tmp_path / "deep" / "plot.png"
        result = run(
            "--backtest", "--as-of", END.isoformat(), "--drift-began", BEGAN.isoformat(), "--plot", plot
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        assert (
            "toy: 13 windows, 2026-03-02 to 2026-03-15, version 3; 2 of 3 windows, share 50%"
            in result.stdout
        )
        rows = [line.split() for line in result.stdout.splitlines() if "(spec)" in line]
        assert rows == [
            ["0.2", "(spec)", "4", "3", "0", "2"],
            ["0.08", "(spec)", "2", "2", "0", "3"],
        ]
        assert "Broken data in 1 window;" in result.stdout
        assert plot.read_bytes().startswith(b"\x89PNG")
        assert bench.ledger.events() == []

    def test_for_programs_between_dates(self, bench: Stand) -> None:
        result = run(
            "--backtest", "--json", "--from", "2026-03-04", "--to", "2026-03-06", "--as-of", END
        )
        assert result.exit_code == 0, result.output
        facts = json.loads(result.stdout)
        assert [w["key"] for w in facts["windows"]] == ["20260304T000000Z", "20260305T000000Z"]
        assert facts["windows"][0]["metric"] == pytest.approx(0.87, abs=0.1)
        own = [row for row in facts["thresholds"] if row["own"]]
        assert [(row["kind"], row["alarms"], row["delay"]) for row in own] == [
            ("drift", 0, None),
            ("decay", 0, None),
        ]

    def test_nothing_to_replay(self, bench: Stand) -> None:
        result = run("--backtest", "--to", "2025-01-01")
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: prediction log of toy: must hold windows to replay")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--plot", "x.png"], "--plot needs --backtest"),
        (["--backtest", "--html", "x.html"], "--html belongs to a single pass"),
        (["--as-of", "2999-01-01"], "must not lie in the future"),
        (["--as-of", "soon"], "must be a date or an ISO time"),
    ],
)
def test_options_that_make_no_sense(settings: Settings, arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_labels_are_read_from_a_source_that_needs_no_connection(
    bench: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path / "store")
    text = "id,at,y\nk1,2026-03-03T10:00:00Z,yes\n"
    (tmp_path / "labels.csv").write_text(text)
    data = yaml.safe_load(yaml.safe_dump(bench.spec.model_dump(mode="json", by_alias=True)))
    data["ingest"] |= {"key": "id", "time": "at"}
    data["monitor"]["labels"]["source"] = {"kind": "file", "path": f"{tmp_path}/labels.csv"}
    bench.spec, bench.store = Spec.model_validate(data), store  # type: ignore[misc]
    now = datetime(2026, 3, 6, tzinfo=UTC)
    bench.bring_labels(now)
    assert len(list(store.list("labels/toy/"))) == 1
    data["monitor"]["labels"]["source"] = {"kind": "sql", "query": "SELECT 1", "connection": "db"}
    bench.spec = Spec.model_validate(data)
    bench.bring_labels(now)  # Airflow's connections are not known here
