"""All `EVERGREEN_*` environment settings, read in one place.

Everything local lives under `home`; specs live under `models`. The same code runs on a laptop and in
containers: only these settings differ.
"""

from __future__ import annotations

from functools import cached_property
from ipaddress import ip_address
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from include.errors import SpecError

ROOT = Path(__file__).resolve().parent.parent


def anchored(path: str | Path) -> Path:
    """Return an absolute path; a relative one starts at the repository root, not where a process happens to run."""
    return ROOT / Path(path).expanduser()


class Settings(BaseSettings):
    """Where things are. Each field is read from `EVERGREEN_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="EVERGREEN_", frozen=True, extra="ignore")

    home: Path = Field(
        ROOT / ".evergreen", description="Folder of everything local: state, logs, passwords."
    )
    models: Path = Field(
        ROOT / "include" / "models", description="Folder of the specs, one YAML file per model."
    )
    store: str = Field(
        "", description="Folder or s3://bucket/prefix of snapshots and reports; empty: HOME/store."
    )
    ledger_url: str = Field("", description="SQLAlchemy URL of the ledger; empty: SQLite in HOME.")
    optuna_url: str = Field(
        "", description="SQLAlchemy URL of Optuna's storage; empty: SQLite in HOME."
    )
    host: str = Field("127.0.0.1", description="Address the embedded servers bind.")
    airflow_port: int = Field(8080, description="Port of Airflow's UI and REST API.")
    mlflow_port: int = Field(
        5001, description="Port of MLflow (5000 is taken by AirPlay on macOS)."
    )
    serving_port: int = Field(8090, description="Port of the serving process.")
    airflow_url: str = Field("", description="Base URL of Airflow; empty: the embedded one.")
    mlflow_url: str = Field(
        "", description="Base URL of MLflow, may hold user:password@; empty: the embedded one."
    )
    serving_url: str = Field("", description="Base URL of serving; empty: the embedded one.")
    serving_key: SecretStr = Field(
        SecretStr(""),
        description="API key of serving for all models; our own clients send it. Empty: see docs/api-keys.md.",
    )
    serving_workers: int = Field(
        1, ge=1, le=64, description="Serving processes that share the port."
    )
    serving_memory_mb: int = Field(
        1024,
        ge=16,
        description="Memory in MiB for models, in each serving process; beyond it, models load at the first request.",
    )
    serving_cache_mb: int = Field(
        4096, ge=16, description="Disk in MiB for downloaded models; the longest unused go first."
    )
    access_log: bool = Field(
        True, description="Whether serving writes a JSON line per request to standard output."
    )
    code_prefixes: str = Field(
        "", description="Further dotted prefixes a spec may name, separated by commas."
    )
    keep_days: int = Field(
        30, ge=1, description="Days after which what nothing refers to is removed from the store."
    )

    log_seconds: float = Field(
        5.0,
        ge=0.05,
        le=3600,
        description="Longest time in seconds that serving keeps predictions in memory before it logs them.",
    )

    @field_validator("home", "models")
    @classmethod
    def _anchor_path(cls, path: Path) -> Path:
        return anchored(path)

    @field_validator("store")
    @classmethod
    def _anchor_store(cls, store: str) -> str:
        return str(anchored(store)) if store and "://" not in store else store

    @cached_property
    def store_uri(self) -> str:
        """Folder path or `s3://` URI of the store."""
        return self.store or str(self.home / "store")

    @cached_property
    def ledger_dsn(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return self.ledger_url or f"sqlite:///{self.home / 'ledger.db'}"

    @cached_property
    def optuna_dsn(self) -> str:
        """SQLAlchemy URL of Optuna's storage."""
        return self.optuna_url or f"sqlite:///{self.home / 'optuna.db'}"

    @cached_property
    def airflow(self) -> str:
        """Base URL of Airflow, without a trailing slash."""
        return (self.airflow_url or f"http://127.0.0.1:{self.airflow_port}").rstrip("/")

    @cached_property
    def mlflow(self) -> str:
        """Base URL of MLflow, without a trailing slash."""
        return (self.mlflow_url or f"http://127.0.0.1:{self.mlflow_port}").rstrip("/")

    @cached_property
    def serving(self) -> str:
        """Base URL of the serving process, without a trailing slash."""
        return (self.serving_url or f"http://127.0.0.1:{self.serving_port}").rstrip("/")

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach what binds `host`."""
        try:
            return self.host == "localhost" or ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def client_key(self) -> str:
        """What our own clients send to serving: `serving_key`, else what `key add` left in `home`; may be empty."""
        try:
            return self.serving_key.get_secret_value() or self.client_key_file.read_text().strip()
        except OSError:
            return ""

    @property
    def client_key_file(self) -> Path:
        """File of the key of our own clients on this machine."""
        return self.home / "serving-key"

    @cached_property
    def allowed_prefixes(self) -> tuple[str, ...]:
        """Dotted prefixes under which a spec may name code, each ending in a dot."""
        return ("sklearn.", "xgboost.", "lightgbm.", "include.", *self.own_prefixes)

    @cached_property
    def own_prefixes(self) -> tuple[str, ...]:
        """Those of them that `code_prefixes` adds: the team's own code, each ending in a dot."""
        named = (prefix.strip().rstrip(".") for prefix in self.code_prefixes.split(","))
        return tuple(f"{prefix}." for prefix in named if prefix)

    def resolve(self, path: str | Path) -> Path:
        """Return `path` as an absolute path; relative ones start at the repository root."""
        return anchored(path)


def get_settings() -> Settings:
    """Return the settings of this process's environment, read now (so tests can change it).

    Raises:
        SpecError: A variable holds what its setting cannot be.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        raise SpecError(
            f"EVERGREEN_{str(first['loc'][0]).upper()}",
            f"{str(first['msg']).lower()}, got {first['input']!r}",
            "Correct the environment variable.",
        ) from None
