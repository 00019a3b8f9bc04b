"""The specs that come with Evergreen train as they are; only the place of churn's data is another."""

from datetime import UTC, datetime, timedelta

import pytest

from include.settings import ROOT
from include.simulator.batches import write_batches
from tests.integration.pipeline.world import World

pytestmark = pytest.mark.server
SHIPPED = ROOT / "include" / "models"


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.yaml")))
def test_a_shipped_spec_ends_in_a_served_champion(world: World, name: str) -> None:
    spec = (SHIPPED / f"{name}.yaml").read_text()
    if name == "churn":
        write_batches(world.data(name), datetime.now(UTC).date() - timedelta(days=90), 90)
        path = ".evergreen/data/churn/*.parquet"
        assert path in spec
        spec = spec.replace(path, str(world.data(name) / "*.parquet"))
    (world.settings.models / f"{name}.yaml").write_text(spec)
    run = world.run(f"{name}__train")
    assert run.state == "success", run
    standing = world.standing(name)
    assert standing["aliases"] == {"champion": "1"}
    assert standing["serves"] == "1"
    assert standing["intact"]
    (version,) = world.registry.versions(name)
    assert version.tags["evergreen.engine"] == "onnx", version.tags["evergreen.parity"]
    assert "max difference" in version.tags["evergreen.parity"]
    assert world.open_runs(name) == []
    world.assert_nothing_half_written(name)
