import json
from dataclasses import asdict

import pytest

from include.monitor.findings import Finding


@pytest.mark.parametrize("examples", [(), ("NORTH", "Süd")])
def test_survives_json(examples):
    finding = Finding("categories", "region", "warn", "unknown", 0.2, 0.1, examples)
    assert Finding(**json.loads(json.dumps(asdict(finding)))) == finding
    old = {k: v for k, v in asdict(finding).items() if k != "examples"}
    assert Finding(**old).examples == ()
