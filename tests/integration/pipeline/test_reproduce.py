"""A version that a real run registered is made again, by the command line, from nothing but itself and its snapshot."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from include.cli.group import evergreen
from include.registry.folder import MODEL_FILE
from include.registry.package import LoadedPackage, Package, Version
from include.settings import ROOT
from include.store.example import example_frame
from include.store.snapshots import Manifest, file_sha256, read_manifest, snapshot_prefix
from tests.integration.pipeline.world import World

pytestmark = pytest.mark.server
MODEL = "leaving"
# A forest depends on the seed, and has a fixed, a searched and an unlisted argument.
FOREST = {
    "candidates": [
        {
            "estimator": "sklearn.tree.DecisionTreeClassifier",
            "params": {"max_depth": 1},
        },
        {
            "estimator": "sklearn.ensemble.RandomForestClassifier",
            "params": {"n_estimators": 25, "max_features": 2},
            "search": {"max_depth": {"low": 4, "high": 6}},
        },
    ],
    "seed": 7,
}


@pytest.fixture(scope="module")
def version(world: World) -> Version:
    """The version that the model's first run registered."""
    world.add_model(MODEL, train=FOREST)
    run = world.run(f"{MODEL}__train")
    assert run.state == "success", run
    found = world.registry.get_version(MODEL, "champion")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def package(world: World, version: Version) -> LoadedPackage:
    return world.registry.load(version, world.home / "cache" / "models")


@pytest.fixture
def manifest(world: World, version: Version) -> Iterator[Manifest]:
    """The version's snapshot; it is whole again afterwards."""
    manifest = read_manifest(world.store, MODEL, version.tags["evergreen.snapshot_id"])
    folder = _folder(world, manifest)
    backup = world.home / "backup"
    shutil.copytree(folder, backup)
    yield manifest
    shutil.rmtree(folder, ignore_errors=True)
    backup.rename(folder)


def _folder(world: World, manifest: Manifest) -> Path:
    return world.home / "store" / snapshot_prefix(MODEL, manifest.snapshot_id)


def command(world: World, *arguments: str) -> Result:
    """Run the command line in this process: libraries are loaded once."""
    values = world.settings.model_dump(mode="json")
    environment = {f"EVERGREEN_{name.upper()}": str(value) for name, value in values.items()}
    return CliRunner().invoke(evergreen, arguments, env=environment)


def reproduce(world: World, version: str) -> tuple[int, dict[str, Any]]:
    """Return the command's exit status and JSON, without the commit: it may change while tests run."""
    done = command(world, "reproduce", MODEL, version, "--json")
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    found["changes"] = [c for c in found["changes"] if c["what"] != "git commit"]
    return done.exit_code, found


def register(world: World, package: LoadedPackage, key: str, **meta: Any) -> Version:
    """Register the version's own files once more, with other metadata."""
    known = package.meta
    snapshot = read_manifest(world.store, MODEL, known["snapshot_id"])
    copy = Package(
        name=MODEL,
        model_path=package.folder / MODEL_FILE,
        sha256=known["model_sha256"],
        features=package.features,
        types=known["types"],
        classes=known["classes"],
        task=known["task"],
        target=known["target"],
        example=example_frame(world.store, snapshot, package.features),
        meta={**known, **meta},
    )
    tags = {"seed": "7", "snapshot_id": known["snapshot_id"]}
    return world.registry.register(copy, run_id=package.version.run_id, key=key, tags=tags)


def test_a_version_carries_its_own_spec(version: Version, package: LoadedPackage) -> None:
    meta = package.meta
    assert meta["spec"]["train"]["seed"] == 7
    assert meta["fixed"] == {"n_estimators": 25, "max_features": 2}
    assert set(meta["params"]) == {"max_depth"}
    assert not {"notify", "monitor", "deploy"} & set(meta["spec"])  # notify may hold secrets


def test_the_same_model_comes_out(world: World, version: Version) -> None:
    status, found = reproduce(world, "champion")
    assert (status, found["verdict"]) == (0, "identical")
    assert (found["max_difference"], found["equal_labels"]) == (0, 1)
    assert found["held_out"]
    assert found["rows"] + found["trained_rows"] == found["snapshot"]["rows"] == 2400
    assert (found["version"], found["seed"]) == (version.version, 7)
    assert found["params"].keys() == {"n_estimators", "max_features", "max_depth"}
    assert (found["changes"], found["reasons"]) == ([], [])
    assert [v.version for v in world.registry.versions(MODEL)] == ["1"]  # nothing was registered


def test_an_edited_spec_is_shown_and_plays_no_part(world: World, version: Version) -> None:
    edited = {**FOREST, "candidates": FOREST["candidates"][:1], "seed": 8}
    world.write_spec(MODEL, train=edited, evaluate={"holdout": "40%"})
    try:
        status, found = reproduce(world, "1")
        shown = command(world, "reproduce", MODEL, "1").stdout
    finally:
        world.write_spec(MODEL, train=FOREST)
    assert (status, found["verdict"]) == (0, "identical")
    changes = {change["what"]: (change["then"], change["now"]) for change in found["changes"]}
    assert changes["spec: train.seed"] == ("7", "8")
    assert changes["spec: evaluate.holdout"] == ("0.2", "0.4")
    assert changes["spec: train.candidates[1].params.n_estimators"] == ("25", "none")
    assert re.search(r"spec: train\.seed +7 → 8\n", shown)


def test_a_spec_that_is_gone_plays_no_part(world: World, version: Version) -> None:
    path = world.settings.models / f"{MODEL}.yaml"
    text = path.read_text()
    path.unlink()
    try:
        status, found = reproduce(world, "1")
    finally:
        path.write_text(text)
    assert (status, found["verdict"]) == (0, "identical")
    assert found["changes"] == [
        {"what": "spec", "then": "as registered", "now": "none that is valid"}
    ]


def test_another_seed_is_another_model(world: World, package: LoadedPackage) -> None:
    spec = {**package.meta["spec"], "train": {**package.meta["spec"]["train"], "seed": 8}}
    other = register(world, package, "another-seed", spec=spec)
    status, found = reproduce(world, other.version)
    assert (status, found["verdict"]) == (1, "different")
    assert 0.001 < found["max_difference"] < 1
    assert 0.5 < found["equal_labels"] <= 1
    assert "its tag evergreen.seed says 7, its metadata 8" in found["reasons"]
    assert any(reason.startswith("its spec has the hash") for reason in found["reasons"])
    shown = command(world, "reproduce", MODEL, other.version)
    assert shown.exit_code == 1
    assert "\ndifferent: largest difference 0." in shown.stdout
    assert "\nLikely because:\n  - its tag evergreen.seed says 7" in shown.stdout


def test_a_damaged_snapshot(world: World, manifest: Manifest) -> None:
    path = _folder(world, manifest) / manifest.files[0].name
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert_fails(world, "1", f"must have sha256 {manifest.files[0].sha256}, got other bytes")


def test_other_rows_under_the_snapshots_name(world: World, manifest: Manifest) -> None:
    folder = _folder(world, manifest)
    path = folder / manifest.files[0].name
    table = pq.read_table(path)
    forged = folder / "forged.parquet"
    pq.write_table(table.slice(0, len(table) - 1), forged)
    digest = file_sha256(forged)
    forged.rename(folder / f"{digest}.parquet")
    size = (folder / f"{digest}.parquet").stat().st_size
    file = replace(
        manifest.files[0], name=f"{digest}.parquet", sha256=digest, bytes=size, rows=len(table) - 1
    )
    page = folder / "manifest.json"
    page.chmod(0o644)
    page.write_text(replace(manifest, files=(file, *manifest.files[1:])).to_json())
    assert_fails(world, "1", "must hold the rows it is named after, got rows that make it")


def test_a_snapshot_that_is_gone(world: World, manifest: Manifest) -> None:
    shutil.rmtree(_folder(world, manifest))
    assert_fails(world, "1", f"{MODEL} version 1: .*: the snapshot must exist, got none. Without")
    shown = command(world, "lineage", MODEL, "1").stdout
    assert f"{manifest.snapshot_id}, no longer in the store\n" in shown


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((MODEL, "99"), r"must have version 99, got .*1, champion\. Choose one of those\."),
        ((MODEL, "chmpion"), r"Did you mean 'champion'\?"),
        ((MODEL, "v1"), r"must have version v1, got"),
        (("leav'ing", "1"), r"must hold leav'ing\.yaml, got no such file"),
        (("leavin", "1"), r"must hold leavin\.yaml, got no such file\. Did you mean 'leaving'\?"),
    ],
)
def test_a_version_that_is_not_there(
    world: World, version: Version, asked: tuple[str, str], message: str
) -> None:
    for name in ("reproduce", "lineage"):
        done = command(world, name, *asked)
        assert done.exit_code == 1
        assert re.search(message, done.stderr), done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_somebody_elses_version(world: World, version: Version) -> None:
    source = f"models:/{version.tags['evergreen.model_id']}"
    foreign = world.registry.client.create_model_version(
        MODEL, source, version.run_id, model_id=version.tags["evergreen.model_id"]
    )
    assert_fails(world, str(foreign.version), "must carry Evergreen's producer and digest tags")


def test_a_version_without_a_spec(world: World, package: LoadedPackage) -> None:
    old = register(world, package, "before", spec=None)
    assert_fails(world, old.version, "in its metadata, got no spec. .* train again")


def test_the_page_shows_what_the_commands_print(world: World, version: Version) -> None:
    """The page's examples are the commands' output, but for names, numbers and days."""
    page = (ROOT / "docs" / "lineage.md").read_text()
    examples = re.findall(r"```console\n\$ \./evergreen (\w+) \w+ \w+\n(.*?)```", page, re.DOTALL)
    assert [name for name, _ in examples] == ["lineage", "reproduce"]
    for name, example in examples:
        done = world.command(name, MODEL, "1")
        assert done.returncode == 0, done.stderr
        assert _outline(example) == _outline(done.stdout), done.stdout


def _outline(text: str) -> list[str]:
    """Return the labels and the sentences, without what depends on the commit these tests run on."""
    text = re.sub(r"^(  \S+( \S+)*  +).*$", r"\1", text, flags=re.MULTILINE)
    text = re.sub(r"\b(leaving|churn)\b", "MODEL", text)
    lines = re.sub(r"[\d.,]+", "N", text).splitlines()
    return [line for line in lines if "git commit" not in line and "Changed since" not in line]


def assert_fails(world: World, version: str, message: str) -> None:
    done = command(world, "reproduce", MODEL, version)
    assert done.exit_code == 1
    assert re.search(message, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1
