"""Somebody with write access to registry, artifacts or disk tries to have serving run what we did not register."""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer
from skops.io import dump

from include.errors import ModelError
from include.registry.folder import MODEL_FILE, folder_digest
from include.registry.gateway import Registry
from include.registry.package import TAG_DIGEST, TAG_PRODUCER, Package, Version
from include.serving.cache import Cache
from include.serving.source import RegistrySource

GONE: list[str] = []


class Bomb:
    """What a pickle may hold."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (GONE.append, ("exploded",))


@pytest.fixture
def registered(registry: Registry, package: Package, run_id: str) -> Version:
    """A version of ours, champion of its model."""
    version = registry.register(package, run_id=run_id, key="k", tags={})
    registry.set_alias(package.name, "champion", version.version, expected=None)
    return version


def load(registry: Registry, version: Version, cache: Path) -> Any:
    return RegistrySource(registry).load(version.name, version.version, cache)


def cached(version: Version, cache: Path) -> Path:
    (folder,) = (cache / version.name).glob(f"{version.version}-*")
    return folder


def foreign(registry: Registry, name: str, run_id: str, tags: dict[str, str]) -> Version:
    """A version somebody made with MLflow's client."""
    client = registry.client
    model_id = client.create_logged_model(registry.experiment_id(name), run_id).model_id
    made = client.create_model_version(
        name, f"models:/{model_id}", run_id, tags=tags, model_id=model_id
    )
    found = registry.get_version(name, str(made.version))
    assert found is not None
    return found


def test_an_alias_set_by_hand_onto_a_foreign_version(
    registry: Registry, registered: Version, run_id: str, tmp_path: Path
) -> None:
    other = foreign(registry, registered.name, run_id, {})
    registry.client.set_registered_model_alias(registered.name, "champion", other.version)
    aliases = RegistrySource(registry).models()[registered.name].aliases
    assert aliases["champion"] == other.version
    with pytest.raises(ModelError, match="must carry Evergreen's producer and digest tags"):
        load(registry, other, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("**/*.skops"))


def test_our_tags_on_files_that_are_not_ours(
    registry: Registry, registered: Version, run_id: str, tmp_path: Path
) -> None:
    tags = {TAG_PRODUCER: "evergreen", TAG_DIGEST: registered.tags[TAG_DIGEST]}
    other = foreign(registry, registered.name, run_id, tags)
    with pytest.raises(ModelError):
        load(registry, other, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("**/MLmodel"))


@pytest.mark.parametrize(
    ("name", "number", "digest"),
    [
        ("..", "1", "0" * 64),
        ("../up", "1", "0" * 64),
        ("a\\b", "1", "0" * 64),
        ("a\0b", "1", "0" * 64),
        (".hidden", "1", "0" * 64),
        ("state.json", "1", "0" * 64),
        ("x" * 300, "1", "0" * 64),
        ("churn", "../1", "0" * 64),
        ("churn", "1", "../../../up" + "0" * 53),
        ("churn", "1", "0" * 63 + "/"),
        ("churn", "1", ""),
    ],
)
def test_names_that_lead_out_of_the_cache(
    registry: Registry, tmp_path: Path, name: str, number: str, digest: str
) -> None:
    tags = {TAG_PRODUCER: "evergreen", TAG_DIGEST: digest}
    cache = tmp_path / "deep" / "cache"
    with pytest.raises(ModelError, match="must have a plain name"):
        registry.fetch(Version(name, number, "", tags, (), ""), cache)
    assert list(tmp_path.rglob("*")) == []


def tampered_model(folder: Path) -> None:
    path = folder / MODEL_FILE
    path.write_bytes(path.read_bytes()[:-30] + b"0" * 30)


def vouching_for_itself(folder: Path) -> None:
    """An MLmodel that lists further types as trusted, as MLflow's own flavour reads it."""
    evil = LogisticRegression().fit(np.eye(2), [0, 1])
    evil.hook = FunctionTransformer(func=np.lib.npyio.DataSource)
    dump(evil, folder / MODEL_FILE)
    path = folder / "MLmodel"
    content = yaml.safe_load(path.read_text())
    content.setdefault("flavors", {}).setdefault("sklearn", {})["skops_trusted_types"] = [
        "numpy.lib.npyio.DataSource",
        "builtins.eval",
    ]
    path.write_text(yaml.safe_dump(content))


def with_a_pickle(folder: Path) -> None:
    (folder / "model.pkl").write_bytes(pickle.dumps(Bomb()))


def pickle_in_its_place(folder: Path) -> None:
    (folder / MODEL_FILE).write_bytes(pickle.dumps(Bomb()))


def link_elsewhere(folder: Path) -> None:
    target = folder.parent / "elsewhere"
    target.write_bytes(pickle.dumps(Bomb()))
    (folder / MODEL_FILE).unlink()
    (folder / MODEL_FILE).symlink_to(target)


DAMAGES = [
    tampered_model,
    vouching_for_itself,
    with_a_pickle,
    pickle_in_its_place,
    link_elsewhere,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_changed_in_the_cache_is_fetched_again(
    registry: Registry, registered: Version, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    cache = tmp_path / "cache"
    load(registry, registered, cache)
    folder = cached(registered, cache)
    damage(folder)
    assert folder_digest(folder) != registered.digest
    model = load(registry, registered, cache)
    assert folder_digest(model.folder) == registered.digest
    assert not (model.folder / "model.pkl").exists()
    assert GONE == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_changed_in_the_artifact_store_is_refused(
    registry: Registry,
    registered: Version,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
) -> None:
    whole = registry._download

    def download(version: Version, into: Path) -> None:
        whole(version, into)
        damage(into)

    monkeypatch.setattr(registry, "_download", download)
    with pytest.raises(ModelError, match="must have the digest it was registered with"):
        load(registry, registered, tmp_path / "cache")
    assert not list((tmp_path / "cache" / registered.name).glob("[0-9]*"))
    assert GONE == []


@pytest.mark.parametrize("damage", [tampered_model, vouching_for_itself, pickle_in_its_place])
def test_what_was_changed_on_disk_is_refused_while_the_registry_is_away(
    registry: Registry, registered: Version, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    cache = Cache(tmp_path / "cache")
    model = load(registry, registered, cache.root)
    cache.remember(model)
    assert cache.restore(registered.name, registered.version) is not None
    damage(model.folder)
    with pytest.raises(ModelError):
        cache.restore(registered.name, registered.version)
    assert GONE == []


def test_an_entry_on_disk_that_leads_elsewhere_is_not_followed(
    registry: Registry, registered: Version, tmp_path: Path
) -> None:
    cache = Cache(tmp_path / "cache")
    model = load(registry, registered, cache.root)
    cache.remember(model)
    shutil.copytree(model.folder, tmp_path / "outside")
    entry = cache.root / registered.name / f".entry-{registered.version}.json"
    text = entry.read_text()
    for target in (str(tmp_path / "outside"), "../outside", "../../outside"):
        entry.write_text(re.sub(r'"folder":".*?"', f'"folder":"{target}"', text))
        with pytest.raises(ModelError, match="must lie in the cache"):
            cache.restore(registered.name, registered.version)


def test_serving_only_reads(
    registry: Registry, registered: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request serving sends to MLflow while it polls, downloads and loads."""
    import mlflow.utils.rest_utils as rest

    sent: list[tuple[str, str]] = []
    send = rest.http_request

    def noted(host_creds: Any, endpoint: str, method: str, *args: Any, **kwargs: Any) -> Any:
        sent.append((method, endpoint))
        return send(host_creds, endpoint, method, *args, **kwargs)

    for module in _users_of(send):
        monkeypatch.setattr(module, "http_request", noted)
    source = RegistrySource(Registry(registry._uri))
    assert registered.name in source.models()
    source.load(registered.name, registered.version, tmp_path / "cache")
    assert len(sent) >= 3
    searches = ("/search", "/get-versions")
    writes = [
        (method, path)
        for method, path in sent
        if method != "GET" and not path.rstrip("/").endswith(searches)
    ]
    assert writes == []


def _users_of(function: Any) -> list[Any]:
    import sys

    return [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("mlflow") and getattr(module, "http_request", None) is function
    ]
