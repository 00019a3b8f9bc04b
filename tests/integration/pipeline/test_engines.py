"""A trained version is served by ONNX Runtime, and leaves as a file that needs nothing of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.pipeline.test_verdicts import QUICK
from tests.integration.pipeline.world import World

pytestmark = pytest.mark.server


def test_a_trained_version_runs_on_onnx_and_can_be_exported(world: World, tmp_path: Path) -> None:
    world.add_model("edge", **QUICK)
    run = world.run("edge__train")
    assert run.state == "success", run
    (version,) = world.registry.versions("edge")
    assert version.tags["evergreen.engine"] == "onnx", version.tags["evergreen.parity"]
    assert version.tags["evergreen.parity"].startswith("max difference")
    fetched = world.registry.fetch(version, tmp_path / "cache")
    assert fetched.meta["engine"]["rows"] > 100
    assert (fetched.folder / "estimator.onnx").is_file()
    done = world.command("export", "edge", "--format", "onnx", "--to", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"edge-1.onnx", "example.py", "README.md"}
