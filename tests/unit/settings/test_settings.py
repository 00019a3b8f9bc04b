"""Settings mean the same in every process, whatever folder it runs in."""

from pathlib import Path

import pytest

from include.errors import SpecError
from include.settings import ROOT, Settings, get_settings


def test_relative_paths_start_at_the_repository_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "MODELS", "STORE"):
        monkeypatch.setenv(f"EVERGREEN_{name}", f"some/{name}")
    settings = Settings()
    assert (settings.home, settings.models) == (ROOT / "some/HOME", ROOT / "some/MODELS")
    assert settings.store_uri == str(ROOT / "some/STORE")
    assert settings.ledger_dsn == f"sqlite:///{ROOT}/some/HOME/ledger.db"


def test_the_home_folder_has_its_short_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    for name in ("HOME", "MODELS", "STORE"):
        monkeypatch.setenv(f"EVERGREEN_{name}", f"~/{name}")
    settings = Settings()
    assert (settings.home, settings.models) == (Path("/home/ann/HOME"), Path("/home/ann/MODELS"))
    assert settings.store_uri == "/home/ann/STORE"


@pytest.mark.parametrize("store", ["s3://bucket/~prefix", "/data/store"])
def test_what_is_absolute_stays(store: str) -> None:
    assert Settings(store=store).store_uri == store


def test_without_a_store_it_lies_in_the_home(tmp_path: Path) -> None:
    assert Settings(home=tmp_path, store="").store_uri == str(tmp_path / "store")


def test_own_prefixes_end_in_one_dot_and_are_allowed() -> None:
    settings = Settings(code_prefixes=" acme, team.models. ,, .")
    assert settings.own_prefixes == ("acme.", "team.models.")
    assert settings.allowed_prefixes[-2:] == settings.own_prefixes
    assert settings.allowed_prefixes[0] == "sklearn."


def test_a_wrong_setting_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_AIRFLOW_PORT", "eighty")
    with pytest.raises(
        SpecError, match=r"^EVERGREEN_AIRFLOW_PORT: .*integer.*got 'eighty'\. Correct"
    ):
        get_settings()
