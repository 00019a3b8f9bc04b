"""Finding the version a person names. Owns what is said when there is none."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from include.errors import ModelError
from include.spec.loader import find_spec

if TYPE_CHECKING:
    from include.registry.gateway import Registry
    from include.registry.package import Version

_SHOWN = 5


def choose_version(registry: Registry, name: str, wanted: str | None = None) -> Version:
    """Return the version of a model that a person means.

    Args:
        registry: The registry.
        name: The model.
        wanted: Number or alias; None for the champion, else the newest.

    Raises:
        SpecError: There is no such model, neither among the specs nor in the registry.
        ModelError: The model has no such version; the message lists those it has.
    """
    # MLflow's search would fail on a quote, and no model of ours has one in its name.
    known = [] if "'" in name else registry.versions(name)
    if not known:
        find_spec(name)
        raise ModelError(
            f"MLflow model {name!r}",
            f"must have {f'version {wanted}' if wanted else 'a version'}, got none",
            f"Train it: `./evergreen trigger {name}`.",
        )
    aliases = registry.aliases(name)
    number = aliases.get("champion", known[0].version) if wanted is None else wanted
    number = aliases.get(number, number)
    for version in known:
        if version.version == number:
            return version
    names = [v.version for v in known]
    more = f" and {len(names) - _SHOWN} older" if len(names) > _SHOWN else ""
    near = difflib.get_close_matches(str(wanted), [*aliases, *names], n=1, cutoff=0.5)
    raise ModelError(
        f"MLflow model {name!r}",
        f"must have version {wanted}, got {', '.join([*names[:_SHOWN], *sorted(aliases)])}{more}",
        f"Did you mean {near[0]!r}?" if near else "Choose one of those.",
    )
