from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from include.serving import telemetry
from include.serving.telemetry import Metrics
from include.settings import ROOT

WORKER = """
import sys
from include.serving.telemetry import Metrics
metrics = Metrics()
waiting = int(sys.argv[1])
metrics.each_refresh(lambda: metrics.pending.set(waiting))
for _ in range(waiting):
    metrics.series("churn", "3", "champion", "infer").answered(2, 0.004)
metrics.champion.labels("churn", "2").set(1)
metrics.champion.remove("churn", "2")
metrics.champion.labels("churn", "3").set(1)
metrics.show_shares({("churn", "4", "canary"): 0.1})
metrics.show_shares({("churn", "4", "canary"): 0.5})
print(metrics.exposition().decode())
"""


def test_plain_numbers_are_handed_over_when_the_page_is_read() -> None:
    metrics = Metrics()
    series = metrics.series("churn", "3", "champion", "infer")
    series.answered(5, 0.0002)
    series.answered(1, 0.2)
    assert metrics.series("churn", "3", "champion", "infer") is series
    for _ in range(2):  # reading changes nothing
        page = metrics.exposition().decode()
        labels = 'arm="champion",model="churn"'
        assert f'requests_total{{{labels},route="infer",status="200",version="3"}} 2.0' in page
        assert 'serving_rows_total{model="churn",version="3"} 6.0' in page
        assert (
            'request_seconds_bucket{arm="champion",le="0.00025",model="churn",version="3"} 1.0'
            in page
        )
        assert f'request_seconds_count{{{labels},version="3"}} 2.0' in page


def test_what_holds_no_longer_is_gone() -> None:
    metrics = Metrics()
    metrics.show_shares({("churn", "4", "canary"): 0.5})
    assert 'mode="canary",model="churn",version="4"} 0.5' in metrics.exposition().decode()
    metrics.show_shares({})
    assert "canary" not in metrics.exposition().decode()


def test_several_workers_report_as_one(tmp_path: Path) -> None:
    environment = os.environ | {
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    for number in (1, 3):
        done = subprocess.run(
            [sys.executable, "-c", WORKER, str(number)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    page = done.stdout
    labels = 'arm="champion",model="churn"'
    assert f'requests_total{{{labels},route="infer",status="200",version="3"}} 4.0' in page
    assert 'serving_rows_total{model="churn",version="3"} 8.0' in page
    assert f'request_seconds_count{{{labels},version="3"}} 4.0' in page
    assert 'champion_info{model="churn",version="3"} 1.0' in page
    assert 'champion_info{model="churn",version="2"} 0.0' in page
    assert 'rollout_share{mode="canary",model="churn",version="4"} 0.5' in page
    assert "evergreen_serving_pending 4.0" in page


def test_versions_that_left_go_after_a_while() -> None:
    now = [0.0]
    metrics = Metrics(lambda: now[0])
    for version in ("3", "4"):
        metrics.series("churn", version, "champion", "infer").answered(1, 0.2)
        metrics.errors.labels("churn", version, "champion", "500").inc()
    metrics.series("price", "3", "champion", "infer").answered(1, 0.2)
    metrics.labels.labels("churn").inc()
    metrics.note_left("churn", ["3", "4"], [None])
    metrics.note_left("churn", [], ["4", None])  # back at once
    now[0] = 599.0
    assert 'model="churn",version="3"' in page_of(metrics)
    now[0] = 600.0
    page = page_of(metrics)
    assert ('model="churn"' in page, 'version="3"' in page) == (True, True)
    churn = [line for line in page.splitlines() if 'model="churn"' in line]
    assert not [line for line in churn if 'version="3"' in line]
    assert [line for line in churn if 'version="4"' in line]
    metrics.note_left("churn", ["4", None], [])
    now[0] = 1200.0
    assert "churn" not in page_of(metrics)
    assert 'version="3"' in page_of(metrics)  # price's
    metrics.series("churn", "3", "champion", "infer").answered(1, 0.2)  # and it may come back
    assert 'rows_total{model="churn",version="3"} 1.0' in page_of(metrics)


def page_of(metrics: Metrics) -> str:
    return metrics.exposition().decode()


def test_the_page_is_written_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, threads = Metrics(), []

    def write(registry: object) -> bytes:
        threads.append(threading.current_thread())
        return b"page"

    monkeypatch.setattr(telemetry, "generate_latest", write)
    metrics.each_refresh(lambda: threads.append(threading.current_thread()))
    assert asyncio.run(metrics.page()) == b"page"
    refreshed, written = threads
    assert refreshed is threading.current_thread()
    assert written is not threading.current_thread()
