"""docker-compose.yaml, as far as it can be read; `make test-compose` runs it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from include.settings import ROOT


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    return found


def test_serving_starts_after_what_it_asks_and_counts_once_it_can_answer(
    services: dict[str, Any],
) -> None:
    serving = services["serving"]
    assert "@postgres/" in serving["environment"]["EVERGREEN_LEDGER_URL"]
    for name in ("postgres", "mlflow"):
        assert serving["depends_on"][name] == {"condition": "service_healthy"}
        assert services[name]["healthcheck"]["test"]
    assert serving["healthcheck"]["test"][-1].endswith("/v2/health/ready")
