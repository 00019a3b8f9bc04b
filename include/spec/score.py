"""The section `score`: predictions for whole batches of rows, and where they go."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from include.spec.sources import FileSource, S3Source, Section, Source
from include.spec.values import Cron, TimeZone

#: Stands for the partition in a path of `score.source`.
PARTITION = "{partition}"
#: What a partition may be called: the name of a folder, an object or a row, whoever reads it.
PARTITION_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class FileTarget(Section):
    """A folder on a disk that every worker sees."""

    kind: Literal["file"]
    path: str = Field(
        pattern=r"^[^{}]+$",
        description="Folder; a relative one starts at the repository root. A partition is the file "
        "`partition=NAME/predictions.parquet` in it.",
    )


class S3Target(Section):
    """A prefix in S3 or anything that speaks its API."""

    kind: Literal["s3"]
    path: str = Field(
        pattern=r"^s3://[^/*?\[{}]+/[^*?\[{}]+$",
        description="s3://bucket/prefix. A partition is the object `partition=NAME/predictions.parquet` under it.",
    )
    endpoint_url: str | None = Field(
        None, description="S3 endpoint; omit for AWS or the AWS_ENDPOINT_URL environment variable."
    )
    connection: str | None = Field(
        None, description="Airflow connection with the credentials; omit for boto3's own chain."
    )


class SqlTarget(Section):
    """A table in any database SQLAlchemy reaches."""

    kind: Literal["sql"]
    table: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)?$",
        description="Table, or schema.table; made when it is missing. A partition is the rows with its name in "
        "the column `partition`.",
    )
    connection: str | None = Field(None, description="Airflow connection of the database.")
    url_env: str | None = Field(
        None, description="Environment variable with a SQLAlchemy URL, instead of a connection."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.connection is None) == (self.url_env is None):
            raise ValueError("must name exactly one of connection and url_env")
        return self


Target = Annotated[FileTarget | S3Target | SqlTarget, Field(discriminator="kind")]


class Score(Section):
    """Predictions for whole batches of rows, partition by partition."""

    source: Source = Field(
        description="Where the rows come from. `{partition}` in a path, :partition in a query and the argument "
        "`partition` of a function stand for the partition's name."
    )
    to: Target = Field(description="Where the predictions go.")
    schedule: Cron | None = Field(
        None, description="Cron of scoring; omit to start it by hand, by REST or by an asset."
    )
    timezone: TimeZone = Field(
        "UTC",
        description="IANA time zone of `schedule`, and of the date that names a run's partition.",
    )

    @field_validator("source")
    @classmethod
    def _only_that_placeholder(cls, source: Source) -> Source:
        if isinstance(source, FileSource | S3Source):
            paths = (source.path,) if isinstance(source.path, str) else source.path
            for path in paths:
                if "{" in path.replace(PARTITION, "") or "}" in path.replace(PARTITION, ""):
                    raise ValueError(f"must hold no placeholder but {PARTITION}, got path {path!r}")
        return source

    def for_partition(self, partition: str) -> Source:
        """Return the source with the partition's name in its path."""
        if isinstance(self.source, S3Source):
            path = self.source.path.replace(PARTITION, partition)
            return self.source.model_copy(update={"path": path})
        if isinstance(self.source, FileSource):
            given = self.source.path
            paths = (given,) if isinstance(given, str) else given
            filled = tuple(path.replace(PARTITION, partition) for path in paths)
            return self.source.model_copy(update={"path": filled})
        return self.source
