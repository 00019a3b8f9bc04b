import logging
import socket
import threading
import time
from urllib.parse import quote

import pytest
from mlflow.exceptions import MlflowException

from include.errors import ConflictError, ServiceError
from include.registry.gateway import Registry
from tests.servers import start_guard, start_mlflow

pytestmark = pytest.mark.server
USER, PASSWORD = "ann@example.com", "p@ss:w/rd?#1"


@pytest.fixture
def guarded(mlflow_url):
    with start_guard(mlflow_url, USER, PASSWORD) as (url, seen):
        yield url.replace("//", f"//{quote(USER, safe='')}:{quote(PASSWORD, safe='')}@"), seen


class TestCredentials:
    def test_go_with_every_call_artifacts_included(
        self, guarded, package, name, tmp_path, capfd, caplog
    ):
        url, seen = guarded
        caplog.set_level(logging.DEBUG)
        registry = Registry(url)
        run_id = registry.ensure_run(name, "k", "train", {})
        (tmp_path / "files").mkdir()
        (tmp_path / "files" / "a.txt").write_text("a")
        registry.log_artifacts(run_id, tmp_path / "files")
        version = registry.register(package, run_id=run_id, key="k", tags={})
        registry.set_alias(name, "champion", version.version, expected=None)
        registry.load(version, tmp_path / "cache")
        registry.finish_run(run_id)
        assert {status for _, status in seen} <= {200, 404}
        paths = [path for path, _ in seen]
        assert any("mlflow-artifacts/artifacts" in p and p.endswith("model.skops") for p in paths)
        assert "@" not in registry.run_url(run_id)
        output = capfd.readouterr()
        everything = output.out + output.err + caplog.text + repr(registry) + repr(version)
        assert PASSWORD not in everything
        assert quote(PASSWORD, safe="") not in everything

    def test_wrong_ones_are_said_plainly(self, guarded):
        url, _ = guarded
        with pytest.raises(ServiceError, match=r"HTTP 401.*right user:password@"):
            Registry(url.replace("%231", "wrong")).ping()

    def test_never_get_into_errors(self, guarded, name):
        url, _ = guarded
        registry = Registry(url)
        client = registry.client
        client._tracking_client.store.get_host_creds().host  # noqa: B018  (MLflow holds the URI)
        with pytest.raises(ServiceError) as caught, registry.calls("get a run"):
            client.get_run("no such run")
        registry = Registry(url.replace("127.0.0.1", "127.0.0.1.invalid."))
        with pytest.raises(ServiceError) as away:
            registry.ping()
        for error in (caught.value, away.value):
            assert quote(PASSWORD, safe="") not in str(error)
            assert PASSWORD not in str(error)
            assert error.__suppress_context__

    def test_masking_takes_any_user_information_out(self):
        registry = Registry("http://ann:s3cret@host/x")
        assert registry.mask("at http://bob:else@other/ with s3cret") == (
            "at http://***@other/ with ***"
        )


class TestAway:
    def check(self, url, match):
        started = time.monotonic()
        with pytest.raises(ServiceError, match=match) as caught:
            Registry(url).aliases("churn")
        assert time.monotonic() - started < 12
        assert str(caught.value).startswith(f"MLflow at {url}: must answer")
        assert caught.value.transient

    def test_nobody_listens(self):
        self.check("http://127.0.0.1:1", "refused")

    def test_somebody_listens_and_says_nothing(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.check(f"http://127.0.0.1:{server.getsockname()[1]}", "timed out")

    def test_somebody_else_answers(self):
        def answer():
            peer, _ = server.accept()
            with peer:
                peer.recv(9999)
                peer.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")

        with socket.create_server(("127.0.0.1", 0)) as server:
            thread = threading.Thread(target=answer)
            thread.start()
            self.check(f"http://127.0.0.1:{server.getsockname()[1]}", "HTTP 404")
            thread.join()

    def test_dies_between_two_calls_and_comes_back(self, tmp_path):
        with start_mlflow(tmp_path) as url:
            registry = Registry(url)
            run_id = registry.ensure_run("e", "k", "run", {})
        deadline = time.monotonic() + 1.2  # until the last answer is no longer fresh
        while time.monotonic() < deadline:
            time.sleep(0.1)
        started = time.monotonic()
        with pytest.raises(ServiceError, match="must answer"):
            registry.log(run_id, metrics={"a": 1.0})
        assert time.monotonic() - started < 12
        with start_mlflow(tmp_path, port=int(url.rpartition(":")[2])):
            registry.log(run_id, metrics={"a": 1.0})

    @pytest.mark.parametrize("url", ["", "sqlite:///x.db", "mlflow:5000", "http://"])
    def test_not_a_url(self, url):
        with pytest.raises(ServiceError, match=r"must be reached over an http\(s\) URL"):
            Registry(url)


class TestAliases:
    def test_check_before_set(self, registry, name, versions):
        registry.set_alias(name, "mine", "1", expected=None)
        registry.set_alias(name, "mine", "1", expected=None)  # already there
        with pytest.raises(ConflictError, match="must point at version None, got 1"):
            registry.set_alias(name, "mine", "2", expected=None)
        registry.set_alias(name, "mine", "2", expected="1")
        assert registry.aliases(name) == {"mine": "2"}
        registry.set_alias(name, "mine", None, expected="2")
        registry.set_alias(name, "mine", None, expected="2")
        assert registry.aliases(name) == {}

    @pytest.mark.parametrize("rival", ["1", "2"])
    def test_set_by_a_rival_at_the_same_moment(self, registry, name, versions, monkeypatch, rival):
        client, set_alias = registry.client, registry.client.set_registered_model_alias

        def lose_the_race(name, alias, version):
            set_alias(name, alias, rival)
            raise MlflowException("UNIQUE constraint failed: registered_model_aliases")

        monkeypatch.setattr(client, "set_registered_model_alias", lose_the_race)
        if rival == "1":
            registry.set_alias(name, "mine", "1", expected=None)
        else:
            with pytest.raises(ServiceError, match="UNIQUE constraint failed"):
                registry.set_alias(name, "mine", "1", expected=None)
        assert registry.aliases(name) == {"mine": rival}

    def test_of_what_is_not_there(self, registry, name):
        assert registry.aliases(name) == {}
        assert registry.versions(name) == []
        assert registry.get_version(name, "1") is None
        assert registry.get_version(name, "champion") is None
        assert registry.find_version(name, "k") is None

    def test_a_version_that_does_not_exist(self, registry, name, versions):
        with pytest.raises(ConflictError, match="must point at an existing version, got 9"):
            registry.set_alias(name, "mine", "9", expected=None)

    def test_are_seen_on_every_way_to_a_version(self, registry, name, versions):
        registry.set_alias(name, "mine", "2", expected=None)
        registry.set_alias(name, "other", "2", expected=None)
        assert registry.get_version(name, "2").aliases == ("mine", "other")
        assert registry.get_version(name, "mine").version == "2"
        assert [(v.version, v.aliases) for v in registry.versions(name)] == [
            ("4", ()),
            ("3", ()),
            ("2", ("mine", "other")),
            ("1", ()),
        ]
        assert registry.get_version(name, "nobody") is None
