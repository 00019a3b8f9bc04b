"""The specs that come with Evergreen train as they are; only the place of churn's data is another."""

from datetime import UTC, datetime, timedelta

import pytest
import yaml

from include.settings import ROOT
from include.simulator.batches import write_batches
from tests.integration.pipeline.world import World
from tests.models import write_spec

pytestmark = pytest.mark.server
SHIPPED = ROOT / "include" / "models"


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.yaml")))
def test_a_shipped_spec_ends_in_a_served_champion(world: World, name: str) -> None:
    spec = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())
    if name == "churn":
        data = world.data(name)
        write_batches(data, datetime.now(UTC).date() - timedelta(days=90), 90)
        spec["ingest"]["source"]["path"] = str(data / "*.parquet")
    write_spec(world.settings.models, spec)
    run = world.run(f"{name}__train")
    assert run.state == "success", run
    standing = world.standing(name)
    assert standing["aliases"] == {"champion": "1"}
    assert standing["serves"] == "1"
    assert standing["intact"]
    assert world.open_runs(name) == []
    world.assert_nothing_half_written(name)
