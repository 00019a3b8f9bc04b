"""A challenger's rows stand beside the champion's, in the log and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from include.errors import ConflictError, DataError
from include.score import rows as rows_module
from include.score import shadow as shadow_module
from include.serving.engine import Engine
from tests.unit.score.conftest import NOW, Mortal, World, frame
from tests.unit.score.test_score import P, files
from tests.unit.store.log_rows import Killed


class Broken:
    """An engine that has no answer for some rows."""

    def __init__(self, engine: Engine, bad: Callable[[Any], bool]) -> None:
        self._engine, self._bad = engine, bad

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def predict(self, columns: Any) -> Any:
        if any(self._bad(value) for value in columns["age"]):
            raise RuntimeError("cannot")
        return self._engine.predict(columns)


@pytest.fixture
def challenger(engines: dict[str, Engine]) -> Engine:
    return engines["challenger"]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "PIECE_ROWS", 50)


def test_the_same_rows_under_the_same_ids(world: World, challenger: Engine) -> None:
    world.write(P, frame())
    done = world.score(P)
    output = files(world.folder / "out")
    assert world.shadow(P, done, challenger).__dict__ == {"version": "8", "rows": 120, "failed": 0}
    assert files(world.folder / "out") == output
    logged = world.logged()
    champion, other = logged[:120], logged[120:]
    assert [(r["_version"], r["_arm"]) for r in (champion[0], other[0])] == [
        ("7", "batch"),
        ("8", "shadow"),
    ]
    for name in ("_request_id", "_row", "_key", "_time", "income"):
        assert [row[name] for row in champion] == [row[name] for row in other]
    assert [row["_score"] for row in champion] != [row["_score"] for row in other]

    before = set(files(world.folder / "store"))
    world.shadow(P, done, challenger, now=NOW.replace(hour=9))
    assert set(files(world.folder / "store")) == before
    assert len(world.logged()) == 240


def test_rows_it_fails_on_are_its_failures(world: World, challenger: Engine) -> None:
    data = frame().assign(age=[99.0 if n in (3, 49, 50, 119) else 40.0 for n in range(120)])
    world.write(P, data)
    done = world.score(P)
    broken: Any = Broken(challenger, lambda age: age == 99.0)
    assert world.shadow(P, done, broken).__dict__ == {"version": "8", "rows": 120, "failed": 4}
    mine = [row for row in world.logged() if row["_arm"] == "shadow"]
    failed = [row for row in mine if row["_error"]]
    assert [row["place"] for row in mine] == list(range(120))
    assert [row["place"] for row in failed] == [3, 49, 50, 119]
    assert {row["_error"] for row in failed} == {"500 RuntimeError: cannot"}
    assert all(row["_prediction"] is None and row["age"] is None for row in failed)
    assert failed[0]["_key"] == data["customer"][3]
    # each other row has its own answer, whatever it was asked together with
    alone = challenger.predict({n: [mine[0][n]] for n in challenger.schema.names})  # type: ignore[arg-type]
    assert mine[0]["_prediction"] == alone.predict[0]


def test_one_that_fails_on_everything_is_soon_left_alone(
    world: World, challenger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow_module, "_MOST_FAILED", 60)
    world.write(P, frame(200))
    done = world.score(P)
    broken: Any = Broken(challenger, lambda _age: True)
    assert world.shadow(P, done, broken).__dict__ == {"version": "8", "rows": 100, "failed": 60}
    mine = [row for row in world.logged() if row["_arm"] == "shadow"]
    assert [row["place"] for row in mine] == list(range(60))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.iloc[::-1],
        lambda d: d.iloc[:-1],
        lambda d: d.assign(income=d["income"] + 1),
        lambda d: d.rename(columns={"colour_of_eyes": "colour"}),
    ],
)
def test_other_rows_are_not_compared(
    world: World, challenger: Engine, change: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    world.write(P, frame())
    done = world.score(P)
    before = files(world.folder / "store")
    world.write(P, change(frame()))
    with pytest.raises(ConflictError, match="must hold the rows that version 7 scored"):
        world.shadow(P, done, challenger)
    assert files(world.folder / "store") == before


def test_a_category_stored_as_a_dictionary_is_part_of_the_rows(
    world: World, challenger: Engine
) -> None:
    world.write(P, frame().astype({"region": "category"}))
    done = world.score(P)
    world.shadow(P, done, challenger)
    other = frame()
    other["region"] = [{"north": "south"}.get(value, value) for value in other["region"]]
    world.write(P, other.astype({"region": "category"}))
    with pytest.raises(ConflictError):
        world.shadow(P, done, challenger)


def test_a_challenger_that_needs_more_than_the_source_has_says_so(
    world: World, challenger: Engine
) -> None:
    """Promoted, it would stop the scoring."""
    world.write(P, frame())
    done = world.score(P)
    schema = challenger.schema
    more = replace(schema.features, numeric=(*schema.features.numeric, "visits"))
    greedy = replace(challenger, schema=replace(schema, features=more))
    with pytest.raises(DataError, match="feature 'visits' must be a column"):
        world.shadow(P, done, greedy)


@pytest.mark.parametrize("kill_at", range(3))
def test_killed_at_any_write_a_repeat_makes_it_whole(
    world: World, challenger: Engine, kill_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.score import log as log_module

    monkeypatch.setattr(log_module, "_PART_ROWS", 40)
    world.write(P, frame())
    done = world.score(P)
    output = files(world.folder / "out")
    with pytest.raises(Killed):
        world.shadow(P, done, challenger, store=Mortal(world.store, [kill_at]))
    world.shadow(P, done, challenger)
    assert files(world.folder / "out") == output
    mine = [row for row in world.logged() if row["_arm"] == "shadow"]
    assert [row["place"] for row in mine] == list(range(120))
