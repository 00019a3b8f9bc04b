from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from include.errors import DataError
from include.monitor.decide import decide
from include.monitor.findings import QUALITY
from include.monitor.quality import check_quality
from tests.unit.monitor.live import NOW, WINDOW, World, make_spec, of, rows, status, stirred

USUAL = [600, 580, 640, 610, 590]


def test_good_data_passes_every_check(world, live):
    found = world.quality(live, history=USUAL)
    assert not stirred(found)
    assert {f.check for f in found} == QUALITY


def test_no_false_alarm_on_the_same_distribution(tmp_path):
    alarms = []
    for seed in range(12):
        world = World(tmp_path, make_spec(), rows(900, seed))
        alarms += stirred(world.quality(rows(300, 1000 + seed)))
    assert not alarms


# --- schema ---------------------------------------------------------------------------------------------


def test_a_feature_that_is_not_logged(world, live):
    found = world.quality(live.drop(columns=["use"]))
    assert status(found, "schema", "use") == "alert"
    assert not of(found, "nulls", "use")


def test_a_new_column_is_a_warning(world, live):
    assert status(world.quality(live.assign(extra=1.0)), "schema", "extra") == "warn"


def test_a_number_that_became_text(world, live):
    found = world.quality(live, replace={"age": pa.array(["40"] * len(live))})
    assert status(found, "schema", "age") == "alert"
    assert "must hold numbers" in of(found, "schema", "age")[0].message


# --- missing values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "wanted"), [(0.05, "ok"), (0.15, "warn"), (0.3, "alert"), (1.0, "alert")]
)
@pytest.mark.parametrize("column", ["use", "region"])
def test_missing_values(world, live, share, wanted, column):
    live[column] = live[column].mask(np.arange(len(live)) < share * len(live))
    found = world.quality(live)
    assert status([f for f in found if f.column in (column, None)], "nulls") == wanted


def test_fewer_missing_values_than_before_are_a_warning(world, live):
    world.frame.loc[:999, "use"] = np.nan
    found = world.quality(live)
    assert status(found, "nulls", "use") == "warn"
    assert "default" in of(found, "nulls", "use")[0].message


def test_a_few_rows_do_not_prove_a_larger_share_of_missing_values(tmp_path):
    world = World(tmp_path, make_spec(min_rows=10), rows(2000).assign(use=0.5))
    world.frame.loc[:199, "use"] = np.nan
    few = rows(12, 5).assign(use=0.5)
    few.loc[:2, "use"] = np.nan  # 25 % against 10 %
    assert not stirred(world.quality(few))


def test_a_column_that_was_always_empty_may_stay_empty(world, live):
    world.frame["use"] = np.nan
    assert not stirred(world.quality(live.assign(use=np.nan)))


# --- ranges ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "wanted"), [(2, "ok"), (3, "warn"), (30, "alert")])
def test_numbers_far_outside_the_range(world, live, count, wanted):
    live.loc[: count - 1, "age"] = -9999.0
    assert status(world.quality(live), "range") == wanted


@pytest.mark.parametrize(("count", "wanted"), [(1, "warn"), (30, "alert")])
def test_infinities_are_a_finding_of_their_own(world, live, count, wanted):
    live.loc[: count - 1, "use"] = np.inf
    found = world.quality(live)
    assert status(found, "range", "use") == wanted
    assert "infinite" in of(found, "range", "use")[0].message


def test_infinities_that_the_champion_knows_are_no_news(world, live):
    world.frame.loc[:199, "use"] = np.inf
    live.loc[:29, "use"] = np.inf
    assert not stirred(world.quality(live))


# --- categories -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "wanted"), [(5, "ok"), (30, "warn"), (400, "alert")])
def test_unknown_categories(world, live, count, wanted):
    live.loc[: count - 1, "region"] = "NORTH"
    found = world.quality(live)
    assert status(found, "categories") == wanted
    assert of(found, "categories")[0].examples == (() if wanted == "ok" else ("NORTH",))


def test_no_value_of_the_data_is_in_what_is_kept_for_ever(world, live):
    live["region"] = "Jane Roe, 1 Main St" + "!" * 20_000
    live.loc[:299, "age"] = 123456.0
    found = world.quality(live)
    outcome = decide(world.spec, found, [])
    assert "100 % of values (600) are of 1 category unknown to the champion" in outcome.reason
    assert len(outcome.reason) < 500
    for value in ("Jane", "123456", "1.23456e+05"):
        assert not any(value in f.message for f in found)
    assert of(found, "categories", "region")[0].examples[0].startswith("Jane Roe, 1 Main St!!")
    assert len(of(found, "categories", "region")[0].examples[0]) == 61
    assert of(found, "range", "age")[0].examples[0].endswith(" to 123456")


def test_new_values_of_a_column_of_many_are_expected(tmp_path):
    def frame(count: int, seed: int) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        return pd.DataFrame({"shop": (rng.pareto(1, count) * 20).astype(int).astype(str)})

    world = World(tmp_path, make_spec(), frame(3000, 0))
    live = frame(1000, 1)
    unseen = (~live["shop"].isin(world.frame["shop"])).mean()
    assert unseen > 0.02  # twice the limit that other columns have
    assert not stirred(world.quality(live))


# --- refused requests -----------------------------------------------------------------------------------


def refused(count: int, answered: int) -> dict[str, pa.Array]:
    """Return the errors of a window whose last rows were refused."""
    return {"_error": pa.array([None] * answered + ["422 no number"] * count, pa.string())}


def with_refusals(live: pd.DataFrame, count: int) -> pd.DataFrame:
    nothing = pd.DataFrame([dict.fromkeys(live.columns)] * count, columns=live.columns)
    return pd.concat([live, nothing.astype(live.dtypes.to_dict())], ignore_index=True)


@pytest.mark.parametrize(
    ("count", "wanted"), [(10, "ok"), (40, "warn"), (300, "warn"), (600, "warn"), (700, "alert")]
)
def test_refused_requests_are_a_finding_of_their_own_and_no_missing_values(
    world, live, count, wanted
):
    found = world.quality(with_refusals(live, count), replace=refused(count, 600))
    assert status(found, "refusals") == wanted
    others = [f for f in found if f.check != "refusals"]
    assert not stirred(others)
    assert of(found, "volume")[0].value == 600 + count
    assert decide(world.spec, found, []).broken == (wanted == "alert")


def test_refused_requests_do_not_make_a_window_large_enough(world):
    frame = with_refusals(rows(50).assign(use=np.inf), 60)
    found = world.quality(frame, replace=refused(60, 50))
    assert {f.check for f in found} == {"volume", "staleness", "refusals", "schema"}
    drift = world.drift(frame, replace=refused(60, 50))
    assert {f.status for f in drift} == {"insufficient_data"}
    assert drift[0].message == "50 predictions, 100 are needed (monitor.min_rows)."


def test_a_few_refused_requests_prove_nothing(world):
    found = world.quality(with_refusals(rows(20), 30), replace=refused(30, 20))
    assert status(found, "refusals") == "insufficient_data"
    assert not decide(world.spec, found, []).broken


def test_refused_requests_do_not_hide_a_drift(world, live):
    frame = with_refusals(live.assign(age=live["age"] + 12), 500)
    found = world.drift(frame, replace=refused(500, 600))
    assert status(found, "drift", "age") == "alert"


def test_nothing_but_refused_requests(world, live):
    found = world.quality(with_refusals(live.iloc[:0], 200), replace=refused(200, 0))
    assert {f.check for f in found} == {"volume", "staleness", "refusals"}
    assert status(found, "refusals") == "alert"


# --- volume and staleness -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "history", "wanted"),
    [
        (600, USUAL, "ok"),
        (600, [], "ok"),
        (600, [100, 90, 110, 80], "warn"),
        (600, [5000, 5100, 4900], "alert"),
        (110, [600, 600, 20, 20, 600, 600], "ok"),  # nights are among them
        (50, USUAL, "alert"),
        (50, [], "insufficient_data"),
        (2, [9, 8, 11, 10], "insufficient_data"),  # so little traffic proves nothing
    ],
)
def test_volume(world, count, history, wanted):
    assert status(world.quality(rows(count, 2), history=history), "volume") == wanted


def test_a_window_that_goes_on_is_not_judged_by_its_volume(world):
    now = WINDOW.end - timedelta(hours=1)
    found = world.quality(rows(50), history=USUAL, now=now)
    assert status(found, "volume") == "insufficient_data"


def test_no_rows_at_all(world, live):
    found = world.quality(live.iloc[:0], history=USUAL)
    assert {f.check: f.status for f in found} == {"volume": "alert", "staleness": "alert"}
    quiet = world.quality(live.iloc[:0], history=[0, 0, 0])
    assert {f.status for f in quiet} == {"insufficient_data"}


def test_a_tiny_window_is_judged_by_volume_and_schema_only(world):
    found = world.quality(rows(20).assign(use=np.inf))
    assert {f.check for f in found} == {"volume", "staleness", "refusals", "schema"}


@pytest.mark.parametrize(
    ("hours", "wanted"),
    [
        (range(24), "ok"),
        (range(18), "warn"),
        (range(20), "ok"),  # a short silence
        (range(8, 16), "ok"),  # office hours
        ([2], "ok"),  # one batch a day
    ],
)
def test_traffic_that_stops(world, hours, wanted):
    times = [WINDOW.start + timedelta(hours=h, minutes=m) for h in hours for m in range(50)]
    found = world.quality(rows(len(times), 4), times=times)
    assert status(found, "staleness") == wanted


def test_a_file_that_is_none(world, tmp_path):
    path = tmp_path / "window.parquet"
    path.write_text("not Parquet")
    with pytest.raises(DataError, match=r"window\.parquet: must be a Parquet file"):
        check_quality(world.spec, path, world.reference, WINDOW, now=NOW)
