"""Every error Evergreen raises on purpose.

EvergreenError
├── SpecError            a model's YAML file is wrong
├── DataError            the data cannot be read, or is not what the spec says
│   └── SnapshotError    a stored snapshot is missing or damaged
├── ModelError           an estimator cannot be built, fitted, saved or loaded
├── ConflictError        somebody else moved first (compare-and-set refused)
│   └── PinnedError      a person keeps the champion where it is
└── ServiceError         MLflow, S3, a database or the serving process did not do its part

A message has the form *where: rule, got what. What to do.* Everything but ServiceError is permanent:
trying again without changing something gives the same answer, so tasks do not retry it.
"""

from __future__ import annotations


class EvergreenError(Exception):
    """Base of all expected failures.

    Args:
        where: File and key, column, task or service the failure belongs to.
        rule: What must hold and what was found instead, without a final full stop.
        fix: What the reader can do about it, as a sentence.
    """

    transient = False

    def __init__(self, where: str, rule: str, fix: str) -> None:
        super().__init__(where, rule, fix)
        self.where, self.rule, self.fix = where, rule, fix

    def __str__(self) -> str:
        return f"{self.where}: {self.rule}. {self.fix}"


class SpecError(EvergreenError):
    """A model's YAML file is wrong; see `include.spec.loader` for the error that lists several problems."""


class DataError(EvergreenError):
    """The data cannot be read, or is not what the spec says it is."""


class SnapshotError(DataError):
    """A stored snapshot is missing, incomplete or does not match its digest."""


class ModelError(EvergreenError):
    """An estimator cannot be built, fitted, saved, verified or loaded."""


class ConflictError(EvergreenError):
    """The state changed since it was read; nothing was written."""


class PinnedError(ConflictError):
    """The champion is pinned, so that nothing is promoted until somebody releases it; nothing was written."""


class ServiceError(EvergreenError):
    """A service Evergreen talks to is away or refused; trying again later may help."""

    transient = True
