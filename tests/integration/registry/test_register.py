import dataclasses
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import yaml

from include.errors import ConflictError, ModelError
from include.registry.gateway import Registry

pytestmark = pytest.mark.server
TAGS = {"snapshot": "s1", "spec_hash": "ab", "git_commit": "c0ffee", "seed": "42"}


@pytest.fixture
def version(registry, package, run_id):
    return registry.register(package, run_id=run_id, key="s1:ab", tags=TAGS)


class TestRegister:
    def test_carries_its_lineage(self, registry, package, run_id, version, name):
        assert (version.name, version.version, version.run_id) == (name, "1", run_id)
        assert version.tags["evergreen.producer"] == "evergreen"
        assert version.tags["evergreen.key"] == "s1:ab"
        assert version.tags["evergreen.git_commit"] == "c0ffee"
        assert version.tags["evergreen.model_sha256"] == package.sha256
        assert len(version.digest) == 64

    def test_is_listed_among_the_outputs_of_its_run(self, registry, run_id, version):
        outputs = registry.client.get_run(run_id).outputs.model_outputs
        assert len(outputs) == 1
        model = registry.client.get_logged_model(outputs[0].model_id)
        assert model.status.value == "READY"

    def test_again_is_the_same_version(self, registry, package, run_id, version):
        again = registry.register(package, run_id=run_id, key="s1:ab", tags=TAGS)
        assert again.version == "1"
        other = registry.register(package, run_id=run_id, key="s2:ab", tags=TAGS)
        assert other.version == "2"
        assert len(registry.client.get_run(run_id).outputs.model_outputs) == 2

    def test_at_once_is_one_version(self, registry, package, run_id, name):
        def register(_):
            gateway = Registry(registry.url)
            return gateway.register(package, run_id=run_id, key="k", tags=TAGS).version

        with ThreadPoolExecutor(4) as pool:
            found = set(pool.map(register, range(4)))
        assert found == {"1"}
        assert [v.version for v in registry.versions(name)] == ["1"]

    def test_a_post_that_was_sent_twice_is_one_version(self, registry, package, run_id, name):
        client = registry.client
        once = client.create_model_version

        def twice(*args, **options):
            once(*args, **options)
            return once(*args, **options)

        client.create_model_version = twice
        assert registry.register(package, run_id=run_id, key="k", tags=TAGS).version == "1"
        assert [v.version for v in registry.versions(name)] == ["1"]

    def test_an_aliased_double_is_kept_and_preferred(
        self, registry, package, run_id, version, name
    ):
        model_id = version.tags["evergreen.model_id"]
        registry.client.create_model_version(
            name, f"models:/{model_id}", run_id, tags=dict(version.tags), model_id=model_id
        )
        registry.set_alias(name, "champion", "2", expected=None)
        assert registry._settle(name, "s1:ab").version == "2"
        assert [v.version for v in registry.versions(name)] == ["2"]
        assert registry.aliases(name) == {"champion": "2"}

    STEPS = (
        "create_logged_model",
        "log_model_artifacts",
        "finalize_logged_model",
        "create_registered_model",
        "create_model_version",
        "log_outputs",
    )

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("step", STEPS)
    def test_killed_anywhere_the_retry_ends_the_same(
        self, registry, package, run_id, name, step, when
    ):
        dying = Registry(registry.url)
        real = getattr(dying.client, step)

        def killed(*args, **options):
            if when == "after":
                real(*args, **options)
            raise KeyboardInterrupt

        setattr(dying.client, step, killed)
        with pytest.raises(KeyboardInterrupt):
            dying.register(package, run_id=run_id, key="k", tags=TAGS)
        version = registry.register(package, run_id=run_id, key="k", tags=TAGS)
        assert [v.version for v in registry.versions(name)] == ["1"]
        outputs = registry.client.get_run(run_id).outputs.model_outputs
        registered = version.tags["evergreen.model_id"]
        assert [o.model_id for o in outputs] == [registered]
        assert registry.find_version(name, "k") == version

        later = datetime.now(UTC) + timedelta(hours=1)
        registry.reap_runs(name, older_than=timedelta(0), now=later, keep=())
        left = registry.client.search_logged_models([registry.experiment_id(name)])
        assert [m.model_id for m in left] == [registered]

    def test_a_changed_model_file_is_not_registered(self, registry, package, run_id, name):
        package.model_path.write_bytes(b"changed")
        with pytest.raises(ModelError, match="must have sha256"):
            registry.register(package, run_id=run_id, key="k", tags=TAGS)
        assert registry.versions(name) == []
        (left,) = registry.client.search_logged_models([registry.experiment_id(name)])
        assert left.status.value == "FAILED"


class TestLoad:
    def test_predicts_what_was_registered(self, registry, version, package, fitted, tmp_path):
        pipeline, frame = fitted
        loaded = registry.load(version, tmp_path / "cache")
        np.testing.assert_array_equal(
            loaded.pipeline.predict_proba(frame), pipeline.predict_proba(frame)
        )
        assert loaded.features == package.features
        assert loaded.classes == ["no", "yes"]
        assert loaded.meta["snapshot_id"] == "s1"
        assert loaded.meta["types"] == {"age": "int", "income": "int", "plan": "string"}
        assert loaded.version == version

    def test_works_without_mlflow_from_the_cache(self, registry, version, tmp_path):
        registry.load(version, tmp_path)
        assert Registry("http://127.0.0.1:1").load(version, tmp_path).meta["task"] == "binary"

    def test_downloads_nothing_visible_until_all_is_there(
        self, registry, version, tmp_path, monkeypatch
    ):
        def killed(version, into):
            (into / "MLmodel").write_text("half")
            raise KeyboardInterrupt

        dying = Registry(registry.url)
        monkeypatch.setattr(dying, "_download", killed)
        with pytest.raises(KeyboardInterrupt):
            dying.load(version, tmp_path)
        assert [p.name for p in (tmp_path / version.name).iterdir()] == [".lock"]
        assert registry.load(version, tmp_path).folder.name == f"1-{version.digest[:12]}"

    def test_at_once(self, registry, version, tmp_path):
        with ThreadPoolExecutor(4) as pool:
            loads = pool.map(lambda _: Registry(registry.url).load(version, tmp_path), range(4))
            assert len({load.folder for load in loads}) == 1
        assert len(list((tmp_path / version.name).glob("[!.]*"))) == 1

    @pytest.mark.parametrize("file", ["model.skops", "MLmodel", "requirements.txt"])
    def test_a_damaged_cache_is_fetched_again(self, registry, version, tmp_path, file):
        folder = registry.load(version, tmp_path).folder
        (folder / file).write_bytes(b"rot")
        assert registry.load(version, tmp_path).folder == folder
        assert (folder / file).read_bytes() != b"rot"

    def test_changed_artifacts_are_refused(self, registry, version, tmp_path):
        model_id = version.tags["evergreen.model_id"]
        (tmp_path / "MLmodel").write_text("metadata: {evergreen: {}}")
        registry.client.log_model_artifacts(model_id, str(tmp_path))
        with pytest.raises(ModelError, match="must have the digest it was registered with"):
            registry.load(version, tmp_path / "cache")
        assert not list((tmp_path / "cache").rglob("MLmodel"))

    @pytest.mark.parametrize("tag", ["evergreen.producer", "evergreen.digest"])
    def test_versions_of_others_are_refused(self, registry, version, tmp_path, tag):
        tags = {k: v for k, v in version.tags.items() if k != tag}
        with pytest.raises(ModelError, match="producer and digest tags"):
            registry.load(dataclasses.replace(version, tags=tags), tmp_path)

    def test_files_of_the_server_are_not_read(self, registry, version, tmp_path, monkeypatch):
        monkeypatch.setattr(
            registry.client, "get_model_version_download_uri", lambda *_: "file:///etc"
        )
        with pytest.raises(ConflictError, match="got file:///etc"):
            registry.load(version, tmp_path)


class TestMlflowsOwnWay:
    CODE = """
import json, mlflow, mlflow.sklearn, pandas as pd, sys
uri = sys.argv[1]
model = mlflow.pyfunc.load_model(uri)
hole = pd.DataFrame({"age": [60], "income": [float("nan")], "plan": [None]})
print(json.dumps({
    "signature": model.metadata.signature.to_dict(),
    "example": model.predict(model.input_example).tolist(),
    "hole": model.predict(hole).tolist(),
    "type": type(mlflow.sklearn.load_model(uri)).__name__,
    "requirements": open(mlflow.pyfunc.get_model_dependencies(uri)).read().split(),
    "metadata": model.metadata.metadata,
}))
"""

    def test_pyfunc_and_sklearn_load_the_champion(self, registry, version, name, fitted):
        registry.set_alias(name, "champion", "1", expected=None)
        done = subprocess.run(
            [sys.executable, "-c", self.CODE, f"models:/{name}@champion"],
            env={**os.environ, "MLFLOW_TRACKING_URI": registry.url},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        inputs = json.loads(found["signature"]["inputs"])
        assert [(c["name"], c["type"], c["required"]) for c in inputs] == [
            ("age", "long", True),
            ("income", "double", False),  # whole in the data, but it may be missing
            ("plan", "string", False),
        ]
        pipeline, frame = fitted
        assert found["example"] == pipeline.predict(frame.head(3)).tolist()
        assert found["hole"] in ([0], [1])
        assert found["type"] == "Pipeline"
        assert all("==" in line for line in found["requirements"])
        assert found["metadata"]["evergreen"]["classes"] == ["no", "yes"]

    def test_the_folder_lists_only_types_the_platform_trusts(self, registry, version, tmp_path):
        from include.registry.trust import TRUSTED_TYPES

        mlmodel = yaml.safe_load((registry.load(version, tmp_path).folder / "MLmodel").read_text())
        flavor = mlmodel["flavors"]["sklearn"]
        assert flavor["serialization_format"] == "skops"
        assert len(flavor["skops_trusted_types"]) > 0
        assert set(flavor["skops_trusted_types"]) <= TRUSTED_TYPES
