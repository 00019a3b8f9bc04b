"""Where rows come from, as a spec says it: files, S3, SQL, a function. Training, labels and scoring share them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from include.spec.values import CodePath


class Section(BaseModel):
    """Base of every part of a spec: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=False)


class FileSource(Section):
    """Files on a disk that every worker sees."""

    kind: Literal["file"]
    path: str | tuple[str, ...] = Field(
        description="Path or glob, or a list of them; relative ones start at the repository root."
    )
    format: Literal["auto", "csv", "parquet", "jsonl"] = Field(
        "auto", description="File format; auto goes by the file's ending."
    )
    missing: tuple[str, ...] = Field(
        ("",), description="Texts that mean missing in CSV, compared after trimming blanks."
    )


class S3Source(Section):
    """Objects in S3 or anything that speaks its API."""

    kind: Literal["s3"]
    path: str = Field(
        pattern=r"^s3://[^/]+/.+$", description="s3://bucket/key, where the key may be a glob."
    )
    format: Literal["auto", "csv", "parquet", "jsonl"] = Field(
        "auto", description="Object format; auto goes by the key's ending."
    )
    missing: tuple[str, ...] = Field(
        ("",), description="Texts that mean missing in CSV, compared after trimming blanks."
    )
    endpoint_url: str | None = Field(
        None, description="S3 endpoint; omit for AWS or the AWS_ENDPOINT_URL environment variable."
    )
    connection: str | None = Field(
        None, description="Airflow connection with the credentials; omit for boto3's own chain."
    )


class SqlSource(Section):
    """A query against any database SQLAlchemy reaches."""

    kind: Literal["sql"]
    query: str = Field(
        min_length=1,
        description="One SELECT; may use the bound parameters :window_start and :window_end.",
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


class PythonSource(Section):
    """A function that returns a pandas DataFrame."""

    kind: Literal["python"]
    call: CodePath = Field(
        description="Dotted path of the function; gets window_start and window_end if it takes them."
    )
    args: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments for the function."
    )


Source = Annotated[FileSource | S3Source | SqlSource | PythonSource, Field(discriminator="kind")]
