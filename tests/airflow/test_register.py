"""Whom `register` nominates."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from evergreen.operators.register import RegisterOperator


@pytest.mark.parametrize(
    ("run_type", "verdict", "nominated"),
    [
        ("manual", "PROMOTE", ["2"]),
        ("scheduled", "NEEDS_APPROVAL", ["2"]),
        ("manual", "HOLD", []),
        (
            "backfill",
            "PROMOTE",
            [],
        ),  # it is about the past: it would take a real challenger's place
    ],
)
def test_who_becomes_challenger(
    monkeypatch: pytest.MonkeyPatch, run_type: str, verdict: str, nominated: list[str]
) -> None:
    version, calls = SimpleNamespace(version="2"), []

    def nominate(_registry: Any, _ledger: Any, _model: str, to: str, **_: Any) -> None:
        calls.append(to)

    monkeypatch.setattr("include.registry.promotion.nominate", nominate)
    operator = RegisterOperator(
        task_id="register",
        model="small",
        data={"run_id": "m", "snapshot_id": "s", "fingerprint": "f"},
        split={},
        fitted={},
        verdict={"verdict": verdict},
    )
    registry = SimpleNamespace(find_version=lambda *_: version, register=lambda *_, **__: version)
    bench = SimpleNamespace(registry=registry, ledger=None, manifest=lambda _: None)
    operator.__dict__.update(
        bench=bench, link_run=lambda *_: None, _package=lambda _: None, _tags=lambda _: {}
    )
    run = SimpleNamespace(
        dag_id="small__train", run_id="r", run_type=SimpleNamespace(value=run_type)
    )
    assert operator.work({"dag_run": run})["version"] == "2"
    assert calls == nominated
