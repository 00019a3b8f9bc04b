"""Models of other teams: registered once, promoted, rolled back, never served."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from include.errors import ConflictError, DataError, ModelError
from include.registry.external import TAG_SOURCE, label_run, register_source
from include.registry.gateway import Registry
from include.registry.promotion import promote, rollback

pytestmark = pytest.mark.server
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "weights.txt").write_text("1 2 3\n")
    return folder


@pytest.fixture
def model_id(registry, run_id, files):
    """A logged model, as `mlflow.<flavor>.log_model` leaves it."""
    experiment = registry.client.get_run(run_id).info.experiment_id
    model = registry.client.create_logged_model(experiment, name="net", source_run_id=run_id)
    registry.client.log_model_artifacts(model.model_id, str(files))
    registry.client.finalize_logged_model(model.model_id, "READY")
    return model.model_id


@pytest.fixture
def in_run(registry, run_id, files):
    registry.log_artifacts(run_id, files, "net2")
    return f"runs:/{run_id}/net2"


def test_a_logged_model_is_registered_once(registry, name, run_id, model_id) -> None:
    made = register_source(registry, name, f"models:/{model_id}", tags={"team": "vision"})
    assert (made.version, made.run_id, made.tags["team"]) == ("1", run_id, "vision")
    assert made.digest is None  # serving will not load it
    assert register_source(registry, name, f"models:/{model_id}") == made
    assert register_source(registry, name, f"models:/{model_id}", run_id=run_id) == made
    assert [v.version for v in registry.versions(name)] == ["1"]
    uri = registry.client.get_model_version_download_uri(name, "1")
    assert uri.endswith(f"/models/{model_id}/artifacts")


def test_files_in_a_run(registry, name, run_id, in_run) -> None:
    made = register_source(registry, name, in_run)
    assert (made.run_id, made.tags[TAG_SOURCE]) == (run_id, in_run)
    uri = registry.client.get_model_version_download_uri(name, made.version)
    assert uri.endswith(f"/{run_id}/artifacts/net2")


def test_a_logged_model_by_its_name_in_a_run(registry, name, run_id, model_id) -> None:
    made = register_source(registry, name, f"runs:/{run_id}/net")
    uri = registry.client.get_model_version_download_uri(name, made.version)
    assert uri.endswith(f"/models/{model_id}/artifacts")


def test_another_key_makes_another_version(registry, name, model_id, in_run) -> None:
    source = f"models:/{model_id}"
    one = register_source(registry, name, source, key="monday")
    two = register_source(registry, name, source, key="tuesday: a key with 'quotes'")
    assert (one.version, two.version) == ("1", "2")
    assert register_source(registry, name, source, key="tuesday: a key with 'quotes'") == two
    with pytest.raises(ConflictError, match="a key must belong to one source, got version 1"):
        register_source(registry, name, in_run, key="monday")


def test_several_at_once_end_with_one(registry, name, model_id) -> None:
    def attempt(_):
        return register_source(Registry(registry.url), name, f"models:/{model_id}").version

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(attempt, range(6)))
    (only,) = registry.versions(name)
    assert register_source(registry, name, f"models:/{model_id}") == only


def test_doubles_of_the_transport_go_but_an_aliased_one_stays(registry, name, model_id) -> None:
    source = f"models:/{model_id}"
    register_source(registry, name, source)
    tags = registry.get_version(name, "1").tags
    registry.client.create_model_version(name, source, tags=dict(tags), model_id=model_id)
    registry.set_alias(name, "mine", "2", expected=None)
    assert register_source(registry, name, source).version == "2"
    assert [v.version for v in registry.versions(name)] == ["2"]


@pytest.mark.parametrize(
    "source",
    ["", "/etc/passwd", "file:///etc", "models:/wine/3", "models:/wine@champion", "runs:/abc", "x"],
)
def test_other_sources_are_refused(registry, name, source) -> None:
    with pytest.raises(DataError, match=r"must be models:/<model id> or runs:/<run id>/<path>"):
        register_source(registry, name, source)
    assert registry.versions(name) == []


def test_what_is_not_there_is_refused(registry, name, run_id, model_id) -> None:
    with pytest.raises(ModelError, match="must be a logged model, got none"):
        register_source(registry, name, "models:/m-0123456789abcdef0123456789abcdef")
    with pytest.raises(ModelError, match="must be a run, got none"):
        register_source(registry, name, "runs:/0123456789abcdef0123456789abcdef/net")
    with pytest.raises(ModelError, match="must be a folder with a file MLmodel, got nothing"):
        register_source(registry, name, f"runs:/{run_id}/elsewhere")
    with pytest.raises(DataError, match="must be the run that made"):
        register_source(registry, name, f"models:/{model_id}", run_id="another")
    assert registry.versions(name) == []


def test_an_unfinished_model_is_refused(registry, name, run_id) -> None:
    experiment = registry.client.get_run(run_id).info.experiment_id
    model = registry.client.create_logged_model(experiment, name="half", source_run_id=run_id)
    with pytest.raises(ModelError, match="must be ready, got PENDING"):
        register_source(registry, name, f"models:/{model.model_id}")


def test_nobody_passes_for_us(registry, name, run_id, model_id) -> None:
    forged = {"evergreen.producer": "evergreen"}
    with pytest.raises(DataError, match=r"must not begin with evergreen\."):
        register_source(registry, name, f"models:/{model_id}", tags=forged)
    with pytest.raises(DataError, match=r"must not begin with evergreen\."):
        label_run(registry, run_id, forged)
    with pytest.raises(DataError, match="must not be empty or hold / or :"):
        register_source(registry, "a/b", f"models:/{model_id}")


def test_tags_of_a_run_keep_their_names(registry, run_id) -> None:
    label_run(registry, run_id, {"team": "vision", "long": "x" * 9000})
    tags = registry.client.get_run(run_id).data.tags
    assert tags["team"] == "vision"
    assert len(tags["long"]) == 5000


def test_promotion_and_rollback(registry, ledger, name, model_id) -> None:
    who = {"reason": "because", "actor": "ann", "now": NOW}
    one, two = (
        register_source(registry, name, f"models:/{model_id}", key=key).version for key in "ab"
    )
    promote(registry, ledger, name, one, expected=None, key="p1", **who)
    promote(registry, ledger, name, two, expected=one, key="p2", **who)
    assert registry.aliases(name) == {"champion": two, "previous_champion": one}
    rollback(registry, ledger, name, to=None, key="r1", **who)
    assert registry.aliases(name)["champion"] == one
    with pytest.raises(ModelError, match="version 9 must be one"):
        promote(registry, ledger, name, "9", expected=one, key="p3", **who)


def test_a_model_of_ours_takes_only_ours(registry, ledger, name, versions, model_id) -> None:
    foreign = register_source(registry, name, f"models:/{model_id}").version
    assert foreign == "5"
    with pytest.raises(ModelError, match="got one registered by somebody else"):
        promote(
            registry, ledger, name, foreign, expected=None, key="p", reason="r", actor="a", now=NOW
        )
    assert registry.aliases(name) == {}
