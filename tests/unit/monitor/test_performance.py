from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.monitor.findings import Finding
from include.monitor.performance import check_performance, join, measure
from include.monitor.profile import Profile
from include.monitor.reference import Reference
from include.scoring.bootstrap import resample
from include.scoring.labelled import SAMPLE_ROWS, join_labels
from include.scoring.metrics import score
from include.spec.schema import Spec
from include.store.labels import LABELS
from include.store.predictions import PREDICTIONS

DAY = datetime(2026, 3, 1, tzinfo=UTC)
DELAY = timedelta(days=3)


def hours(number: float) -> datetime:
    return DAY + timedelta(hours=number)


def make_spec(
    metric: str | None = "roc_auc", task: str = "binary", max_drop: float = 0.05, **monitor: Any
) -> Spec:
    watched = {"metric": metric, "max_drop": max_drop} if metric else None
    return Spec.model_validate(
        {
            "model": "toy",
            "task": task,
            "ingest": {"source": {"kind": "file", "path": "x.csv"}, "target": "y", "key": "id"},
            "monitor": {
                "min_rows": 100,
                "labels": {"delay": "3d"},
                "performance": watched,
                **monitor,
            },
        }
    )


def prediction(number: int = 0, **values: Any) -> dict[str, Any]:
    row = dict.fromkeys(PREDICTIONS.names)
    row |= {"_request_id": f"r{number}", "_row": 0, "_key": f"k{number}", "_time": hours(number)}
    return row | {"_version": "3", "_prediction": "no", "_score": 0.2} | values


def label(value: str, *, received: float = 100, **values: Any) -> dict[str, Any]:
    return dict.fromkeys(LABELS.names) | {"label": value, "received_at": hours(received)} | values


def write(folder: Path, rows: list[dict[str, Any]] | pa.Table) -> Path:
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows, PREDICTIONS)
    pq.write_table(table, folder / "window.parquet")
    return folder / "window.parquet"


def joined(
    folder: Path, rows: list[dict[str, Any]], labels: list[dict[str, Any]]
) -> list[str | None]:
    """Return each prediction's label; scores tell them apart."""
    marked = [row | {"_score": float(place)} for place, row in enumerate(rows)]
    found = join_labels(write(folder, marked), pa.Table.from_pylist(labels, LABELS), DELAY)
    texts = dict(
        zip(found.rows["_score"].to_pylist(), found.rows["label"].to_pylist(), strict=True)
    )
    assert found.labelled == len(texts)
    return [texts.get(float(place)) for place in range(len(rows))]


class TestJoin:
    def test_by_request_and_row(self, tmp_path: Path) -> None:
        rows = [prediction(1, _row=0), prediction(1, _row=1), prediction(2), prediction(3)]
        labels = [
            label("b", request_id="r1", row=1),
            label("a", request_id="r2"),  # without a row: the first one
            label("old", request_id="r3", row=0, received=100),
            label("new", request_id="r3", row=0, received=101),
        ]
        assert joined(tmp_path, rows, labels) == [None, "b", "a", "new"]

    @pytest.mark.parametrize(
        ("at", "found"),
        [
            (-0.01, None),
            (0, "x"),
            (1, "x"),
            (72, "x"),
            (72.01, None),
        ],
    )
    def test_by_key_within_the_delay(self, tmp_path: Path, at: float, found: str | None) -> None:
        rows = [prediction(0)]
        assert joined(tmp_path, rows, [label("x", key="k0", time=hours(at))]) == [found]

    def test_the_earliest_one_not_before_the_prediction(self, tmp_path: Path) -> None:
        rows = [prediction(n, _key="k") for n in (1, 5, 9)]
        labels = [label(f"at {n}", key="k", time=hours(n)) for n in (0, 4, 8, 60)]
        assert joined(tmp_path, rows, labels) == ["at 4", "at 8", "at 60"]

    def test_a_label_is_not_for_older_predictions_than_its_own(self, tmp_path: Path) -> None:
        rows = [prediction(n, _key="k") for n in range(0, 48, 2)]
        found = joined(tmp_path, rows, [label("last", key="k", time=hours(46))])
        assert found == [None] * 23 + ["last"]
        found = joined(tmp_path, rows, [label("between", key="k", time=hours(3))])
        assert found == [None, "between", *[None] * 22]

    def test_predictions_of_one_moment_are_of_one_observation(self, tmp_path: Path) -> None:
        rows = [prediction(n, _key="k", _time=hours(1)) for n in range(2)]
        assert joined(tmp_path, rows, [label("x", key="k", time=hours(1))]) == ["x", "x"]

    def test_one_without_a_time_belongs_to_its_key(self, tmp_path: Path) -> None:
        rows = [prediction(1, _key="k"), prediction(9, _key="k"), prediction(1, _key="other")]
        labels = [label("old", key="k", received=10), label("new", key="k", received=11)]
        assert joined(tmp_path, rows, labels) == ["new", "new", None]

    def test_the_closer_name_goes_before(self, tmp_path: Path) -> None:
        rows = [prediction(1, _key="k"), prediction(2, _key="k"), prediction(90, _key="k")]
        labels = [
            label("by row", request_id="r1", row=0),
            label("by time", key="k", time=hours(3)),
            label("by key", key="k"),
        ]
        assert joined(tmp_path, rows, labels) == ["by row", "by time", "by key"]

    def test_failed_requests_and_missing_keys(self, tmp_path: Path) -> None:
        rows = [prediction(1, _error="boom"), prediction(2, _key=None), prediction(3)]
        labels = [label("x", key=f"k{n}", time=hours(n)) for n in (1, 2, 3)]
        found = join_labels(write(tmp_path, rows), pa.Table.from_pylist(labels, LABELS), DELAY)
        assert (found.predictions, found.labelled, found.coverage) == (2, 1, 0.5)

    def test_nothing_at_all(self, tmp_path: Path) -> None:
        found = join_labels(write(tmp_path, []), LABELS.empty_table(), DELAY)
        assert (found.predictions, found.labelled, found.coverage) == (0, 0, None)

    def test_many_rows_are_sampled_the_same_way_in_any_order(self, tmp_path: Path) -> None:
        count = SAMPLE_ROWS + 5000
        table = many(np.linspace(0, 1, count), ["no"] * count)
        labels = labels_of(["no"] * count)
        found = join_labels(write(tmp_path, table), labels, DELAY)
        other = np.random.default_rng(3).permutation(count)
        again = join_labels(write(tmp_path, table.take(pa.array(other))), labels, DELAY)
        assert found.labelled == count
        assert found.rows.num_rows == SAMPLE_ROWS
        assert found.rows.equals(again.rows)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        predictions=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9)), max_size=8),
        labels=st.lists(
            st.tuples(st.sampled_from("ab"), st.integers(-2, 90) | st.none()),
            max_size=8,
            unique=True,
        ),
    )
    def test_as_a_loop_would_have_it(
        self, tmp_path: Path, predictions: list[Any], labels: list[Any]
    ) -> None:
        rows = [prediction(n, _key=key, _time=hours(at)) for n, (key, at) in enumerate(predictions)]
        given_labels = [
            label(f"{key} {at}", key=key, time=None if at is None else hours(at))
            for key, at in labels
        ]
        expected = []
        for key, at in predictions:
            later = [t for k, t in predictions if k == key and t > at]
            times = sorted(t for k, t in labels if k == key and t is not None and t >= at)
            timeless = f"{key} None" if (key, None) in labels else None
            near = bool(times) and times[0] <= at + 72 and all(times[0] < t for t in later)
            expected.append(f"{key} {times[0]}" if near else timeless)
        assert joined(tmp_path, rows, given_labels) == expected


# --- judging --------------------------------------------------------------------------------------------


def many(scores: Any, predictions: Any, probability: Any = None) -> pa.Table:
    rows = len(scores)
    columns: dict[str, Any] = {name: [None] * rows for name in PREDICTIONS.names}
    columns |= {
        "_request_id": [f"r{n}" for n in range(rows)],
        "_row": [0] * rows,
        "_time": [DAY] * rows,
        "_prediction": predictions,
        "_score": scores,
    }
    if probability is not None:
        columns["_probability"] = list(probability)
    return pa.table(
        {f.name: pa.array(columns[f.name], f.type) for f in PREDICTIONS}, schema=PREDICTIONS
    )


def labels_of(texts: Any, share: float = 1.0) -> pa.Table:
    count = round(len(texts) * share)
    columns: dict[str, Any] = {name: [None] * count for name in LABELS.names}
    columns |= {
        "request_id": [f"r{n}" for n in range(count)],
        "row": [0] * count,
        "label": list(texts[:count]),
        "received_at": [DAY] * count,
    }
    return pa.table({f.name: pa.array(columns[f.name], f.type) for f in LABELS}, schema=LABELS)


def binary(rows: int, strength: float, seed: int) -> tuple[Any, Any, Any]:
    """Return truth, scores and answers of a model that is right more often the higher `strength`."""
    rng = np.random.default_rng(seed)
    y = rng.random(rows) < 0.4
    scores = 1 / (1 + np.exp(-(strength * (y - 0.5) + rng.normal(size=rows))))
    return np.where(y, "yes", "no"), scores, np.where(scores > 0.5, "yes", "no")


def make_reference(
    folder: Path, truth: Any, scores: Any, answers: Any, metrics: dict[str, float]
) -> Reference:
    pq.write_table(pa.table({"y": truth}), folder / "inputs.parquet")
    table = pa.table({"_score": scores, "_prediction": answers, "y": truth})
    pq.write_table(table, folder / "scored.parquet")
    profile = Profile(len(truth), None, ())
    return Reference("3", folder / "inputs.parquet", folder / "scored.parquet", profile, metrics)


def binary_reference(folder: Path, rows: int = 4000, **given_metrics: float) -> Reference:
    truth, scores, answers = binary(rows, 2.0, seed=1)
    metrics = score("binary", (truth == "yes").astype(int), scores)
    return make_reference(folder, truth, scores, answers, given_metrics or metrics)


def judge(
    folder: Path, spec: Spec, live: tuple[Any, Any, Any], reference: Reference, **options: Any
) -> Finding:
    truth, scores, answers = live
    path = write(folder, many(scores, answers, options.pop("probability", None)))
    labels = labels_of(truth, options.pop("share", 1.0))
    return check_performance(spec, path, labels, reference, **options)[-1]


class TestBinary:
    @pytest.mark.parametrize("metric", ["roc_auc", "log_loss", "brier", "accuracy", "f1"])
    def test_as_good_as_ever(self, tmp_path: Path, metric: str) -> None:
        found = judge(tmp_path, make_spec(metric), binary(4000, 2.0, 2), binary_reference(tmp_path))
        assert found.status == "ok", found.message
        assert found.value == pytest.approx(binary_reference(tmp_path).metrics[metric], abs=0.04)

    @pytest.mark.parametrize("metric", ["roc_auc", "log_loss", "brier", "accuracy", "f1"])
    def test_decay_in_the_metrics_own_direction(self, tmp_path: Path, metric: str) -> None:
        found = judge(tmp_path, make_spec(metric), binary(4000, 0.5, 2), binary_reference(tmp_path))
        assert found.status == "alert", found.message
        better = judge(
            tmp_path, make_spec(metric), binary(4000, 4.0, 2), binary_reference(tmp_path)
        )
        assert better.status == "ok", better.message

    def test_the_sentence_has_the_numbers(self, tmp_path: Path) -> None:
        found = judge(tmp_path, make_spec(), binary(4000, 1.0, 2), binary_reference(tmp_path))
        holdout = binary_reference(tmp_path).metrics["roc_auc"]
        assert found.threshold == pytest.approx(holdout - 0.05)
        assert found.message.startswith(f"roc_auc {found.value:.4g} on 4,000 labelled predictions")
        assert f"{holdout:.4g} on the holdout: drop {holdout - found.value:.3g} (" in found.message
        assert found.message.endswith("each end with 95% confidence), 0.05 allowed")

    def test_beyond_the_limit_by_chance_is_no_decay(self, tmp_path: Path) -> None:
        found = judge(
            tmp_path, make_spec(max_drop=0.06), binary(250, 1.25, 4), binary_reference(tmp_path)
        )
        assert found.value < found.threshold
        assert found.status == "warn"
        assert found.message.endswith("perhaps by chance")

    def test_a_small_holdout_is_no_firm_ground(self, tmp_path: Path) -> None:
        """The same live rows prove a decay against many holdout rows, and none against few."""
        live = binary(3000, 1.2, 5)
        truth, scores, answers = binary(4000, 2.0, seed=1)
        metrics = score("binary", (truth == "yes").astype(int), scores)
        few = make_reference(tmp_path, truth[:60], scores[:60], answers[:60], metrics)
        assert judge(tmp_path, make_spec(), live, few).status == "warn"
        assert judge(tmp_path, make_spec(), live, binary_reference(tmp_path)).status == "alert"

    def test_each_end_has_the_specs_confidence(self, tmp_path: Path) -> None:
        """A holdout whose answers are not kept is taken as exact; then the ends are plain quantiles."""
        truth, scores, answers = binary(400, 1.0, 2)
        reference = make_reference(
            tmp_path, truth[:2], [0.1, 0.9], ["no", "yes"], {"accuracy": 0.8}
        )
        nothing = pq.read_table(reference.scored).slice(0, 0)
        pq.write_table(nothing, reference.scored)
        path = write(tmp_path, many(scores, answers))
        spec = make_spec("accuracy")
        watched = spec.monitor.performance
        found = measure(spec, watched, join(spec, path, labels_of(truth)), reference)
        y = (truth == "yes").astype(int)
        order = np.lexsort([[f"r{n}" for n in range(400)]])  # the join's own
        drawn = resample("binary", "accuracy", y[order], [scores[order]])[:, 0]
        assert found.interval.high == np.quantile(drawn - 0.8, 0.95, method="higher")
        assert found.interval.low == np.quantile(drawn - 0.8, 0.05, method="lower")

    def test_the_positive_class_shows_in_the_log(self, tmp_path: Path) -> None:
        """`no` is the positive one here, although `yes` sorts after it."""
        truth, scores, _ = binary(2000, 2.0, 1)
        turned = {"yes": "no", "no": "yes"}
        reference_truth = np.array([turned[t] for t in truth])
        answers = np.where(scores > 0.5, "no", "yes")
        metrics = score("binary", (reference_truth == "no").astype(int), scores)
        reference = make_reference(tmp_path, reference_truth, scores, answers, metrics)
        found = judge(tmp_path, make_spec(), (reference_truth, scores, answers), reference)
        assert found.status == "ok"
        assert found.value == pytest.approx(metrics["roc_auc"])

    def test_a_model_that_always_says_no(self, tmp_path: Path) -> None:
        truth, scores, _ = binary(2000, 2.0, 1)
        low = scores * 0.4
        metrics = score("binary", (truth == "yes").astype(int), low)
        reference = make_reference(tmp_path, truth, low, ["no"] * 2000, metrics)
        found = judge(tmp_path, make_spec("roc_auc"), (truth, low, ["no"] * 2000), reference)
        assert (found.status, found.value) == ("ok", pytest.approx(metrics["roc_auc"]))

    def test_what_cannot_be_computed_says_why(self, tmp_path: Path) -> None:
        reference = binary_reference(tmp_path)
        truth, scores, answers = binary(2000, 2.0, 2)
        few = judge(tmp_path, make_spec(), (truth, scores, answers), reference, share=0.02)
        assert few.status == "insufficient_data"
        assert few.message == "roc_auc is not judged: 40 labelled predictions, 100 needed"
        one = judge(tmp_path, make_spec(), (np.array(["no"] * 2000), scores, answers), reference)
        assert one.status == "insufficient_data"
        assert (
            one.message == "roc_auc is not judged: roc_auc is undefined on the 2,000 labelled rows"
        )
        odd = judge(tmp_path, make_spec(), (np.array(["maybe"] * 2000), scores, answers), reference)
        assert odd.message.endswith("2,000 labels are no classes of the target")
        unknown = binary_reference(tmp_path, f1=0.5)
        lost = judge(tmp_path, make_spec(), (truth, scores, answers), unknown)
        assert lost.status == "insufficient_data"
        assert lost.message.endswith("the champion's roc_auc on its holdout is not known")
        assert lost.value is not None

    def test_few_labels_prove_no_decay(self, tmp_path: Path) -> None:
        live, reference = binary(4000, 0.5, 2), binary_reference(tmp_path)
        found = judge(tmp_path, make_spec(), live, reference, share=0.4)
        assert found.status == "warn"
        assert found.message.endswith(
            "no proof of decay: only 40 % have a label, 50 % are needed (monitor.labels.min_coverage)"
        )
        assert judge(tmp_path, make_spec(), live, reference, share=0.5).status == "alert"
        spec = make_spec(labels={"delay": "3d", "min_coverage": 0.3})
        assert judge(tmp_path, spec, live, reference, share=0.4).status == "alert"
        spec = make_spec(labels={"delay": "3d", "min_coverage": 1.0})
        good = judge(tmp_path, spec, binary(4000, 2.0, 2), reference, share=0.4)
        assert good.status == "ok"


class TestRegression:
    def live(self, rows: int, error: float, seed: int) -> tuple[Any, Any, Any]:
        rng = np.random.default_rng(seed)
        truth = rng.normal(50, 10, rows)
        said = truth + rng.normal(0, error, rows)
        return truth, said, [repr(float(v)) for v in said]

    def reference(self, folder: Path) -> Reference:
        truth, said, answers = self.live(3000, 2.0, 1)
        metrics = score("regression", truth, said)
        return make_reference(folder, truth, said, answers, metrics)

    @pytest.mark.parametrize(("error", "status"), [(1.0, "ok"), (2.0, "ok"), (3.0, "alert")])
    @pytest.mark.parametrize("metric", ["rmse", "mae"])
    def test_lower_is_better(self, tmp_path: Path, metric: str, error: float, status: str) -> None:
        truth, said, answers = self.live(3000, error, 2)
        texts = np.array([repr(float(v)) for v in truth])
        spec = make_spec(metric, "regression", max_drop=0.5)
        found = judge(tmp_path, spec, (texts, said, answers), self.reference(tmp_path))
        assert found.status == status, found.message

    def test_labels_that_are_no_numbers_are_left_out(self, tmp_path: Path) -> None:
        truth, said, answers = self.live(3000, 2.0, 2)
        texts = np.array([repr(float(v)) for v in truth], dtype=object)
        texts[:100] = "unknown"
        spec = make_spec("rmse", "regression")
        found = judge(tmp_path, spec, (texts, said, answers), self.reference(tmp_path))
        assert "on 2,900 labelled predictions" in found.message
        texts[:] = "unknown"
        found = judge(tmp_path, spec, (texts, said, answers), self.reference(tmp_path))
        assert found.message.endswith("3,000 labels are no numbers")

    def test_a_metric_that_is_undefined_live(self, tmp_path: Path) -> None:
        truth, said, answers = self.live(500, 2.0, 2)
        texts = np.array(["0.0", *(repr(float(v)) for v in truth[1:])])
        spec = make_spec("mape", "regression")
        found = judge(tmp_path, spec, (texts, said, answers), self.reference(tmp_path))
        assert found.status == "insufficient_data"
        assert "mape is undefined" in found.message


class TestMulticlass:
    CLASSES = ("9", "10", "11")  # numbers: sorted as texts they would come in another order

    def live(self, rows: int, strength: float, seed: int) -> tuple[Any, Any, Any, Any]:
        rng = np.random.default_rng(seed)
        codes = rng.integers(0, 3, rows)
        logits = rng.normal(size=(rows, 3)) + strength * np.eye(3)[codes]
        probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        names = np.array(self.CLASSES, dtype=object)
        answers = names[probability.argmax(axis=1)]
        return names[codes], probability.max(axis=1), answers, probability

    def reference(self, folder: Path) -> Reference:
        truth, scores, answers, probability = self.live(3000, 2.0, 1)
        codes = np.array([self.CLASSES.index(t) for t in truth])
        metrics = score("multiclass", codes, probability)
        return make_reference(folder, truth, scores, answers, metrics)

    @pytest.mark.parametrize("metric", ["accuracy", "f1", "log_loss", "roc_auc"])
    @pytest.mark.parametrize(("strength", "status"), [(2.0, "ok"), (0.7, "alert")])
    def test_by_labels_and_by_probabilities(
        self, tmp_path: Path, metric: str, strength: float, status: str
    ) -> None:
        truth, scores, answers, probability = self.live(3000, strength, 2)
        reference = self.reference(tmp_path)
        live, spec = (truth, scores, answers), make_spec(metric, "multiclass")
        found = judge(tmp_path, spec, live, reference, probability=probability)
        assert found.status == status, found.message
        codes = np.array([self.CLASSES.index(t) for t in truth])
        assert found.value == pytest.approx(score("multiclass", codes, probability)[metric])

    def test_without_probabilities(self, tmp_path: Path) -> None:
        truth, scores, answers, _ = self.live(3000, 2.0, 2)
        spec, reference = make_spec("log_loss", "multiclass"), self.reference(tmp_path)
        found = judge(tmp_path, spec, (truth, scores, answers), reference)
        assert found.status == "insufficient_data"
        assert "probabilities of all classes in every row" in found.message

    def test_probabilities_nobody_can_name(self, tmp_path: Path) -> None:
        truth, scores, answers, probability = self.live(3000, 2.0, 2)
        spec, reference = make_spec("log_loss", "multiclass"), self.reference(tmp_path)
        turned = probability[:, ::-1]
        found = judge(tmp_path, spec, (truth, scores, answers), reference, probability=turned)
        assert found.status == "insufficient_data"
        assert "which probability belongs to which class" in found.message


class TestCoverage:
    def coverage(self, folder: Path, share: float, rows: int = 200, **options: Any) -> Finding:
        truth, scores, answers = binary(rows, 2.0, 2)
        path = write(folder, many(scores, answers))
        spec, labels = make_spec(None), labels_of(truth, share)
        found = check_performance(spec, path, labels, binary_reference(folder), **options)
        assert [f.check for f in found] == ["coverage"]
        return found[0]

    @pytest.mark.parametrize(
        ("share", "status"), [(1.0, "ok"), (0.5, "ok"), (0.49, "warn"), (0.0, "alert")]
    )
    def test_of_a_matured_window(self, tmp_path: Path, share: float, status: str) -> None:
        found = self.coverage(tmp_path, share)
        assert (found.status, found.value) == (status, share)

    def test_the_spec_says_how_much_is_enough(self, tmp_path: Path) -> None:
        truth, scores, answers = binary(200, 2.0, 2)
        path = write(tmp_path, many(scores, answers))
        for least, status in ((0.7, "ok"), (0.81, "warn")):
            spec = make_spec(None, labels={"delay": "3d", "min_coverage": least})
            labels = labels_of(truth, 0.8)
            [found] = check_performance(spec, path, labels, binary_reference(tmp_path))
            assert (found.status, found.threshold) == (status, least)

    def test_labels_that_never_came_are_no_outage(self, tmp_path: Path) -> None:
        found = self.coverage(tmp_path, 0.0, labels_due=False)
        assert found.status == "warn"
        assert found.message.startswith("none of 200 predictions has a label")

    @pytest.mark.parametrize("rows", [0, 99])
    def test_few_predictions_say_nothing(self, tmp_path: Path, rows: int) -> None:
        assert self.coverage(tmp_path, 0.0, rows).status == "insufficient_data"


def test_a_spec_without_labels_judges_nothing(tmp_path: Path) -> None:
    spec = make_spec(None, labels=None)
    path = write(tmp_path, [])
    assert check_performance(spec, path, LABELS.empty_table(), binary_reference(tmp_path)) == ()
