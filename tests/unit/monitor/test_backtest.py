from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.cli.backtest.chart import draw_backtest
from include.errors import DataError
from include.monitor.backtest import Row, level, outcomes, table
from include.monitor.decide import drift_reason
from include.monitor.findings import Finding
from include.monitor.look import look
from include.monitor.reference import Reference
from include.monitor.replay import Replayed, find_windows, replay, with_drift
from include.monitor.windows import Window
from include.store.folder import FolderStore
from tests.unit.monitor.live import make_spec
from tests.unit.monitor.logged import (
    BEGAN,
    DAYS,
    END,
    ROWS,
    START,
    log_day,
    make_reference,
    toy_spec,
)


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> tuple[FolderStore, Reference]:
    """Thirteen days of which the last four have other inputs; on day 5 all of `b` is missing."""
    folder = tmp_path_factory.mktemp("shifted")
    store = FolderStore(folder / "store")
    for number in range(DAYS):
        day = START + timedelta(days=number)
        broken = {"b": [None] * ROWS} if number == 5 else {}
        log_day(store, day, shift=0.8 if day >= BEGAN else 0.0, concept=False, **broken)
    return store, make_reference(folder)


@pytest.fixture(scope="module")
def decayed(tmp_path_factory: pytest.TempPathFactory) -> tuple[FolderStore, Reference]:
    folder = tmp_path_factory.mktemp("decayed")
    store = FolderStore(folder / "store")
    for number in range(DAYS):
        day = START + timedelta(days=number)
        log_day(store, day, shift=0.0, concept=day >= BEGAN)
    return store, make_reference(folder)


def run(world: tuple[FolderStore, Reference], now: datetime = END, **drift: Any) -> list[Replayed]:
    store, reference = world
    spec = toy_spec(**drift)
    windows = find_windows(spec, store, now, None, None)
    return list(replay(spec, store, windows, lambda _: reference, now=now))


@pytest.fixture(scope="module")
def shifted_windows(shifted: tuple[FolderStore, Reference]) -> list[Replayed]:
    return run(shifted)


@pytest.fixture(scope="module")
def decayed_windows(decayed: tuple[FolderStore, Reference]) -> list[Replayed]:
    return run(decayed)


def own(rows: list[Row], kind: str = "drift") -> Row:
    return next(row for row in rows if row.own and row.kind == kind)


class TestReplay:
    def test_covers_the_log_once(self, shifted_windows: list[Replayed]) -> None:
        days = [one.window.start for one in shifted_windows]
        assert days == [START + timedelta(days=n) for n in range(DAYS)]
        assert {one.version for one in shifted_windows} == {"3"}
        assert {one.rows for one in shifted_windows} == {ROWS}

    def test_labels_that_are_not_due_are_not_judged(self, shifted_windows: list[Replayed]) -> None:
        judged = [one.performance is not None for one in shifted_windows]
        assert judged == [True] * 11 + [False] * 2

    def test_a_broken_window_is_no_drift(self, shifted_windows: list[Replayed]) -> None:
        decided = outcomes(toy_spec(), shifted_windows)
        assert [n for n, outcome in enumerate(decided) if outcome.broken] == [5]
        assert "'b'" in decided[5].reason

    def test_between_dates(self, shifted: tuple[FolderStore, Reference]) -> None:
        store, _ = shifted
        first, last = START + timedelta(days=3), START + timedelta(days=7)
        found = find_windows(toy_spec(), store, END, first, last)
        assert [w.start for w in found] == [START + timedelta(days=n) for n in (3, 4, 5, 6)]
        assert len(find_windows(toy_spec(), store, END + timedelta(days=99), None, None)) == DAYS
        early = find_windows(toy_spec(), store, START + timedelta(days=2, hours=5), None, None)
        assert len(early) == 2

    def test_windows_longer_than_a_day(self, shifted: tuple[FolderStore, Reference]) -> None:
        store, _ = shifted
        spec = make_spec(window="7d")
        found = find_windows(spec, store, END + timedelta(days=30), None, None)
        assert found[0].start <= START
        assert found[-1].end >= END
        assert all(a.end == b.start for a, b in itertools.pairwise(found))

    def test_nothing_to_replay(self, shifted: tuple[FolderStore, Reference]) -> None:
        store, _ = shifted
        later = END + timedelta(days=50)
        with pytest.raises(
            DataError, match="must hold windows to replay from 2026-05-04, got none"
        ):
            find_windows(toy_spec(), store, later, later, None)
        with pytest.raises(DataError, match="got none"):
            find_windows(make_spec().model_copy(update={"model": "other"}), store, END, None, None)
        with pytest.raises(DataError, match="got more than 5,000"):
            find_windows(make_spec(window="1m"), store, END, None, None)

    def test_refused_requests_answer_nothing(self, tmp_path: Path) -> None:
        store = FolderStore(tmp_path)
        versions, refused = ["3"] * 80 + ["4"] * 120, [None] * 80 + ["422"] * 120
        log_day(store, START, shift=0, concept=False, _version=versions, _error=refused)
        later = START + timedelta(days=1)
        log_day(store, later, shift=0, concept=False, _error=["422"] * ROWS)
        found = run((store, make_reference(tmp_path)), START + timedelta(days=2))
        assert [(one.version, one.rows) for one in found] == [("3", 80), ("3", ROWS)]
        assert [outcome.broken for outcome in outcomes(toy_spec(), found)] == [False, True]

    def test_the_version_that_answered_most(self, tmp_path: Path) -> None:
        store = FolderStore(tmp_path)
        log_day(store, START, shift=0, concept=False, _version=["3"] * 120 + ["4"] * 80)
        log_day(
            store,
            START + timedelta(days=1),
            shift=0,
            concept=False,
            _version=["3"] * 80 + ["4"] * 120,
        )
        found = run((store, make_reference(tmp_path)), START + timedelta(days=2))
        assert [(one.version, one.rows) for one in found] == [("3", 120), ("4", 120)]


class TestTable:
    def test_a_shift_is_found_in_its_second_window(self, shifted_windows: list[Replayed]) -> None:
        rows = table(toy_spec(), shifted_windows, began=BEGAN)
        row = own(rows)
        assert (row.threshold, row.violations, row.alarms) == (0.2, 4, 3)
        assert (row.false_per_100, row.delay) == (0.0, 2)
        assert own(rows, "decay").alarms == 0

    def test_one_of_one_is_a_window_faster(self, shifted_windows: list[Replayed]) -> None:
        spec = toy_spec(violations={"k": 1, "of": 1})
        assert own(table(spec, shifted_windows, began=BEGAN)).delay == 1

    def test_a_high_threshold_misses_and_a_low_one_never_asks_more_rarely(
        self, shifted_windows: list[Replayed]
    ) -> None:
        rows = table(toy_spec(), shifted_windows, began=BEGAN, thresholds=(0.01, 0.1, 5.0))
        drift = [row for row in rows if row.kind == "drift"]
        assert [row.threshold for row in drift] == [0.01, 0.1, 0.2, 5.0]
        assert [row.own for row in drift] == [False, False, True, False]
        violations = [row.violations for row in drift]
        assert violations == sorted(violations, reverse=True)
        assert (drift[-1].alarms, drift[-1].delay) == (0, None)

    def test_alarms_before_it_began_are_false(self, shifted_windows: list[Replayed]) -> None:
        late = START + timedelta(days=12)
        row = own(table(toy_spec(), shifted_windows, began=late))
        assert row.false_per_100 == pytest.approx(100 * 2 / 12)  # after days 10 and 11
        assert row.delay == 1

    def test_without_a_date_nothing_is_called_false(self, shifted_windows: list[Replayed]) -> None:
        row = own(table(toy_spec(), shifted_windows))
        assert (row.alarms, row.false_per_100, row.delay) == (3, None, None)

    def test_decay_waits_for_its_labels(self, decayed_windows: list[Replayed]) -> None:
        rows = table(toy_spec(), decayed_windows, began=BEGAN)
        assert own(rows).alarms == 0
        row = own(rows, "decay")
        assert (row.violations, row.alarms, row.false_per_100) == (2, 2, 0.0)
        assert row.delay == 1 + 2  # its labels come two days later
        drops = [row.threshold for row in rows if row.kind == "decay"]
        assert drops == sorted(drops)
        assert 0.08 in drops

    def test_what_is_computed_for_one_threshold_holds_for_all(
        self, shifted: tuple[FolderStore, Reference], shifted_windows: list[Replayed]
    ) -> None:
        """Replaying at another threshold changes nothing: statistics know of none."""
        other = run(shifted, START + timedelta(days=2), alert=0.5, warn=0.4)
        assert [one.drift for one in other] == [one.drift for one in shifted_windows[:2]]


class TestLook:
    def test_says_what_the_replay_says(
        self, shifted: tuple[FolderStore, Reference], tmp_path: Path
    ) -> None:
        store, reference = shifted
        history = [{"window": "20260313T000000Z", "drifts": True, "broken": False, "rows": ROWS}]
        asking = toy_spec().model_copy(
            update={"retrain": toy_spec().retrain.model_copy(update={"on": ("drift",)})}
        )
        found = look(asking, store, reference, history, now=END, folder=tmp_path)
        assert found.collected.rows == ROWS
        assert found.matured == Window(END - timedelta(days=3), END - timedelta(days=2))
        assert [wish.source for wish in found.outcome.wishes] == ["drift"]
        checks = {finding.check for finding in found.findings}
        assert {"schema", "drift", "prediction_drift", "coverage", "performance"} <= checks

    def test_decay_counts_where_its_window_was_judged_and_whole(
        self, decayed: tuple[FolderStore, Reference], tmp_path: Path
    ) -> None:
        store, reference = decayed
        retrain = toy_spec().retrain.model_copy(update={"on": ("decay",)})
        asking = toy_spec().model_copy(update={"retrain": retrain})
        key = Window(END - timedelta(days=3), END - timedelta(days=2)).key
        row = {"window": key, "drifts": False, "broken": False, "rows": ROWS}
        for history, wishes in (([], 0), ([row], 1), ([row | {"broken": True}], 0)):
            found = look(asking, store, reference, history, now=END, folder=tmp_path)
            assert len(found.outcome.wishes) == wishes
            assert "performance" in {f.check for f in found.findings if f.status == "alert"}


# --- levels ---------------------------------------------------------------------------------------------

values = st.floats(0.01, 3)
features = st.lists(
    st.tuples(st.sampled_from("abcd"), values, st.booleans()), max_size=6, unique_by=lambda t: t[0]
)


@given(
    features=features,
    predicted=values,
    proven=st.booleans(),
    share=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    threshold=values,
)
def test_a_window_violates_up_to_its_level(
    features: list[Any], predicted: float, proven: bool, share: float, threshold: float
) -> None:
    spec = toy_spec(share=share, critical=["a"])
    findings: list[Any] = [
        Finding("drift", name, "alert" if sure else "ok", "m", value, 0.2)
        for name, value, sure in features
    ]
    findings.append(
        Finding("prediction_drift", None, "alert" if proven else "ok", "m", predicted, 0.2)
    )
    one = Replayed(Window(START, END), "3", 9, (), tuple(findings), None)
    rules = with_drift(spec, threshold)
    violates = outcomes(rules, [one])[0].drifts
    assert violates == (level(spec.monitor.drift, findings) >= threshold)
    if not violates:
        judged = [f for f in findings if f.status == "alert" and (f.value or 0) >= threshold]
        quiet = [f for f in findings if f.status != "alert"]
        assert drift_reason(spec.monitor.drift, [*judged, *quiet]) is None or len(features) > len(
            judged
        )


def test_the_picture(
    shifted_windows: list[Replayed], decayed_windows: list[Replayed], tmp_path: Path
) -> None:
    from PIL import Image

    for name, windows in (("shifted", shifted_windows), ("decayed", decayed_windows)):
        rows = table(toy_spec(), windows, began=BEGAN)
        path = draw_backtest(toy_spec(), windows, rows, BEGAN, tmp_path / "deep" / f"{name}.png")
        with Image.open(path) as picture:
            assert picture.size[0] > 900
            assert len(picture.getcolors()) > 10
    bare = [replace(one, performance=None) for one in shifted_windows[:1]]
    path = draw_backtest(toy_spec(), bare, table(toy_spec(), bare), None, tmp_path / "one.png")
    assert path.is_file()
