"""What scoring writes and logs, and that a repeat changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.errors import DataError, SpecError
from include.score import log as log_module
from include.score import rows as rows_module
from include.score.score import partition_time
from include.serving.engine import Engine
from include.store.predictions import compact
from tests.unit.score.conftest import DAY, NOW, Mortal, World, frame, make_spec, renamed
from tests.unit.store.log_rows import Killed

P = "2026-05-31"


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("task", ["binary", "regression", "multiclass"])
def test_what_is_written_and_logged(
    world: World, engines: dict[str, Engine], task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "PIECE_ROWS", 50)  # 120 rows: two whole pieces and a rest
    world.engine, world.spec = engines[task], make_spec(world.folder, task)
    data = frame()
    world.write(P, data)
    seen: list[int] = []
    done = world.score(P, progress=seen.append)
    assert (done.version, done.rows, seen) == ("7", 120, [50, 100, 120])

    classes = {"binary": ["no", "yes"], "regression": [], "multiclass": [1, 2, 7]}[task]
    names = [f"probability_{label}" for label in classes]
    table = world.output(P)
    assert table.column_names == ["customer", "seen_at", "predict", *names, "version"]
    assert table["customer"].to_pylist() == list(data["customer"])
    assert table["seen_at"].to_pylist() == list(data["seen_at"])
    kinds = {"binary": pa.string(), "regression": pa.float64(), "multiclass": pa.int64()}
    assert table.schema.field("predict").type == kinds[task]

    said = world.engine.predict(
        {name: data[name].to_numpy() for name in ("age", "income", "member")}
        | {"region": data["region"].to_numpy(), "plan": data["plan"].map(str).to_numpy(object)}
    )
    assert (
        table["predict"].to_pylist() == pytest.approx(said.predict)
        if task == "regression"
        else (table["predict"].to_pylist() == said.predict)
    )
    for place, name in enumerate(names):
        assert said.probability is not None
        assert table[name].to_numpy() == pytest.approx(said.probability[:, place])

    logged = world.logged()
    assert [row["place"] for row in logged] == list(range(120))
    assert {(row["_row"], row["_arm"]) for row in logged} == {(0, "batch")}
    assert len({row["_request_id"].rpartition("-")[0] for row in logged}) == 1
    assert [row["_key"] for row in logged] == list(data["customer"])
    assert [row["_time"] for row in logged] == list(data["seen_at"])
    assert {row["_logged_at"] for row in logged} == {NOW}
    assert all(row["_error"] is None and row["_latency_ms"] > 0 for row in logged)
    assert logged[0]["age"] is None  # NaN is missing
    assert (logged[1]["plan"], logged[1]["member"]) == (
        str(data["plan"][1]),
        float(data["member"][1]),
    )
    assert "colour_of_eyes" not in logged[0]
    first = logged[0]
    if task == "regression":
        assert float(first["_prediction"]) == first["_score"] == table["predict"][0].as_py()
    else:
        assert first["_prediction"] == str(table["predict"][0].as_py())
        spread = [table[name][0].as_py() for name in names]
        assert first["_probability"] == spread
        assert first["_score"] == (spread[1] if task == "binary" else max(spread))


def test_the_log_says_what_serving_would_say(world: World) -> None:
    """The monitor judges both alike, so both must write a row in the same form."""
    from include.serving.identity import Identity
    from include.serving.log_rows import Author, Entry, to_tables

    world.write(P, frame(40))
    world.score(P)
    batch = world.logged()
    columns = {name: [row[name] for row in batch] for name in world.engine.schema.names}
    checked = {n: world.engine.schema.column(n, v, "column") for n, v in columns.items()}
    times = [round(row["_time"].timestamp() * 1e6) for row in batch]
    entry = Entry(
        Author.of(world.engine),
        "batch",
        batch[0]["_request_id"],
        round(NOW.timestamp() * 1e6),
        1.0,
        0,
        checked,
        world.engine.predict(checked),
        Identity([row["_key"] for row in batch], times),
    )
    [(_, served)] = to_tables([entry])
    for mine, its in zip(batch, served.to_pylist(), strict=True):
        assert mine.pop("place") == its.pop(
            "_row"
        )  # here one request of many rows, there each its own
        same = {"_latency_ms": 1.0, "_request_id": its["_request_id"]}
        assert {k: v for k, v in mine.items() if k != "_row"} | same == its


def test_a_repeat_writes_the_same_bytes_and_logs_nothing_twice(world: World) -> None:
    world.write(P, frame())
    first = world.score(P)
    before, log, rows = files(world.folder / "out"), files(world.folder / "store"), world.logged()
    later = NOW + timedelta(hours=3)
    assert world.score(P, now=later) == first
    assert files(world.folder / "out") == before
    assert set(files(world.folder / "store")) == set(log)
    again = world.logged()
    # A rollout judges what was logged since it began: scored again, a partition counts for it.
    assert {row["_logged_at"] for row in again} == {later}
    for row in (*rows, *again):
        del row["_logged_at"], row["_latency_ms"]
    assert again == rows


def test_a_repeat_after_compaction_counts_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "_PART_ROWS", 30)
    world.write(P, frame())
    world.score(P)
    assert compact(world.store, "churn", before=NOW.date()) == 4
    world.score(P, now=NOW + timedelta(hours=3))
    assert len(world.logged()) == 120
    assert compact(world.store, "churn", before=NOW.date()) == 5
    assert len(world.logged()) == 120


def test_a_partition_replaces_itself_and_no_other(world: World) -> None:
    for number, name in enumerate(("2026-05-30", P, "2026-05-31.1")):
        world.write(name, frame(20 + number, start=DAY + timedelta(days=number - 1)))
        world.score(name)
    before = files(world.folder / "out")
    world.write(P, frame(7))
    world.score(P, engine=renamed(world.engine, "9"))
    after = files(world.folder / "out")
    changed = {name for name in after if before[name] != after[name]}
    assert set(after) == set(before)
    assert changed == {f"partition={P}/predictions.parquet"}
    assert set(world.output(P)["version"].to_pylist()) == {"9"}
    assert world.read().num_rows == 20 + 7 + 22


def test_pieces_lie_at_the_same_rows_however_the_source_is_cut(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = frame(500)
    world.write("one", data)
    for number in range(5):
        world.write("five", data.iloc[number * 100 : number * 100 + 100], f"{number}.parquet")
    sizes: list[list[int]] = [[], []]
    monkeypatch.setattr(rows_module, "PIECE_ROWS", 130)
    world.score("one", progress=sizes[0].append)
    world.score("five", progress=sizes[1].append)
    assert sizes[0] == sizes[1] == [130, 260, 390, 500]
    one, five = (world.output(name) for name in ("one", "five"))
    assert one.equals(five)


def test_csv_is_read_as_the_model_was_trained(world: World) -> None:
    data = frame(60)
    world.write("typed", data)
    world.write("text", data, "rows.csv")
    world.score("typed")
    world.score("text")
    typed, text = world.output("typed"), world.output("text")
    assert typed.drop_columns(["seen_at"]).equals(text.drop_columns(["seen_at"]))
    assert pc.all(pc.equal(typed["seen_at"], text["seen_at"])).as_py()


def test_a_numeric_key_stays_a_number(world: World) -> None:
    data = frame(30).assign(customer=range(1000, 1030))
    world.write(P, data)
    world.score(P)
    assert world.output(P).schema.field("customer").type == pa.int64()
    assert world.logged()[3]["_key"] == "1003"


def test_no_rows_are_an_empty_partition(world: World) -> None:
    world.write(P, frame(10))
    world.score(P)
    world.write(P, frame(10).iloc[:0])
    assert world.score(P).rows == 0
    table = world.output(P)
    assert (table.num_rows, table.column_names[0]) == (0, "customer")


def test_a_model_without_key_and_time(world: World) -> None:
    ingest = world.spec.ingest.model_copy(update={"key": None, "time": None})
    world.spec = world.spec.model_copy(update={"ingest": ingest})
    world.write(P, frame(10).drop(columns=["customer", "seen_at"]))
    world.score(P)
    assert world.output(P).column_names[0] == "predict"
    assert {(row["_key"], row["_time"]) for row in world.logged()} == {(None, DAY)}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda d: d.drop(columns="income"), r"feature 'income' must be a column.*"),
        (lambda d: d.rename(columns={"income": "incme"}), "Did you mean 'incme'"),
        (lambda d: d.drop(columns="customer"), "key column 'customer' must be a column"),
        (lambda d: d.drop(columns="seen_at"), "time column 'seen_at' must be a column"),
        (
            lambda d: d.assign(income=[*d["income"][:-1].map(str), "a lot"]),
            "'income' must be a float in every row, as in training, got 'a lot' in row 119",
        ),
        (
            lambda d: d.assign(plan=[*d["plan"][:-1].map(str), "gold"]),
            "'plan' must be a int in every row, as in training, got 'gold' in row 119",
        ),
        (
            lambda d: d.assign(
                seen_at=[None if n == 70 else t for n, t in enumerate(d["seen_at"])]
            ),
            "every row must have a time in 'seen_at', got none in row 70",
        ),
        (
            lambda d: d.assign(income=[float("inf") if n == 93 else 1.0 for n in range(120)]),
            "version 7 must have an answer for every row, got none for row 93: 422 .*infin",
        ),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(
    world: World, spoil: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "PIECE_ROWS", 50)
    world.write(P, frame(20))
    world.score(P)
    before = files(world.folder / "out"), files(world.folder / "store")
    world.write(P, spoil(frame()))
    with pytest.raises(DataError, match=f"(?s)score.source.*{said}"):
        world.score(P)
    assert (files(world.folder / "out"), files(world.folder / "store")) == before


def test_no_file_is_no_empty_partition(world: World) -> None:
    with pytest.raises(DataError, match=r"must match at least one file.*score\.source\.path"):
        world.score("2026-06-01")


def test_columns_of_the_output_must_differ(world: World) -> None:
    ingest = world.spec.ingest.model_copy(update={"key": "Version"})
    world.spec = world.spec.model_copy(update={"ingest": ingest})
    world.write(P, frame(10).rename(columns={"customer": "Version"}))
    with pytest.raises(SpecError, match="must differ, got Version and version"):
        world.score(P)


def test_personal_data_is_never_read(world: World) -> None:
    world.write(P, frame(10).assign(email="a@b.example"))
    world.score(P)
    assert "email" not in world.output(P).column_names
    assert "email" not in world.logged()[0]


# --- kills ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kill_at", range(6))
def test_killed_at_any_write_a_repeat_makes_it_whole(
    world: World, kill_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output, then five parts of the log: whoever is killed before any of them leaves the old or the new."""
    from include.score.targets import Files
    from include.store.folder import FolderStore

    monkeypatch.setattr(log_module, "_PART_ROWS", 25)
    world.write(P, frame(9, seed=1))
    world.score(P, engine=renamed(world.engine, "6"))
    old = files(world.folder / "out")
    world.write(P, frame())
    whole = frame()["customer"].to_list()

    lives = [kill_at]
    out = Files(Mortal(FolderStore(world.folder / "out"), lives), now=NOW)
    with pytest.raises(Killed):
        world.score(P, destination=out, store=Mortal(world.store, lives))
    now = files(world.folder / "out")
    assert now == old if kill_at == 0 else world.output(P)["customer"].to_pylist() == whole
    assert len(world.read()) in (9, 120)
    world.score(P, now=NOW + timedelta(minutes=5))
    assert world.output(P)["customer"].to_pylist() == whole
    mine = [row for row in world.logged() if row["_version"] == "7"]
    assert [row["place"] for row in mine] == list(range(120))
    assert [p.name for p in (world.folder / "out").rglob("*") if p.is_file()] == [
        "predictions.parquet"
    ]


# --- whatever happens -----------------------------------------------------------------------------------

NAMES = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z")
STEPS = st.lists(
    st.tuples(st.sampled_from(["a", "B.1", "2026-05-31"]), st.integers(0, 3), st.integers(7, 8)),
    min_size=1,
    max_size=6,
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_the_last_scoring_of_a_partition_is_what_is_there(
    steps: list[tuple[str, int, int]],
    tmp_path_factory: pytest.TempPathFactory,
    engines: dict[str, Engine],
) -> None:
    from include.store.files import open_store

    folder = tmp_path_factory.mktemp("steps")
    world = World(folder, make_spec(folder), open_store(str(folder / "store")), engines["binary"])
    model: dict[str, tuple[int, int]] = {}
    for partition, count, version in steps:
        world.write(partition, frame(count + 1, seed=count))
        world.score(partition, engine=renamed(world.engine, str(version)))
        model[partition] = (count + 1, version)
        for name, (rows, by) in model.items():
            table = world.output(name)
            assert table.num_rows == rows
            assert set(table["version"].to_pylist()) == {str(by)}
        assert world.read().num_rows == sum(rows for rows, _ in model.values())
    said = [(r["_request_id"], r["_key"], r["age"], r["income"]) for r in world.logged()]
    assert len(set(said)) == len(said)  # whatever was scored again was logged once


@given(one=NAMES, other=NAMES)
def test_partitions_have_places_and_ids_of_their_own(one: str, other: str) -> None:
    from include.score.log import request_prefix
    from include.store.files import check_key

    assert check_key(f"partition={one}/predictions.parquet")
    same = one == other
    assert (request_prefix("m", one, "1") == request_prefix("m", other, "1")) == same
    assert (
        request_prefix("m", one, "1")
        != request_prefix("m", one, "2")
        != request_prefix("n", one, "2")
    )


@pytest.mark.parametrize(
    ("name", "zone", "moment"),
    [
        ("2026-05-31", "UTC", datetime(2026, 5, 31, tzinfo=UTC)),
        ("2026-05-31", "Europe/Berlin", datetime(2026, 5, 30, 22, tzinfo=UTC)),
        ("2026-5-31x", "UTC", NOW),
        ("north", "UTC", NOW),
    ],
)
def test_the_time_of_rows_without_one(name: str, zone: str, moment: datetime) -> None:
    assert partition_time(name, zone, NOW) == moment
