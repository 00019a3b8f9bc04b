"""How far a play went, kept in a file, so that one that was killed goes on where it stopped."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, Self

from include.errors import DataError, SpecError
from include.simulator.plan import Plan, midnight
from include.simulator.scenarios import World


@dataclass
class Progress:
    """What has been played, kept in a file.

    Attributes:
        path: The file.
        scenario: What is played; with `seed`, `start`, `rows` and `onset` it makes the play.
        seed: Number of the world.
        start: First day, ISO.
        rows: Customers on a usual day.
        onset: First different day, ISO.
        trained: Whether the first training is over.
        days: Rows asked for and refused on each day that is over, by ISO date.
        judged: Ends of the windows the monitor has looked at, ISO.
    """

    path: Path
    scenario: str
    seed: int
    start: str
    rows: int
    onset: str
    trained: bool = False
    days: dict[str, tuple[int, int]] = field(default_factory=dict)
    judged: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read what a play left; None where there was none.

        Raises:
            DataError: The file is damaged.
        """
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            days = {
                day: (int(sent), int(refused)) for day, (sent, refused) in found["days"].items()
            }
            return cls(path, **{**found, "days": days})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                str(path),
                f"must say how far the play went, got {type(error).__name__}: {error}",
                "Delete it; the play then begins anew.",
            ) from error

    @classmethod
    def begin(cls, path: Path, plan: Plan) -> Self:
        """Remember a new play."""
        world = plan.world
        first, onset = plan.start.isoformat(), world.onset.isoformat()
        made = cls(path, world.scenario, world.seed, first, world.rows, onset)
        made.save()
        return made

    def save(self) -> None:
        """Write it in one step."""
        content = {k: v for k, v in asdict(self).items() if k != "path"}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
        draft.write_text(json.dumps(content, indent=1), encoding="utf-8")
        draft.replace(self.path)

    def plan(self, plan: Plan, *, rows: int | None = None, start: date | None = None) -> Plan:
        """Return how this play goes on: its own start and onset, and the end that `plan` has.

        Args:
            plan: What is asked for.
            rows: Customers on a usual day, where they were asked for; None takes the play's.
            start: First day, where it was asked for; None takes the play's.

        Raises:
            SpecError: Another play is asked for.
        """
        mine = _play(self.scenario, self.seed, self.rows, self.start)
        asked = _play(
            plan.world.scenario,
            plan.world.seed,
            rows or self.rows,
            start.isoformat() if start else self.start,
        )
        if mine != asked:
            raise SpecError(
                f"simulate {plan.model}",
                f"must go on with {mine}, got {asked}",
                "What was predicted cannot be unpredicted: play it on a copy of the spec with another "
                "`model` and another folder of data.",
            )
        start = date.fromisoformat(self.start)
        world = World(
            self.scenario,
            date.fromisoformat(self.onset),
            self.seed,
            self.rows,
            plan.world.delay,
        )
        days = max((plan.end - start).days, len(self.days))
        return Plan(plan.model, world, start, days, plan.window, plan.history)

    def sent(self, start: datetime, end: datetime) -> int:
        """Return how many rows were asked for and answered in `start <= day < end`."""
        within = (
            (sent, refused)
            for day, (sent, refused) in self.days.items()
            if start <= midnight(date.fromisoformat(day)) < end
        )
        return sum(sent - refused for sent, refused in within)


def _play(scenario: str, seed: int, rows: int, start: str) -> str:
    return f"{scenario} (seed {seed}, {rows} rows a day, from {start} on)"
