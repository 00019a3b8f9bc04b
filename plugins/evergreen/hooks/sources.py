"""Turns the Airflow connections a spec names into what the stages take that read sources and write to targets."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseHook

from include.errors import SpecError
from include.spec.score import S3Target, SqlTarget, Target
from include.spec.sources import S3Source, Source, SqlSource


def source_options(source: Source | Target) -> dict[str, Any]:
    """Return the keyword arguments of the stages that hold the credentials of a source or target.

    Raises:
        SpecError: The connection is of a kind that has no SQLAlchemy URL.
    """
    if isinstance(source, SqlSource | SqlTarget) and source.connection:
        return {"sql_url": _sql_url(source.connection)}
    if isinstance(source, S3Source | S3Target) and source.connection:
        return {"s3_options": _s3_options(source.connection)}
    return {}


def _sql_url(conn_id: str) -> str:
    hook = BaseHook.get_hook(conn_id)
    if not hasattr(hook, "get_uri"):
        raise SpecError(
            f"connection {conn_id}",
            f"must be a database, got {type(hook).__name__}",
            "Name another connection.",
        )
    return str(hook.get_uri())


def _s3_options(conn_id: str) -> dict[str, Any]:
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

    hook = AwsBaseHook(aws_conn_id=conn_id, client_type="s3")
    keys = hook.get_credentials()
    options = {
        "aws_access_key_id": keys.access_key,
        "aws_secret_access_key": keys.secret_key,
        "aws_session_token": keys.token,
        "region_name": hook.region_name,
        "endpoint_url": hook.conn_config.get_service_endpoint_url("s3"),
    }
    return {name: value for name, value in options.items() if value}
