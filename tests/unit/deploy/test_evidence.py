"""What a step's evidence is, read from a real prediction log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from include.deploy.evidence import Evidence, gather
from include.deploy.labelled import looked_at
from include.errors import DataError
from include.spec.schema import Spec
from include.store.folder import FolderStore
from include.store.labels import LABELS, write_labels
from include.store.predictions import compact, prediction_schema, write_part

NOW = datetime.now(UTC).replace(microsecond=0)
BEFORE = NOW - timedelta(minutes=5)


def spec(**changes: Any) -> Spec:
    base = {
        "model": "churn",
        "task": "binary",
        "ingest": {"source": {"kind": "file", "path": "data/*.csv"}, "target": "y"},
        "deploy": {"rollout": "canary", "min_rows": 50},
    }
    return Spec.model_validate(base | changes)


class Log:
    """Writes rows as serving does."""

    def __init__(self, root: Path) -> None:
        self.store = FolderStore(root)

    def write(
        self,
        arm: str,
        version: str,
        scores: Sequence[float],
        *,
        at: datetime = NOW,
        event: datetime | None = None,
        requests: Sequence[str] | None = None,
        keys: Sequence[str] | None = None,
        rows: Sequence[int] | None = None,
        error: str | None = None,
        latency: float = 5.0,
        feature: str = "age",
    ) -> None:
        count = len(scores)
        answered = error is None
        values: dict[str, Any] = {
            "_request_id": requests or [f"{arm}{version}{n}" for n in range(count)],
            "_row": rows or [0] * count,
            "_key": keys or [None] * count,
            "_time": [event or at] * count,
            "_logged_at": [at] * count,
            "_version": [version] * count,
            "_arm": [arm] * count,
            "_prediction": ["yes" if s > 0.5 else "no" for s in scores]
            if answered
            else [None] * count,
            "_score": list(scores) if answered else [None] * count,
            "_probability": [None] * count,
            "_latency_ms": [latency] * count,
            "_error": [error] * count,
            feature: [1.0] * count,
        }
        schema = prediction_schema([feature], [])
        write_part(self.store, "churn", pa.table(values, schema=schema))

    def gather(self, mode: str = "canary", **changes: Any) -> Evidence:
        options: dict[str, Any] = {"champion": "1", "challenger": "2", "since": BEFORE} | changes
        made = options.pop("spec", spec())
        return gather(made, self.store, mode=mode, **options)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "store")


def test_an_empty_log(log: Log) -> None:
    for mode in ("canary", "shadow", "ab"):
        found = log.gather(mode)
        assert (found.champion.rows, found.challenger.rows) == (0, 0)
        assert found.paired == (mode == "shadow")


def test_each_side_has_its_own_arm_and_version(log: Log) -> None:
    log.write("champion", "1", [0.2] * 30, latency=4.0)
    log.write("challenger", "2", [0.7] * 10, latency=6.0, feature="other")
    log.write("version", "2", [0.9] * 7)  # somebody named it: no traffic of the rollout
    log.write("champion", "0", [0.9] * 5)
    log.write("shadow", "2", [0.9] * 5)
    found = log.gather()
    assert (found.champion.rows, found.champion.requests) == (30, 30)
    assert (found.challenger.rows, found.challenger.requests) == (10, 10)
    assert set(found.champion.scores) == {0.2}
    assert set(found.challenger.latencies) == {6.0}
    assert found.challenger.failures == 0


def test_what_was_logged_before_the_step_does_not_count(log: Log) -> None:
    log.write("challenger", "2", [0.7] * 10, at=BEFORE - timedelta(seconds=1))
    log.write("challenger", "2", [0.8] * 3, at=BEFORE)
    assert log.gather().challenger.rows == 3


def test_events_of_another_time_count_when_logged_now(log: Log) -> None:
    """A simulated world's clock, or a caller that sends last week's events."""
    log.write("challenger", "2", [0.7] * 4, event=NOW - timedelta(days=200))
    compact(log.store, "churn", before=NOW.date())
    assert log.gather().challenger.rows == 4


def test_failures_are_the_versions_own(log: Log) -> None:
    log.write("challenger", "2", [0.7] * 10)
    for number, error in enumerate(
        ["500 ValueError", "422 model: no finite answer", "504 timeout"]
    ):
        log.write("challenger", "2", [0.0], error=error, requests=[f"f{number}"])
    for number, error in enumerate(["400 inputs: wrong", "429 busy", "503 loading", "415 text"]):
        log.write("challenger", "2", [0.0], error=error, requests=[f"c{number}"])
    found = log.gather().challenger
    assert (found.requests, found.failures, found.rows) == (13, 3, 10)
    assert len(found.latencies) == 10


def test_a_request_of_many_rows_is_one_request(log: Log) -> None:
    log.write("challenger", "2", [0.1] * 4, requests=["r"] * 4, rows=[0, 1, 2, 3])
    found = log.gather().challenger
    assert (found.requests, found.rows, len(found.latencies)) == (1, 4, 1)
    assert found.units == 1


def test_rows_of_one_key_are_one_unit(log: Log) -> None:
    log.write("challenger", "2", [0.1] * 40, keys=["k"] * 20 + ["j"] * 20)
    assert log.gather().challenger.units == 2


def test_a_shadow_is_paired_with_the_same_requests(log: Log) -> None:
    names = [f"r{n}" for n in range(20)]
    log.write("champion", "1", [0.2] * 20, requests=names)
    log.write("champion", "1", [0.9] * 5)  # came while the shadow was busy
    log.write("shadow", "2", [0.2] * 15 + [0.8], requests=names[:16])
    log.write("shadow", "2", [0.0], requests=[names[16]], error="500 ValueError")
    found = log.gather("shadow")
    assert found.paired
    assert (found.champion.rows, found.challenger.rows) == (16, 16)
    assert (found.challenger.requests, found.challenger.failures) == (17, 1)
    assert found.disagree == pytest.approx(1 / 16)
    assert found.mirrored == pytest.approx(17 / 25)  # what it failed on it was asked
    assert set(found.champion.scores) == {0.2}
    assert len(found.challenger.latencies) == len(found.champion.latencies) == 16


def test_a_shadow_of_batches_has_no_latency(log: Log) -> None:
    names, rows = ["b"] * 50, list(range(50))
    log.write("batch", "1", [0.2] * 50, requests=names, rows=rows)
    log.write("shadow", "2", [0.3] * 50, requests=names, rows=rows)
    found = log.gather("shadow")
    assert (found.champion.rows, found.challenger.rows) == (50, 50)
    assert len(found.champion.latencies) == len(found.challenger.latencies) == 0


def test_a_batch_is_no_part_of_split_traffic(log: Log) -> None:
    """It has other rows than live requests: in a canary it would make the champion another one."""
    log.write("champion", "1", [0.7] * 30)
    log.write("batch", "1", [0.1] * 500)
    for mode in ("canary", "ab"):
        assert log.gather(mode).champion.rows == 30


def write_batch(log: Log, at: datetime, names: Sequence[str]) -> None:
    for arm, version in (("batch", "1"), ("shadow", "2")):
        scores = list(np.linspace(0.1, 0.9, len(names)))
        log.write(arm, version, scores, at=at, event=NOW - timedelta(days=3), requests=names)


@pytest.mark.parametrize("merged", [False, True])
def test_a_batch_scored_again_counts_once(log: Log, merged: bool) -> None:
    """Also where its first rows were merged with others, so that the new ones cannot take their place."""
    names = [f"b{n}" for n in range(30)]
    write_batch(log, NOW, names)
    if merged:
        write_batch(log, NOW, ["c0"])
        compact(log.store, "churn", before=NOW.date())
    write_batch(log, NOW + timedelta(minutes=1), names)
    found, count = log.gather("shadow"), 31 if merged else 30
    assert (found.champion.rows, found.challenger.rows) == (count, count)
    assert (found.champion.requests, found.challenger.requests) == (count, count)
    assert found.mirrored is None


def test_one_request_id_for_everything_pairs_row_by_row(log: Log) -> None:
    """Some callers do so: their requests are told apart by when they came."""
    scores = list(np.linspace(0.1, 0.9, 40))
    for number in range(3):
        at = NOW + timedelta(seconds=number)
        log.write("champion", "1", scores, at=at, requests=["same"] * 40, rows=list(range(40)))
        log.write("shadow", "2", scores, at=at, requests=["same"] * 40, rows=list(range(40)))
        # Another one of the same id and time, whose rows cannot be told from these.
        log.write("champion", "1", [0.3] * 40, at=at, requests=["same"] * 40, keys=["k"] * 40)
    found = log.gather("shadow")
    assert (found.champion.rows, found.challenger.rows) == (120, 120)
    assert found.disagree == 0.0


@pytest.mark.parametrize(
    ("turn", "value"), [(lambda s: s, 1.0), (lambda s: s**2, 1.0), (lambda s: 1 - s, -1.0)]
)
def test_pairs_tell_who_says_otherwise(log: Log, turn: Any, value: float) -> None:
    scores, names = np.linspace(0.01, 0.99, 200), [f"r{n}" for n in range(200)]
    log.write("champion", "1", list(scores), requests=names)
    log.write("shadow", "2", list(turn(scores)), requests=names)
    found = log.gather("shadow")
    assert found.agreement is not None
    assert found.agreement.value == pytest.approx(value)
    classes = log.gather("shadow", spec=spec(task="multiclass")).agreement
    assert classes is not None
    assert log.gather("shadow", spec=spec(task="regression")).disagree is None
    assert log.gather("canary").agreement is None


def test_classes_are_counted_where_there_are_no_scores(log: Log) -> None:
    log.write("challenger", "2", [0.2] * 3 + [0.8] * 2)
    log.write("champion", "1", [0.2] * 3)
    found = log.gather(spec=spec(task="multiclass")).challenger
    assert found.classes == {"no": 3, "yes": 2}
    assert not len(found.scores)


def test_a_damaged_part_is_an_error_and_no_evidence(log: Log) -> None:
    log.write("challenger", "2", [0.7] * 10)
    part = next(Path(log.store.root).rglob("*.parquet"))
    part.chmod(0o644)
    part.write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match="must be Parquet that can be read"):
        log.gather()


# --- labels ---------------------------------------------------------------------------------------------

LABELLED = {"labels": {"delay": "1d"}}


def label(log: Log, requests: Sequence[str], truth: Sequence[str], at: datetime = NOW) -> None:
    count = len(requests)
    rows = {
        "request_id": list(requests),
        "row": [0] * count,
        "key": [None] * count,
        "time": [None] * count,
        "label": list(truth),
        "received_at": [at] * count,
    }
    write_labels(log.store, "churn", pa.table(rows, schema=LABELS))


def play(log: Log, skill: dict[str, float], count: int = 400) -> None:
    """Both sides answer, and the truth follows."""
    draw = np.random.default_rng(0)
    for arm, version in (("champion", "1"), ("challenger", "2")):
        truth = draw.random(count) < 0.5
        names = [f"{arm}{n}" for n in range(count)]
        noise = draw.normal(0, 1, count)
        scores = 1 / (1 + np.exp(-(skill[arm] * (truth - 0.5) + noise)))
        log.write(arm, version, list(scores), requests=names)
        label(log, names, ["yes" if t else "no" for t in truth])


def test_labels_tell_who_is_better(log: Log) -> None:
    play(log, {"champion": 0.5, "challenger": 3.0})
    found = log.gather(spec=spec(monitor=LABELLED)).labels
    assert found is not None
    assert found.metric == "roc_auc"
    assert found.rows == 400
    assert found.low > 0.1
    # the fourth look (50, 100, 200, 400) gets a twentieth of what the spec leaves
    assert found.confidence == pytest.approx(1 - 0.05 / 20)


def test_who_is_equal_is_not_told_apart(log: Log) -> None:
    play(log, {"champion": 1.0, "challenger": 1.0})
    found = log.gather(spec=spec(monitor=LABELLED)).labels
    assert found is not None
    assert found.low < 0 < found.high


def test_late_labels_change_no_look_that_was_had(log: Log) -> None:
    """Those of the earliest events come last: a look at the earliest events would be another one each time."""
    draw, count, found = np.random.default_rng(0), 90, []
    names = {arm: [f"{arm}{n}" for n in range(count)] for arm in ("champion", "challenger")}
    for arm, version in (("champion", "1"), ("challenger", "2")):
        for n, name in enumerate(names[arm]):
            event = NOW - timedelta(seconds=60 - n / 2)
            log.write(arm, version, [draw.random()], event=event, requests=[name])
    truth = draw.choice(["yes", "no"], count)
    for late, some in enumerate((slice(30, 90), slice(15, 30), slice(0, 15))):
        for arm in names:
            label(log, names[arm][some], list(truth[some]), NOW + timedelta(seconds=late))
        found.append(log.gather(spec=spec(monitor=LABELLED)).labels)
    assert [f.rows for f in found if f] == [50] * 3
    assert found[0] == found[1] == found[2]


def test_without_labels_it_says_why(log: Log) -> None:
    assert log.gather().doubt == ""
    log.write("challenger", "2", [0.7] * 10)
    assert log.gather().doubt == "the spec names no labels"
    assert log.gather(spec=spec(monitor=LABELLED)).doubt == "no labels yet"
    label(log, ["challenger20"], ["yes"])
    found = log.gather(spec=spec(monitor=LABELLED))
    assert found.labels is None
    assert found.doubt == "0 and 1 labelled rows, 50 of each are needed"


def test_looks_at_labels_are_doublings() -> None:
    assert looked_at(49, 50) == (0, 0)
    assert [looked_at(n, 50) for n in (50, 99, 100, 399, 400)] == [
        (50, 1),
        (50, 1),
        (100, 2),
        (200, 3),
        (400, 4),
    ]
