"""The rollout of a challenger: which version takes which share of a model's traffic.

Owns the tag of the registered model by which every serving process learns of it, in the same poll as the aliases.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, get_args

Mode = Literal["canary", "shadow", "ab"]
TAG_ROLLOUT = "evergreen.rollout"


@dataclass(frozen=True)
class Rollout:
    """How a challenger takes part in a model's traffic right now.

    Args:
        id: Same for all steps of one rollout; the salt of the routing.
        version: The challenger.
        mode: canary and ab: it answers its share; shadow: it answers nobody, its share of requests is mirrored.
        share: 0 to 1.
    """

    id: str
    version: str
    mode: Mode
    share: float

    def to_tag(self) -> str:
        """Return the tag's text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_tag(cls, text: str | None) -> Rollout | None:
        """Read a tag; None for none, and for one that is no rollout: then the champion answers everybody."""
        try:
            values = json.loads(text or "null")
            rollout = cls(
                str(values["id"]), str(values["version"]), values["mode"], float(values["share"])
            )
        except (ValueError, KeyError, TypeError):
            return None
        sane = rollout.mode in get_args(Mode) and 0 <= rollout.share <= 1
        return rollout if sane else None
