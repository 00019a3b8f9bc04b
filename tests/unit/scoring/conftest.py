"""What every test of scores starts from."""

from __future__ import annotations

import pytest

from tests.unit.scoring.cases import Case, make_case


@pytest.fixture(params=["binary", "multiclass", "regression"])
def case(request: pytest.FixtureRequest) -> Case:
    return make_case(request.param)
